"""Writes reports for the tests of the report, and parses their pages."""

import csv
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

from tests.tuning.report.report_rows import write_sweep
from tuning.report.report import write_report
from tuning.trials import TrialRow

VOID = {"meta", "br", "img", "link", "input", "hr"}


def measured(sweep: Path, row: TrialRow) -> dict[str, float]:
    """Return figures on the test split that are 0.1 above those on the validation split."""
    assert row.phase != "search" and row.best is not None
    return {"loss": row.best + 0.1, "other": 1.0}


def nothing(sweep: Path, row: TrialRow) -> dict[str, float]:
    return {}


class Page(HTMLParser):
    """Parses a page, and checks that it is well-formed, has no identifier twice, and refers to no
    other site.
    """

    def __init__(self, text: str):
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.identifiers: list[str] = []
        self.references: list[str] = []
        self.words: list[str] = []
        self.tags: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []
        assert len(self.identifiers) == len(set(self.identifiers))
        for reference in self.references:
            assert reference.startswith(("#", "data:image/png;base64,")) or re.fullmatch(
                r"[a-z_]+\.csv", reference
            ), reference
            assert not reference.startswith("#") or reference[1:] in self.identifiers, reference

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attributes:
            if name == "id":
                self.identifiers.append(value)
            if name in ("href", "src", "xlink:href"):
                self.references.append(value)
            self.references += re.findall(r"url\(([^)]*)\)", value or "")
            assert not name.startswith("on")

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, tag

    def handle_data(self, data):
        if self.open[-1:] != ["style"]:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def report(folder: Path, rows: Sequence[TrialRow], measure=nothing) -> tuple[Page, Path]:
    path = write_report(write_sweep(folder / "sweep", rows), measure=measure)
    text = path.read_text()
    assert "http" not in text and "<script" not in text and "@import" not in text
    assert "nan" not in re.sub(r"<svg.*?</svg>", "", text, flags=re.DOTALL).lower().replace(
        "loss is nan", ""
    )
    for svg in re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL):
        ElementTree.fromstring(svg)
    return Page(text), path.parent


def table(folder: Path, name: str) -> list[dict[str, str]]:
    with (folder / f"{name}.csv").open() as stream:
        return list(csv.DictReader(stream))
