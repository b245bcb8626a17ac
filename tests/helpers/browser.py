"""A real browser for tests (Debian's Chromium): `from tests.helpers.browser import browser,
marks`.
"""

import shutil
from collections.abc import Iterator
from typing import Any

import pytest

CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
marks = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: make system-deps"),
    pytest.mark.timeout(180),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # No sandbox: tests may run as root, where Chromium has none.
        running = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        yield running
        running.close()
