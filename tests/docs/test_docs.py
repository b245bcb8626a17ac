"""The pages of the repository: links and anchors, paths, Python examples, and the strict build."""

import ast
import importlib.util
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    *sorted(ROOT.glob("*.md")),
    ROOT / "examples" / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
GUIDES = {
    "atari_agents",
    "own_environments",
    "policies",
    "autoencoders_vae_gan",
    "style_and_dreams",
    "photographs",
    "sweeps",
    "serving",
    "clusters",
    "gpus",
}
FENCE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)

every_page = pytest.mark.parametrize(
    "page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix()
)


@cache
def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and MyST make them."""
    found: set[str] = set()
    for heading in re.findall(r"^#{1,6} +(.+?) *$", FENCE.sub("", page.read_text()), re.MULTILINE):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
        number = 0
        while (anchor := f"{slug}-{number}" if number else slug) in found:
            number += 1
        found.add(anchor)
    return found


def links(page: Path) -> list[str]:
    """The targets of links and pictures outside fenced blocks."""
    return re.findall(r"\]\(<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\)", FENCE.sub("", page.read_text()))


def lost_links(page: Path) -> list[str]:
    """The links of a page that lead to no file, or to no heading of a page."""
    lost = []
    for target in links(page):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        if not there.exists() or (
            anchor and there.suffix == ".md" and anchor not in anchors(there)
        ):
            lost.append(target)
    return lost


@every_page
def test_relative_links_and_anchors_exist(page: Path):
    assert not lost_links(page)


def test_lost_links_finds_a_lost_file_and_a_lost_anchor(tmp_path: Path):
    page = tmp_path / "page.md"
    page.write_text(
        "# The `first` heading\n## Twice\n## Twice\n[a](page.md) [b](#the-first-heading)\n"
        "[c](#twice-1) ![d](none.png) [e](page.md#none) [f](https://example.org/x#y)\n"
    )
    assert lost_links(page) == ["none.png", "page.md#none"]


@every_page
def test_python_blocks_compile(page: Path):
    for block in re.findall(r"^```python\n(.*?)^```", page.read_text(), re.S | re.M):
        compile(block, str(page), "exec")


@every_page
def test_named_files_of_the_code_exist(page: Path):
    """A path such as `genray/rl/replay.py` in a page leads to a file or a directory."""
    if page.name == "CHANGELOG.md":  # it names what was removed
        return
    named = re.findall(
        r"`((?:genray|tuning|serve|tests|examples|docs)/[\w./-]+)`", page.read_text()
    )
    assert not [name for name in named if not (ROOT / name).exists()]


def test_every_guide_has_the_same_parts():
    """A guide begins with what a reader can do and the shortest command, and ends with limits."""
    pages = {path.stem: path.read_text() for path in (ROOT / "docs" / "guides").glob("*.md")}
    assert set(pages) == GUIDES
    for name, text in pages.items():
        headings = re.findall(r"^## (.+)$", FENCE.sub("", text), re.MULTILINE)
        assert "You can " in text.partition("\n## ")[0], name
        assert headings[0] in ("The shortest command", "The interface"), (name, headings)
        assert "Read the result" in headings, (name, headings)
        assert any(heading.startswith("Options that matter") for heading in headings), name
        assert "Limits" in headings, (name, headings)


PARTS = ("Equation", "Command", "(Curve|Picture)", "(Results|Scores)", "Departures", "Where", "Ref")
"""How the headings of an algorithm's page begin, in order."""


@pytest.mark.parametrize(
    "page",
    [path for path in PAGES if path.parent.name == "algorithms" and path.stem != "index"],
    ids=lambda page: page.stem,
)
def test_every_algorithm_page_has_the_same_parts(page: Path):
    """What it is, equation, command, curve or picture, table, departures, code, references."""
    text = page.read_text()
    headings = re.findall(r"^## (.+)$", FENCE.sub("", text), re.MULTILINE)
    assert len(headings) == len(PARTS), headings
    for heading, part in zip(headings, PARTS):
        assert re.match(part, heading), (heading, part)
    bodies = re.split(r"^## .+$", text, flags=re.MULTILINE)
    assert len(bodies[0]) > 150 and "$$" in bodies[1] and "genray " in bodies[2]
    assert "![" in bodies[3] and "\n|" in bodies[4] and "\n- " in bodies[5]
    assert re.search(r"`genray/[\w/]+\.py`", bodies[6]) and "<https://" in bodies[7]


@pytest.mark.parametrize(
    ("module", "page"),
    [
        ("genray/rl/__init__.py", "rl"),
        ("genray/gen/__init__.py", "gen"),
        ("genray/rllib/__init__.py", "rllib"),
        ("tuning/spaces.py", "tuning"),
    ],
)
def test_api_pages_list_every_exported_name(module: str, page: str):
    text = (ROOT / "docs" / "api" / f"{page}.md").read_text()
    listed = set(re.findall(r"^\.\. auto\w+:: [\w.]+\.(\w+)$", text, re.MULTILINE))
    exported = re.search(r"^__all__ = (\[.*?\])", (ROOT / module).read_text(), re.S | re.M)
    assert exported
    # A Dimension and a Coordinate are the types of what a Space has, not for users to make.
    assert set(ast.literal_eval(exported[1])) - listed <= {"Dimension", "Coordinate"}


@pytest.mark.service
@pytest.mark.timeout(300)  # autodoc imports every package
@pytest.mark.skipif(importlib.util.find_spec("sphinx") is None, reason="needs the extra docs")
def test_sphinx_strict_build(tmp_path):
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "-b", "html", "docs", str(tmp_path)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    assert (tmp_path / "index.html").exists()
    for page in tmp_path.rglob("*.html"):  # a reader without a network sees the whole page
        text = page.read_text()
        assert not re.findall(r"<(?:script|img|iframe)[^>]+src=\"(?:https?:)?//[^\"]+", text), page
        assert not re.findall(r"<link[^>]+href=\"(?:https?:)?//[^\"]+", text), page
    assert "<math" in (tmp_path / "algorithms" / "dqn.html").read_text()


@pytest.mark.skipif(importlib.util.find_spec("sphinx") is None, reason="needs the extra docs")
def test_docstring_as_rst_keeps_plain_text(monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])  # conf.py adds the root
    spec = importlib.util.spec_from_file_location("conf", ROOT / "docs" / "conf.py")
    assert spec and spec.loader
    conf = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(conf)
    lines = ["Write |δ| to `low`..`high` * x_.", "", "Example::", "", "    a = f(x)", ""]
    lines += ["Args:", "    x: the value,", "        in seconds.", "    y: another."]
    conf.docstring_as_rst(None, "", "", None, None, lines)
    text = "\n".join(lines)
    assert r"Write \|δ\| to \ ``low``\ ..\ ``high``\  \* x\_." in text
    assert "Example:\n" in text and "::\n\n    a = f(x)" in text
    assert "* \\ ``x``\\ : the value, in seconds.\n" in text and "* \\ ``y``\\ : another." in text
