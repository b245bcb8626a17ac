"""Tests the report's page and files with rows whose statistics are known."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from genray.errors import CheckpointError, RunFault
from tests.tuning.report.report_page import Page, measured, nothing, report, table
from tests.tuning.report.report_rows import row, study_rows, write_sweep
from tuning.report.comparison import Comparison
from tuning.report.report import write_report
from tuning.report.summary import summary
from tuning.trials import TrialRow


def test_write_report_of_a_whole_comparison(tmp_path: Path):
    rows = study_rows(trials=12, seeds=5, arms=("sgd", "adam", "rmsprop"))
    page, folder = report(tmp_path, rows, measured)
    for section in (
        "summary",
        "arms",
        "learning-rates",
        "best-so-far",
        "curves",
        "profile",
        "parameters",
        "limits",
        "trials",
    ):
        assert section in page.identifiers
    # both splits; four charts of an arm each; parallel coordinates
    assert page.tags.count("svg") == 2 + 4 * 3 + 3
    lines = table(folder, "arms")
    best = min(
        lines, key=lambda line: float(line["best_median"]) if line["phase"] == "tuned" else math.inf
    )["arm"]
    assert [(line["arm"], line["phase"]) for line in lines[:2]] == [
        (best, "default"),
        (best, "tuned"),
    ]
    assert f"{best}, tuned: median" in page.text
    for line in lines:
        mine = [each for each in rows if (each.arm, each.phase) == (line["arm"], line["phase"])]
        best = [
            math.inf if each.best is None or each.status != "done" else each.best for each in mine
        ]
        assert float(line["best_median"]) == pytest.approx(np.median(best))
        assert float(line["test_median"]) == pytest.approx(np.median(best) + 0.1)
        assert int(line["runs"]) == 5 and int(line["trials"]) == (
            12 if line["phase"] == "tuned" else 0
        )
    from pyarrow import parquet

    assert parquet.read_table(folder / "arms.parquet").num_rows == 6
    assert {"trial", "loss", "other"} == set(table(folder, "test")[0])
    assert len(table(folder, "learning_rates")) == 36 and len(table(folder, "best_so_far")) == 36
    with Image.open(folder / "arms-validation.png") as picture:
        assert np.ptp(np.asarray(picture.convert("L"))) > 100


def test_write_report_measures_each_finished_comparison_run_once(tmp_path: Path):
    asked: list[str] = []

    def measure(sweep: Path, row: TrialRow) -> dict[str, float]:
        asked.append(row.trial)
        if row.trial.startswith("0005"):
            raise RunFault("its checkpoint is gone")
        return {"loss": 1.0}

    rows = [
        row("a", "default", 1, 2.0, 0),
        row("a", "search", 0, 1.0, 1),
        row("a", "tuned", 7, 1.5, 2),
        row("a", "tuned", 8, 1.5, 3, status="diverged"),
        row("a", "tuned", 9, 1.5, 4, status="running"),
        row("a", "tuned", 10, 1.5, 5),
        row("a", "tuned", 11, None, 6, status="failed"),
    ]
    _, folder = report(tmp_path, rows, measure)
    assert [name[:4] for name in asked] == ["0000", "0002", "0005"]
    asked.clear()
    report(tmp_path, rows, measure)
    # what failed is tried again, what is known is not
    assert [name[:4] for name in asked] == ["0005"]
    asked.clear()
    report(tmp_path, [row("a", "default", 1, 1.9, 0), *rows[1:]], measure)
    # the trial went on since: other weights
    assert [name[:4] for name in asked] == ["0000", "0005"]
    assert {each["trial"] for each in table(folder, "test")} == {rows[0].trial, rows[2].trial}


def test_write_report_counts_failures_as_worst(tmp_path: Path):
    rows = [row("good", "default", seed, 2.0 + seed, seed) for seed in range(3)]
    rows += [
        row(
            "wild",
            "default",
            seed,
            1.0,
            10 + seed,
            status="diverged",
            error="RunFault: loss is inf",
        )
        for seed in (0, 1)
    ]
    rows += [row("wild", "default", 2, 1.0, 12)]
    rows += [
        row(
            "broken",
            "default",
            seed,
            None,
            20 + seed,
            status="failed",
            error="OSError: <disk> full",
        )
        for seed in (0, 1, 2)
    ]
    rows += [row("late", "default", 0, 1.0, 30, status="running")]
    page, folder = report(tmp_path, rows)
    lines = {line["arm"]: line for line in table(folder, "arms")}
    assert float(lines["good"]["best_median"]) == 3.0
    assert math.isinf(float(lines["wild"]["best_median"])) and lines["wild"]["diverged"] == "2"
    assert (
        lines["broken"]["failed"] == "3"
        and lines["late"]["running"] == "1"
        and lines["late"]["runs"] == "0"
    )
    assert lines["wild"]["missed"] == "2"  # the target is 3.0, the worst median that is finite
    assert "OSError: <disk> full" in page.text and "2 trials diverged (wild 2)" in page.text
    assert "3 failed with an error" in page.text and "1 had not ended" in page.text
    assert dict(summary(Comparison(rows)))["Best arm"].startswith(
        "good, untuned: median 3 (2 to 4)"
    )


def test_write_report_compares_effects_with_the_baseline(tmp_path: Path):
    changes = {
        "study": "regularisers",
        "family": "ae",
        "metric": "validation_accuracy",
        "mode": "max",
    }
    rows = [row("none", "tuned", seed, 0.80 + 0.01 * seed, seed, **changes) for seed in range(5)]
    rows += [
        row("l2", "tuned", seed, 0.83 + 0.01 * seed + 0.002 * (seed % 2), 10 + seed, **changes)
        for seed in range(5)
    ]
    rows += [
        row(
            "dropout", "tuned", seed, 0.80 + 0.01 * seed + 0.02 * (-1) ** seed, 20 + seed, **changes
        )
        for seed in range(5)
    ]
    page, folder = report(
        tmp_path, rows, lambda sweep, each: {"accuracy": 0.5 if each.arm == "none" else 0.4}
    )
    effects = {(line["arm"], line["split"]): line for line in table(folder, "effects")}
    assert float(effects["l2", "validation"]["difference"]) == pytest.approx(0.03)
    assert float(effects["l2", "validation"]["low"]) == pytest.approx(0.03)
    assert float(effects["l2", "validation"]["high"]) == pytest.approx(0.032)
    assert (
        effects["l2", "validation"]["better"] == "5"
        and effects["dropout", "validation"]["better"] == "3"
    )
    assert float(effects["dropout", "validation"]["low"]) == pytest.approx(-0.02)
    assert float(effects["l2", "test"]["difference"]) == pytest.approx(-0.1)
    assert "with an interval that excludes 0: dropout and none." in page.text
    assert "effects" in page.identifiers


def test_write_report_shows_samples_of_the_best_runs(tmp_path: Path):
    rows = [row("a", "tuned", seed, 2.0 - seed, seed, family="gan") for seed in range(2)]
    sweep = write_sweep(tmp_path / "sweep", rows)
    asked: list[str] = []

    def sample(_: Path, row: TrialRow) -> bytes:
        asked.append(row.trial)
        return b"\x89PNG..."

    page = Page(write_report(sweep, measure=nothing, sample=sample).read_text())
    assert asked == [rows[1].trial] and "data:image/png;base64,iVBORy4uLg==" in page.references


def test_write_report_refuses_a_folder_that_is_no_sweep(tmp_path: Path):
    with pytest.raises(CheckpointError, match="not a sweep"):
        write_report(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_write_report_replaces_a_damaged_cache_of_test_figures(tmp_path: Path):
    rows = [row("a", "default", 1, 2.0)]
    sweep = write_sweep(tmp_path / "sweep", rows)
    (sweep / "report").mkdir()
    (sweep / "report" / "test.json").write_text("[")
    write_report(sweep, measure=measured)
    kept = json.loads((sweep / "report" / "test.json").read_text())
    assert kept[rows[0].trial]["figures"]["loss"] == pytest.approx(2.1)


def test_make_charts_draws_none_if_every_trial_failed(tmp_path):
    rows = [
        row(
            arm,
            phase,
            seed,
            None,
            number,
            status="failed",
            error="RunFault: no such folder",
            steps=0,
            params={"optimizer.learning_rate": 10.0**-seed, "optimizer.beta1": 0.9 - seed / 20},
        )
        for number, (arm, phase, seed) in enumerate(
            (arm, phase, seed)
            for arm in ("adam", "sgd")
            for phase in ("default", "search")
            for seed in range(5)
        )
    ]
    page = write_report(write_sweep(tmp_path, rows), measure=nothing).read_text()
    assert "<svg" not in page and not list((tmp_path / "report").glob("*.png"))
    assert "20 failed with an error" in page and "no such folder" in page
