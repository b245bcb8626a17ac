"""Tests the rows of trials: on disk, in tables, and the choice of the best."""

import json
import math
from dataclasses import replace

import pandas
import pytest

from genray.errors import CheckpointError
from tuning.trials import TrialRow, best_trial, read_trial, read_trials, write_table, write_trial


def row(number: int, **values) -> TrialRow:
    name = f"{number:04d}-adam-search"
    first = TrialRow(
        trial=name,
        study="optimizers",
        family="vae",
        data="digits",
        arm="adam",
        phase="search",
        seed=1,
        status="done",
        params={"optimizer.learning_rate": 1e-3 * (number + 1), "model.widths": [64, 32]},
        path=f"trials/{name}",
        best=2.0,
        best_step=20,
        last=2.5,
        steps=30,
        seconds=1.5,
        curve=[(10, 0.5, 3.0), (20, 1.0, 2.0), (30, 1.5, 2.5)],
    )
    return replace(first, **values)


def sweep_of(path, *rows):
    (path / "sweep.yaml").write_text("study: optimizers\n")
    for each in rows:
        (path / each.path).mkdir(parents=True)
        write_trial(path, each)
    return path


def test_read_trials_returns_rows_in_order_of_their_numbers(tmp_path):
    rows = [row(number, best=float(number), curve=[(1, 0.1, math.nan)]) for number in (2, 0, 11)]
    found = read_trials(sweep_of(tmp_path, *rows))
    assert [each.trial[:4] for each in found] == ["0000", "0002", "0011"]
    assert (
        math.isnan(found[0].curve[0][2])
        and found[1].best == 2.0
        and found[1].params == rows[0].params
    )


def test_write_table_has_a_column_for_each_setting(tmp_path):
    rows = [
        row(0),
        row(
            1,
            params={"optimizer.learning_rate": 1, "optimizer.l1": 0.5},
            best=None,
            status="diverged",
        ),
    ]
    write_table(sweep_of(tmp_path, *rows), rows)
    for table in (
        pandas.read_parquet(tmp_path / "trials.parquet"),
        pandas.read_csv(tmp_path / "trials.csv"),
    ):
        assert list(table["trial"]) == [each.trial for each in rows]
        assert list(table["param:optimizer.learning_rate"]) == [1e-3, 1.0]
        assert math.isnan(table["param:optimizer.l1"][0]) and table["param:optimizer.l1"][1] == 0.5
        assert math.isnan(table["best"][1]) and json.loads(table["curve"][0])[1] == [20, 1.0, 2.0]


def test_write_table_without_rows_has_a_header(tmp_path):
    write_table(sweep_of(tmp_path), [])
    assert (tmp_path / "trials.csv").read_text().startswith("trial,study,family")


def test_best_trial_is_the_first_of_equals_without_failures():
    rows = [
        row(0, best=3.0),
        row(1, best=2.0),
        row(2, best=2.0),
        row(3, best=0.1, status="diverged"),
        row(4, best=None),
    ]
    assert best_trial(rows) == rows[1]
    assert best_trial(replace(each, mode="max") for each in rows) == replace(rows[0], mode="max")
    assert best_trial([rows[3], rows[4]]) is None
    assert not rows[0].better(math.nan, None) and not rows[0].better(math.inf, None)


def test_read_trials_refuses_other_folders_and_damaged_rows(tmp_path):
    with pytest.raises(CheckpointError, match="not a sweep"):
        read_trials(tmp_path)
    path = sweep_of(tmp_path, row(0)) / row(0).path / "trial.json"
    for text in (
        "{",
        "[]",
        '{"trial": 1}',
        json.dumps(json.loads(path.read_text()) | {"status": "lost"}),
    ):
        path.write_text(text)
        with pytest.raises(CheckpointError):
            read_trial(path)
