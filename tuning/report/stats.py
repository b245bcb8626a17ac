"""What a comparison's rows add up to: medians and intervals, targets, profiles, effects. No
file, no picture.

Everything is computed on costs, of which lower is better: the metric, or its negative where
higher is better. A trial that diverged or failed costs ∞, whatever it had reached before, as it
does for the choice (trials.best_trial): so a median over seeds says what one may expect of the
arm, its accidents included.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tuning.trials import TrialRow

INFINITY = math.inf
LEVEL = 0.95
"""How often an interval should hold the true median; with fewer than six values none does."""

# -- costs -----------------------------------------------------------------------------------------


def cost(row: TrialRow) -> float:
    """The row's best as a cost; ∞ where it diverged, failed, or never reported anything finite."""
    if row.best is None or row.status in ("diverged", "failed") or not math.isfinite(row.best):
        return INFINITY
    return row.best if row.mode == "min" else -row.best


def from_cost(value: float, mode: str) -> float:
    """A cost as the metric again; where higher is better, "none" is then −∞."""
    return value if mode == "min" else -value


def finished(rows: Sequence[TrialRow]) -> list[TrialRow]:
    return [row for row in rows if row.status != "running"]


# -- medians and intervals -------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A median of `count` values and an interval around it; NaN where there are too few values."""

    median: float = math.nan
    low: float = math.nan
    high: float = math.nan
    coverage: float = math.nan
    """In which share of cases such an interval holds the true median, at the least."""
    count: int = 0


def estimate(values: Sequence[float]) -> Estimate:
    """Median and interval of some values, which may be ∞ but not NaN. The interval's ends are
    values that occurred.
    """
    ordered = sorted(values)
    if not ordered:
        return Estimate()
    middle = _median(ordered)
    if len(ordered) == 1:
        return Estimate(median=middle, count=1)
    left_out, coverage = order_interval(len(ordered))
    low, high = float(ordered[left_out]), float(ordered[-1 - left_out])
    return Estimate(median=middle, low=low, high=high, coverage=coverage, count=len(ordered))


