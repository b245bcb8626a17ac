"""axe-core, which finds faults of accessibility: taken from npm once, and kept in a cache."""

import functools
import hashlib
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

VERSION = "4.14.1"
SHA256 = "29348999450cdf2849a8e70b7912fc2da85a849da39c0d0d5394f51d4a9ed95c"
"""Of axe.min.js. axe-core is MPL-2.0, and only the tests use it."""


@functools.lru_cache(1)
def axe_source() -> str:
    """Return the script of axe-core. Skips the test if npm cannot provide it."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = base / "genray-tests" / f"axe-core-{VERSION}"
    script = folder / "node_modules" / "axe-core" / "axe.min.js"
    if not script.exists():
        if shutil.which("npm") is None:
            pytest.skip("accessibility is not checked: npm is not installed")
        folder.mkdir(parents=True, exist_ok=True)
        command = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--no-save"]
        ran = subprocess.run(
            [*command, "--prefix", str(folder), f"axe-core@{VERSION}"],
            capture_output=True,
            text=True,
            timeout=120,
        )
        if ran.returncode != 0 or not script.exists():
            pytest.skip(f"accessibility is not checked: npm has no axe-core: {ran.stderr[-200:]}")
    content = script.read_bytes()
    assert hashlib.sha256(content).hexdigest() == SHA256
    return content.decode()


def violations(page: Any) -> list[str]:
    """Return the violations of WCAG 2.2 AA and of axe's best practices on a page.

    The page's context must have been opened with `bypass_csp`.
    """
    page.evaluate(axe_source())
    found = page.evaluate("async () => (await axe.run()).violations")
    return [
        f"{each['id']}: {each['help']}: {node['html'][:160]}"
        for each in found
        for node in each["nodes"]
    ]
