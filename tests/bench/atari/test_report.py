"""Tests the tables of `bench_atari` on runs made by hand."""

from pathlib import Path
from typing import Any

from tests.bench.atari import pictures
from tests.bench.atari.report import Comparison, compare, core_shares, score_rows, scores


def result(normalised: float, *, milestone: bool = True) -> dict[str, Any]:
    def moment(value: float) -> dict[str, Any]:
        evaluation = {"mean": 10 * value, "normalised": value, "scores": [10 * value], "cut": 0}
        return {
            "steps": 100, "updates": 25, "seconds": 9.0, "wall_s": 10.0,
            "sticky_0": evaluation, "sticky_25": evaluation | {"normalised": value / 2},
        }  # fmt: skip

    return {"milestone": moment(normalised / 4) if milestone else None, "end": moment(normalised)}


RUNS = {
    "road_runner_quick": {
        "krull": {0: result(4.0), 1: result(6.0)},
        "boxing": {0: result(5.0), 1: result(5.0)},
    },
    "sb3": {
        "krull": {0: result(1.0), 1: result(2.0, milestone=False)},
        "boxing": {0: result(1.0), 1: result(1.0)},
    },
    "cleanrl": {"krull": {0: result(3.0), 1: result(9.0)}},
}


def test_scores_of_runs_that_missed_the_milestone_are_those_of_their_end():
    assert scores(RUNS, "sb3", "end", "sticky_0")["krull"] == [1.0, 2.0]
    assert scores(RUNS, "sb3", "milestone", "sticky_0")["krull"] == [0.25, 2.0]
    assert scores(RUNS, "sb3", "end", "sticky_25")["krull"] == [0.5, 1.0]
    unknown = result(1.0)
    unknown["end"]["sticky_0"] = unknown["end"]["sticky_0"] | {"normalised": None}
    assert scores({"sb3": {"krull": {0: unknown}}}, "sb3", "end", "sticky_0") == {}


def test_compare_puts_systems_together_on_the_games_that_they_share():
    both, krull = compare(RUNS, "end", "sticky_0")
    assert both.games == ("boxing", "krull") and set(both.iqms) == {"road_runner_quick", "sb3"}
    assert both.iqms["road_runner_quick"].value == 5.0  # the middle two of 4, 5, 5, 6
    assert krull.games == ("krull",) and set(krull.iqms) == {*RUNS}
    assert krull.improvements("road_runner_quick")["cleanrl"].value == 0.5


def test_ahead_needs_the_factor_and_intervals_apart():
    both = compare(RUNS, "end", "sticky_0")[0]
    assert both.is_ahead("road_runner_quick", factor=2.0) == {"sb3": True}
    assert both.is_ahead("road_runner_quick", factor=10.0) == {"sb3": False}
    overlapping = compare(RUNS, "end", "sticky_0")[1]
    assert overlapping.is_ahead("cleanrl")["road_runner_quick"] is False


def test_score_rows_count_the_runs_that_reached_the_moment():
    row = next(row for row in score_rows(RUNS, "milestone", "sticky_0") if row[0].startswith("Sta"))
    assert row[1:5] == ("krull", "1 of 2", "11.2 (2–20)", "1.125")
    assert core_shares([{"result": result(1.0)}]) == (0.9, 0.9)


def test_pictures_are_drawn(tmp_path: Path):
    both: Comparison = compare(RUNS, "end", "sticky_0")[0]
    pictures.draw_profiles(tmp_path / "a.png", both, "title")
    pictures.draw_improvement(tmp_path / "b.png", both, "road_runner_quick", "title")
    assert (tmp_path / "a.png").stat().st_size > 5_000
    assert (tmp_path / "b.png").stat().st_size > 3_000