def _median(ordered: Sequence[float]) -> float:
    """The median of ordered values; 0 between −∞ and ∞: as many runs broke off on the one side
    as on the other.
    """
    low, high = ordered[(len(ordered) - 1) // 2], ordered[len(ordered) // 2]
    return 0.0 if low == -INFINITY and high == INFINITY else (low + high) / 2


def order_interval(count: int) -> tuple[int, float]:
    """(of `count` ordered values, how many the interval leaves out at each end; how often it
    holds the true median).

    How many values fall below the true median is Binomial(count, 1/2), whatever their
    distribution: exact for few values, where a bootstrap is not (of seven values its 95%
    interval is one of 87.5%). As many are left out as LEVEL allows. With five values or fewer
    the whole range is less than that: 1 − 2^(1 − count), 50% of two, 75% of three, 94% of five.
    [the sign test's interval, Conover 1999, Practical Nonparametric Statistics]
    """
    below, left_out = 2.0**-count, 0  # P(so many values or fewer lie below the median)
    while True:
        more = below + math.comb(count, left_out + 1) / 2**count
        if 1 - 2 * more < LEVEL:
            return left_out, 1 - 2 * below
        below, left_out = more, left_out + 1


# -- targets ---------------------------------------------------------------------------------------


def target_cost(rows: Sequence[TrialRow]) -> float | None:
    """What every arm has to reach: the median over arms of the median over seeds of the untuned
    trials' best.

    Where no untuned trials are, the median of the search's best. Where that median is ∞, the
    worst finite of its values. None where nothing finite was ever reached.
    """
    rows = finished(rows)
    by_arm: dict[str, list[float]] = {}
    for row in rows:
        if row.phase == "default":
            by_arm.setdefault(row.arm, []).append(cost(row))
    values = [float(np.median(costs)) for costs in by_arm.values()]
    values = (
        values
        or [cost(row) for row in rows if row.phase == "search"]
        or [cost(row) for row in rows]
    )
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return None
    middle = float(np.median(values))
    return middle if math.isfinite(middle) else max(finite)


def to_target(row: TrialRow, target: float | None) -> tuple[float, float]:
    """(steps, CPU seconds) until the row's metric was first at the target or better; (∞, ∞) for
    a miss.
    """
    if target is None or not math.isfinite(cost(row)):
        return INFINITY, INFINITY
    for step, seconds, value in row.curve:
        if (value if row.mode == "min" else -value) <= target:
            return float(step), float(seconds)
    return INFINITY, INFINITY


def ratios_to_quickest(times: Mapping[str, Mapping[Any, float]]) -> dict[str, list[float]]:
    """For each arm, its time by the quickest arm's, on each problem that any arm was given; ∞
    for a miss.

    `times[arm][problem]`: steps or seconds, > 0. A problem which an arm was not given counts as
    a miss. [performance profiles: Dolan 2002, https://arxiv.org/abs/cs/0102001]
    """
    problems = sorted({problem for each in times.values() for problem in each}, key=str)
    ratios: dict[str, list[float]] = {arm: [] for arm in times}
    for problem in problems:
        quickest = min(each.get(problem, INFINITY) for each in times.values())
        for arm, each in times.items():
            own = each.get(problem, INFINITY)
            ratios[arm].append(own / quickest if math.isfinite(own) else INFINITY)
    return ratios


def profile(ratios: Sequence[float], at: Iterable[float]) -> list[float]:
    """The share of problems solved within `at[i]` times the quickest arm's time."""
    return [
        sum(ratio <= limit for ratio in ratios) / len(ratios) if ratios else 0.0 for limit in at
    ]


# -- the search ------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class BestSoFar:
    """The best of the first n trials, n = 1 … T, over all orders in which the T trials could
    have come; costs.
    """

    median: list[float]
    low: list[float]
    """The lower quartile."""
    high: list[float]
    mean: list[float]
    """∞ while every one of the n trials may have been a diverged one."""


def best_so_far(costs: Sequence[float]) -> BestSoFar:
    """Exact, not simulated: P(best of n ≤ k-th smallest) = 1 − C(T − k, n) / C(T, n).

    The mean is the expected validation performance [Dodge 2019,
    https://arxiv.org/abs/1909.03004], drawn without replacement; the median beside it is finite
    as soon as half of the orders have met a trial that did not diverge.
    """
    ordered, total = sorted(costs), len(costs)
    median, low, high, mean = [], [], [], []
    for n in range(1, total + 1):
        reached = [1 - math.comb(total - k, n) / math.comb(total, n) for k in range(1, total + 1)]
        quartiles = []
        for share in (0.5, 0.25, 0.75):
            # 1e-12: 1 − C/C may miss a half by a rounding.
            quartiles.append(next(ordered[k] for k in range(total) if reached[k] >= share - 1e-12))
        median.append(quartiles[0])
        low.append(quartiles[1])
        high.append(quartiles[2])
        chances = np.diff([0.0, *reached])
        mean.append(sum(chance * value for chance, value in zip(chances, ordered) if chance > 0))
    return BestSoFar(median=median, low=low, high=high, mean=mean)


# -- effects ---------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Effect:
    """By how much one set of runs costs more than another (negative: it is better)."""

    difference: Estimate
    """Paired: the median of the differences at equal seeds; else the difference of the medians."""
    paired: bool
    better: int
    """Pairs in which the first is better; of all pairs (i, j) where they are not paired."""
    worse: int
    """Pairs in which it is worse; the rest are equal."""
    pairs: int

    @property
    def apart(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.difference.low > 0 or self.difference.high < 0

    @property
    def sure(self) -> bool:
        """Whether an interval of LEVEL leaves out 0."""
        return self.apart and self.difference.coverage >= LEVEL


def effect(first: Mapping[int, float], second: Mapping[int, float]) -> Effect | None:
    """`first` − `second`, both seed → cost. Paired where both have the same two seeds or more;
    None where either is empty.

    Two failures make no difference (0); one of them makes an infinite one.
    """
    if not first or not second:
        return None
    common = sorted(first.keys() & second.keys())
    if len(common) >= 2 or len(first) == len(second) == len(common) == 1:
        differences = [_difference(first[each], second[each]) for each in common]
        return Effect(
            difference=estimate(differences),
            paired=True,
            better=sum(each < 0 for each in differences),
            worse=sum(each > 0 for each in differences),
            pairs=len(common),
        )
    a, b = estimate(list(first.values())), estimate(list(second.values()))
    return Effect(
        # Both medians lie in their intervals but in (1 − a) + (1 − b) of the cases, or fewer.
        difference=Estimate(
            median=_difference(a.median, b.median),
            low=_difference(a.low, b.high),
            high=_difference(a.high, b.low),
            coverage=a.coverage + b.coverage - 1,
            count=min(a.count, b.count),
        ),
        paired=False,
        better=sum(_difference(x, y) < 0 for x in first.values() for y in second.values()),
        worse=sum(_difference(x, y) > 0 for x in first.values() for y in second.values()),
        pairs=len(first) * len(second),
    )


def _difference(first: float, second: float) -> float:
    return 0.0 if first == second else first - second
