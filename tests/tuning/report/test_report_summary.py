"""Tests the sentences of the report with rows whose statistics are known."""

import math
from pathlib import Path

import pytest

from tests.tuning.report.report_page import report
from tests.tuning.report.report_rows import row
from tuning.report.comparison import Comparison
from tuning.report.summary import summary
from tuning.report.text import number
from tuning.trials import TrialRow


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([], "No trial of this sweep has begun"),
        ([row()], "Best of 1 search trial: 1"),
        ([row(best=2.0), row(best=1.0, number=1)], "Best of 2 search trials: 1"),
        (
            [row(best=None, status="diverged"), row(best=None, status="failed", number=1)],
            "No trial ended with a finite figure",
        ),
        ([row(best=None, status="running", steps=0, seconds=0.0)], "1 had not ended"),
        (
            [row("a", "search", 0, 3.0), row("b", "search", 0, 2.0, 1)],
            "b, by the best of 2 search trials: 2",
        ),
        (
            [
                row("a", "search", 0, None, status="diverged"),
                row("b", "search", 0, None, 1, status="diverged"),
            ],
            "None: ",
        ),
        (
            [
                row("a", "default", 0, None, status="diverged"),
                row("b", "default", 0, None, 1, status="diverged"),
            ],
            "None: ",
        ),
        ([row("a", "tuned", 0, 3.0), row("b", "tuned", 0, 2.0, 1)], "There are no untuned runs"),
        (
            [row("a", "default", 0, 0.5, mode="max"), row("b", "default", 0, 0.7, 1, mode="max")],
            "b, untuned: median 0.7",
        ),
        (
            [
                row(best=0.0),
                row(best=0.0, number=1),
                row(best=-1e30, number=2),
                row(best=1e30, number=3),
            ],
            "−1.000e+30",
        ),
        (
            [row(curve=[(10, 0.1, math.nan), (20, 0.2, math.inf)], best=None, status="diverged")],
            "1 trial diverged",
        ),
        ([row(metric="loss/total <&>", family="<b>", data="&", study="x<y")], "X<y: <b> on &"),
    ],
)
def test_write_report_of_small_and_failed_sweeps(tmp_path: Path, rows: list[TrialRow], says: str):
    page, _ = report(tmp_path, rows)
    assert says in page.text


def test_summary_states_its_certainty():
    rows = [row("a", "tuned", seed, 1.0 + 0.1 * seed, seed) for seed in range(5)]
    rows += [
        row("b", "tuned", seed, 1.05 + 0.1 * seed - 0.2 * (seed == 4), 10 + seed)
        for seed in range(5)
    ]
    rows += [row("c", "tuned", seed, 3.0 + 0.1 * seed, 20 + seed) for seed in range(5)]
    parts = dict(summary(Comparison(rows)))
    assert parts["Best arm"].startswith("a, tuned: median 1.2 (1 to 1.4) over 5 seeds")
    assert (
        "The second-best arm is b. It is worse in 4 of 5 common seeds, with a median "
        "difference of 0.05 (" in parts["Certainty"]
    )
    assert "These seeds do not distinguish the best arm from: b." in parts["Certainty"]
    assert "excludes 0: c." in parts["Certainty"]
    assert (
        "94%, so that 1 in 16 pairs of equal arms seems different by chance" in parts["Certainty"]
    )
    assert (
        "the range of 5 seeds, which contains the true median with a probability of 94%"
        in parts["Best arm"]
    )
    rows.append(row("a", "search", 0, 1.0, 30))
    assert (
        "did not have the same number"
        in dict(summary(Comparison([*rows, row("a", "search", 0, 1.0, 31)])))["Protocol"]
    )


def test_ranking_phase_is_tuned_once_every_arm_has_a_tuned_run():
    untuned = [row("sgd", "default", seed, 0.82, seed, mode="max") for seed in range(3)]
    untuned += [row("adam", "default", seed, 0.9, 10 + seed, mode="max") for seed in range(3)]
    begun = row("sgd", "tuned", 7, None, 20, mode="max", status="running")
    first = row("sgd", "tuned", 7, 0.83, 20, mode="max")
    for tuned in (begun, first):  # adam's would be better, if it had any
        won = dict(summary(Comparison([*untuned, tuned])))["Best arm"]
        assert (
            won.startswith("adam, untuned: median 0.9 (0.9 to 0.9) over 3 seeds")
            and "Unfinished" in won
        )
    assert dict(summary(Comparison([*untuned, first])))["Effect of tuning"].endswith(
        "Tuning improved sgd, from 0.82 (0.82 to 0.82) to 0.83."
    )
    second = row("adam", "tuned", 7, 0.91, 21, mode="max")
    assert dict(summary(Comparison([*untuned, first, second])))["Best arm"].startswith(
        "adam, tuned: median 0.91"
    )
    # An arm whose search found nothing has no tuned runs, and nobody waits for them; while the
    # search goes on, one does.
    lost = row("adam", "search", 0, None, 30, mode="max", status="diverged")
    going = row("adam", "search", 0, None, 31, mode="max", status="running")
    assert dict(summary(Comparison([*untuned, first, lost])))["Best arm"].startswith(
        "sgd, tuned: median 0.83"
    )
    assert Comparison([*untuned, first, lost, going]).ranking_phase == "default"
    assert "no trial has ended" in dict(summary(Comparison([begun, going])))["Best arm"]


def test_certainty_does_not_count_equal_runs_as_worse():
    rows = [
        row(arm, "tuned", seed, 0.9, number, mode="max")
        for number, arm in enumerate("ab")
        for seed in range(3)
    ]
    rows += [row("a", "tuned", 3, 0.95, 9, mode="max"), row("b", "tuned", 3, 0.94, 10, mode="max")]
    assert (
        "The second-best arm is b. It is worse in 1 of 4 common seeds and equal in 3, "
        in dict(summary(Comparison(rows)))["Certainty"]
    )


def test_number_formats_four_digits():
    assert [
        number(each) for each in (0.0, 1.0, 12345.6, 0.00001234, -2.5, math.inf, math.nan, None)
    ] == [
        "0",
        "1",
        "12,346",
        "1.234e−05",
        "−2.5",
        "∞",
        "–",
        "–",
    ]
