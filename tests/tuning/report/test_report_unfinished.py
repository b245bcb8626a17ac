"""Tests that the report of an unfinished sweep does not use the test split."""

from pathlib import Path

import pytest

from genray import cli
from tests.helpers.tuning import to_the_end, track
from tuning.plan import Slot, Sweep, SweepConfig
from tuning.report.report import write_report
from tuning.sweep import prepare
from tuning.trial_run import TrialRun
from tuning.trials import TrialRow


def settle(sweep: Sweep, slot: Slot) -> TrialRow:
    """Run the trial of a slot without Ray."""
    settings = (
        sweep.tuned(slot.arm) if slot.phase == "tuned" else sweep.points[slot.arm][slot.index]
    )
    assert settings is not None
    return to_the_end(track(TrialRun(sweep.path, sweep.begin(slot, settings), sweep.base)))


def test_write_report_keeps_the_test_split_sealed_while_trials_wait(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    config = SweepConfig(
        arms=("adam",), steps=4, looks=2, trials=1, seeds=1, set=("model.widths=8",)
    )
    sweep = prepare(config, tmp_path / "sweep")
    sweep.path.mkdir()
    sweep.save()
    asked: list[str] = []

    def measure(_: Path, row: TrialRow) -> dict[str, float]:
        asked.append(row.trial)
        return {"loss": 1.0}

    *first, last = sweep.slots
    for slot in first:
        settle(sweep, slot)
        text = write_report(sweep.path, measure=measure).read_text()
        assert asked == [] and "of this sweep ha" in text and "the test split stays sealed" in text
    settle(sweep, last)
    text = write_report(sweep.path, measure=measure).read_text()
    assert asked == ["0000-adam-default", "0002-adam-tuned"] and "Unfinished" not in text

    (sweep.path / "report" / "test.json").unlink()
    assert cli.main(["sweep", "report", str(sweep.path)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said == [
        "evaluating 2 trials on the test split …",
        str(sweep.path / "report" / "index.html"),
    ]
