"""Tests the report in a real browser (Debian's Chromium), without a network and on a phone."""

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.helpers.browser import browser, marks
from tests.tuning.report.report_rows import row, study_rows, write_sweep
from tuning.report.report import write_report
from tuning.trials import TrialRow

__all__ = ["browser"]  # pytest finds the fixture by its name here
pytestmark = marks


STUDY_ARMS = ("sgd", "adam", "adadelta", "proximal-gradient-descent")  # the longest name, too


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Write the reports of four sweeps: a comparison, a search, effects, and a failed search."""
    folder = tmp_path_factory.mktemp("reports")

    def sample(sweep: Path, each: TrialRow) -> bytes:
        file = io.BytesIO()
        noise = np.random.default_rng(each.seed).integers(0, 255, (64, 64), np.uint8)
        Image.fromarray(noise).save(file, "png")
        return file.getvalue()

    def measure(sweep: Path, each: TrialRow) -> dict[str, float]:
        assert each.best is not None
        return {"loss": each.best + 0.15}

    names = {"none": "sgd", "l2": "momentum", "a rather long name of an arm": "adam"}
    arms = study_rows(arms=tuple(names.values()), trials=8)
    renamed = [
        TrialRow(
            **{**each.__dict__, "arm": next(new for new, old in names.items() if old == each.arm)}
        )
        for each in arms
    ]
    sweeps = {
        "study": study_rows(arms=STUDY_ARMS),
        "search": study_rows(arms=("adam",), trials=24, seeds=0),
        "effects": renamed,
        "broken": [
            row(
                best=None,
                status="diverged",
                error="RunFault: " + "x" * 300,
                params={"a.b": 1, "c": [2, 3]},
            )
        ]
        * 1,
    }
    return {
        name: write_report(write_sweep(folder / name, rows), measure=measure, sample=sample)
        for name, rows in sweeps.items()
    }


SCREENS = {
    "desk": {"viewport": {"width": 1200, "height": 900}},
    "dark": {"viewport": {"width": 1200, "height": 900}, "color_scheme": "dark"},
    "phone": {
        "viewport": {"width": 360, "height": 740},
        "has_touch": True,
        "is_mobile": True,
        "device_scale_factor": 2,
    },
}


@pytest.mark.parametrize(
    ("name", "screen"),
    [("study", screen) for screen in SCREENS]
    + [(name, "phone") for name in ("search", "effects", "broken")],
)
def test_report_page_is_shown(browser: Any, reports: dict[str, Path], name: str, screen: str):
    context = browser.new_context(java_script_enabled=True, offline=True, **SCREENS[screen])
    page = context.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: asked.append(message.text))
    page.goto(reports[name].as_uri())
    width = SCREENS[screen]["viewport"]["width"]  # type: ignore[index]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    picture = page.screenshot(full_page=True)
    folder = os.environ.get("GENRAY_SHOTS")
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        (Path(folder) / f"report-{name}-{screen}.png").write_bytes(picture)
    grey = np.asarray(Image.open(io.BytesIO(picture)).convert("L"), dtype=float)
    paper = np.median(grey)
    assert (paper > 200) == (screen != "dark") and (paper < 60) == (screen == "dark")
    # The page has text and lines: it is neither blank nor filled.
    assert 0.01 < (np.abs(grey - paper) > 60).mean() < 0.5
    for box in page.evaluate(
        "[...document.querySelectorAll('svg')].map(s => [s.clientWidth, s.clientHeight])"
    ):
        assert min(box) > 60
    # The browser requests nothing except the page and its embedded data.
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == [] and asked[
        0
    ].startswith("file:")
    context.close()


def test_report_charts_have_marks_and_readable_text(browser: Any, reports: dict[str, Path]):
    """Each SVG has readable text and marks of its data."""
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    page.goto(reports["study"].as_uri())
    charts = page.locator("svg")
    assert charts.count() == 2 + 4 * len(STUDY_ARMS) + len(STUDY_ARMS)
    for place in (0, 1, 2, 6, 10, 14, 20):
        grey = np.asarray(
            Image.open(io.BytesIO(charts.nth(place).screenshot())).convert("L"), dtype=float
        )
        assert (grey < 190).mean() > 0.01
        assert charts.nth(place).locator("text").count() >= 4
    sizes = page.evaluate(
        "[...document.querySelectorAll('svg text')].map(t => t.getBoundingClientRect().height)"
    )
    assert min(size for size in sizes if size) >= 8  # pixels
    page.close()


def test_report_page_works_without_scripts(browser: Any, reports: dict[str, Path]):
    context = browser.new_context(
        java_script_enabled=False, viewport={"width": 1200, "height": 900}
    )
    page = context.new_page()
    page.goto(reports["study"].as_uri())
    assert (
        page.locator("details table").count() == 1
        and not page.locator("details table").is_visible()
    )
    page.click("summary")
    assert page.locator("details table").is_visible()
    context.close()
