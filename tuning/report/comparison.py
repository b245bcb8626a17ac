"""Compares the arms of a sweep: summarizes each arm and phase, and ranks the arms."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from tuning.report.importance import Importances, importances
from tuning.report.stats import (
    Effect,
    Estimate,
    cost,
    effect,
    estimate,
    finished,
    from_cost,
    ratios_to_fastest,
    target_cost,
    to_target,
)
from tuning.trials import TrialRow, best_trial

BASELINES = ("none", "off", "baseline")
"""Arms with one of these names are the baseline of their study."""
PHASES = ("default", "tuned", "search")


def readable(name: str) -> str:
    """Convert a metric's name to text."""
    return name.replace("_", " ").replace("/", " ")


Tests = Mapping[str, Mapping[str, float]]
"""Trial → its metrics on the test split; empty if they are not available."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """Summary of one arm in one phase. `best` and `test` are estimates of costs (see stats.py)."""

    arm: str
    phase: str
    runs: int
    """Number of finished runs."""
    running: int
    """Number of runs that have not ended."""
    diverged: int
    """Number of finished runs that diverged."""
    failed: int
    """Number of finished runs that raised an exception."""
    stopped: int
    """Number of finished runs that a scheduler stopped early."""
    best: Estimate
    """Best values of the metric on the validation split."""
    test: Estimate
    """Values on the test split."""
    steps: Estimate
    """Steps until the target was reached."""
    seconds: Estimate
    """CPU seconds until the target was reached."""
    missed: int
    """Number of runs that never reached the target."""
    state_bytes: float | None
    """Bytes of optimizer state for each learned parameter."""
    trials: int
    """Number of finished search trials before these runs."""
    search_diverged: int
    """Number of these search trials that diverged."""


class Comparison:
    """Compares the arms of one sweep by the rows of its trials.

    Args:
        rows: the rows of all trials that have begun.
        tests: metrics on the test split, for the trials that have any.
        waiting: number of planned trials that have not ended, including those without a row.
    """

    def __init__(self, rows: Sequence[TrialRow], tests: Tests | None = None, waiting: int = 0):
        self.rows, self.tests, self.waiting = list(rows), dict(tests or {}), waiting
        self.arms = list(dict.fromkeys(row.arm for row in self.rows))
        first = self.rows[0] if self.rows else None
        self.metric = first.metric if first else "validation_loss"
        self.mode = first.mode if first else "min"
        self.study, self.family, self.data = (
            (first.study, first.family, first.data) if first else ("", "", "")
        )
        self.target = target_cost(self.rows)

    def select(self, arm: str | None = None, phase: str | None = None) -> list[TrialRow]:
        """Return the rows of one arm or of all, in one phase or in all."""
        return [row for row in self.rows if arm in (None, row.arm) and phase in (None, row.phase)]

    @property
    def phases(self) -> list[str]:
        """The phases that have rows, in the order of PHASES."""
        return [phase for phase in PHASES if self.select(phase=phase)]

    @cached_property
    def ranking_phase(self) -> str:
        """The phase by which arms are ranked: tuned if every arm has a tuned run that has ended or
        will have none; otherwise default if any default run has ended; otherwise the best trial
        of the search.
        """
        if finished(self.select(phase="tuned")) and not self.untuned:
            return "tuned"
        return next(
            (phase for phase in ("default", "tuned") if finished(self.select(phase=phase))),
            "search",
        )

    @property
    def untuned(self) -> list[str]:
        """Arms without a finished tuned run that may still get one: none of their searches is
        known to have failed.
        """
        waiting = [arm for arm in self.arms if not finished(self.select(arm, "tuned"))]
        return [arm for arm in waiting if not self._search_failed(arm)]

    def _search_failed(self, arm: str) -> bool:
        """Whether the arm's search ended without a successful trial, so it has no tuned runs."""
        rows = self.select(arm, "search")
        return bool(rows) and len(finished(rows)) == len(rows) and best_trial(rows) is None

    def metric_of(self, value: float) -> float:
        """Convert a cost to the metric."""
        return from_cost(value, self.mode)

    @property
    def metric_label(self) -> str:
        """The metric's name with its direction. The unit depends on the family (nats, a
        share, …) and is not known here.
        """
        return f"{readable(self.metric)} ({'lower' if self.mode == 'min' else 'higher'} is better)"

    @property
    def test_metric(self) -> str:
        """The validation metric's name on the test split; "" if no test result has it."""
        names = [self.metric.removeprefix("validation_").removeprefix("evaluation_"), self.metric]
        return next(
            (name for name in names if any(name in figures for figures in self.tests.values())), ""
        )

    def test_cost(self, row: TrialRow) -> float | None:
        """Return the row's test metric as a cost: ∞ for a failure, None if it was not measured."""
        if not self.test_metric:
            return None
        if not math.isfinite(cost(row)):
            return math.inf
        value = self.tests.get(row.trial, {}).get(self.test_metric)
        return None if value is None else value if self.mode == "min" else -value

    # -- arms --------------------------------------------------------------------------------------

    def line(self, arm: str, phase: str) -> Line:
        """Summarize one arm in one phase."""
        rows, search = self.select(arm, phase), finished(self.select(arm, "search"))
        done = finished(rows)
        times = [to_target(row, self.target) for row in done]
        states = [
            row.state_bytes_per_parameter
            for row in rows
            if row.state_bytes_per_parameter is not None
        ]
        tests = [value for row in done if (value := self.test_cost(row)) is not None]
        return Line(
            arm=arm,
            phase=phase,
            runs=len(done),
            running=len(rows) - len(done),
            diverged=sum(row.status == "diverged" for row in done),
            failed=sum(row.status == "failed" for row in done),
            stopped=sum(row.status == "stopped" for row in done),
            best=estimate([cost(row) for row in done]),
            test=estimate(tests),
            steps=estimate([steps for steps, _ in times]),
            seconds=estimate([seconds for _, seconds in times]),
            missed=sum(not math.isfinite(steps) for steps, _ in times),
            state_bytes=states[0] if states else None,
            trials=0 if phase == "default" else len(search),
            search_diverged=0
            if phase == "default"
            else sum(row.status == "diverged" for row in search),
        )

    @cached_property
    def lines(self) -> list[Line]:
        """Arms from the best to the worst in the ranked phase, default before tuned. Search
        lines appear only if an arm has no other.
        """
        phases = [phase for phase in self.phases if phase != "search"] or ["search"]
        return [
            self.line(arm, phase)
            for arm in self.ranked
            for phase in phases
            if self.select(arm, phase)
        ]

    @cached_property
    def ranked(self) -> list[str]:
        """The arms from the best to the worst, by the ranking phase."""

        def key(arm: str) -> tuple[float, float]:
            costs = [cost(row) for row in finished(self.select(arm, self.ranking_phase))]
            if not costs:
                return math.inf, math.inf
            return (estimate(costs).median if self.ranking_phase != "search" else min(costs)), min(
                costs
            )

        return sorted(self.arms, key=key)

    def find(self, arm: str, phase: str) -> Line | None:
        """Return the line of one arm in one phase; None if `lines` has none."""
        return next((line for line in self.lines if (line.arm, line.phase) == (arm, phase)), None)

    def by_seed(self, arm: str, phase: str, test: bool = False) -> dict[int, float]:
        """Return seed → cost, for the finished runs of one arm in one phase.

        `test`: use the costs on the test split, for the runs that have them.
        """
        values = {
            row.seed: self.test_cost(row) if test else cost(row)
            for row in finished(self.select(arm, phase))
        }
        return {seed: value for seed, value in values.items() if value is not None}

    def chosen(self, arm: str) -> TrialRow | None:
        """Return the search trial whose settings the arm's tuned runs use."""
        return best_trial(self.select(arm, "search"))

    def interval(self, found: Estimate) -> tuple[float, float]:
        """Return the interval's bounds in the metric, the lower one first."""
        low, high = self.metric_of(found.low), self.metric_of(found.high)
        return (high, low) if low > high else (low, high)

    def rate_path(self) -> str:
        """Return the parameter that is the learning rate; "" if no search varied it."""
        names = dict.fromkeys(name for row in self.select(phase="search") for name in row.params)
        rates = sorted(
            (name for name in names if name.endswith("learning_rate")),
            key=lambda name: (name.count("_"), name),
        )
        return rates[0] if rates else ""

    # -- data of the charts ------------------------------------------------------------------------

    @property
    def baseline(self) -> str | None:
        """The arm that others are compared with; None without one."""
        return (
            next((arm for arm in self.arms if arm.lower() in BASELINES), None)
            if len(self.arms) > 1
            else None
        )

    def effects(self, test: bool = False) -> dict[str, Effect]:
        """Return each arm's cost minus the baseline's, in the ranked phase. Empty without a
        baseline, or without a phase with seeds.
        """
        if self.baseline is None or self.ranking_phase == "search":
            return {}
        base = self.by_seed(self.baseline, self.ranking_phase, test)
        found = {
            arm: effect(self.by_seed(arm, self.ranking_phase, test), base)
            for arm in self.ranked
            if arm != self.baseline
        }
        return {arm: each for arm, each in found.items() if each is not None}

    def profile_ratios(self) -> dict[str, list[float]]:
        """Return arm → steps to the target divided by the fastest arm's, at each seed of the ranked
        phase.
        """
        if self.ranking_phase == "search" or len(self.arms) < 2 or self.target is None:
            return {}
        times = {
            arm: {
                row.seed: to_target(row, self.target)[0]
                for row in finished(self.select(arm, self.ranking_phase))
            }
            for arm in self.ranked
        }
        return ratios_to_fastest(times)

    @cached_property
    def importances(self) -> dict[str, Importances]:
        """Importances of each arm's parameters, for arms with enough trials."""
        found = {arm: importances(self.select(arm, "search")) for arm in self.ranked}
        return {arm: each for arm, each in found.items() if each is not None}
