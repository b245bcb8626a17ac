"""Tests the files of the page: libraries as npm has them, short modules, the security policy."""

import hashlib
import json
import re
from pathlib import Path

from serve.routes.page import PAGE, POLICY, page_file
from tests.helpers.requests import ask
from tests.serve.conftest import Web

VENDOR = PAGE / "vendor"


def test_vendor_files_match_the_manifest():
    rows = json.loads((VENDOR / "manifest.json").read_text())["files"]
    files = {path.name for path in VENDOR.iterdir() if path.is_file()} - {"manifest.json"}
    assert {row["file"] for row in rows} == files
    for row in rows:
        content = (VENDOR / row["file"]).read_bytes()
        assert hashlib.sha256(content).hexdigest() == row["sha256"], row["file"]
        assert row["version"] and row["licence"] and row["package"]
        licence = row["package"].rpartition("/")[2].replace("@", "")
        assert (VENDOR / "licences" / f"{licence}.txt").read_text(), row["package"]


def own_modules() -> list[Path]:
    return [path for path in PAGE.rglob("*.js") if VENDOR not in path.parents]


def test_page_modules_are_short_and_import_only_files_of_the_page():
    assert len(own_modules()) > 15
    for path in own_modules():
        text = path.read_text()
        assert text.startswith("// "), f"{path.name}: begins with what it is for"
        lines = text.splitlines()
        assert len(lines) <= 250 and max(map(len, lines)) <= 160, path.name
        for target in re.findall(r"""(?:from|import\()\s*["']([^"']+)["']""", text):
            assert (path.parent / target).resolve().is_file(), f"{path.name}: {target}"


def test_page_forbids_inline_code_and_other_sites(web: Web):
    assert "unsafe" not in POLICY and "http" not in POLICY and "default-src 'none'" in POLICY
    status, headers, body = ask(web, "/")
    assert status == 200 and headers["content-security-policy"] == POLICY
    assert not re.search(rb"<script>|<style>| style=| on\w+=", body)
    for path in own_modules():
        assert not re.search(r"\bstyle=|innerHTML|\beval\(|https?://(?!127)", path.read_text()), (
            path
        )


def test_page_files_are_found_by_their_path_alone(web: Web):
    assert page_file("lib/api.js").media_type == "text/javascript"
    for path in ("/page/login.html", "/page/../app.py", "/page/lib", "/page/none.js"):
        assert ask(web, path)[0] == 404, path
