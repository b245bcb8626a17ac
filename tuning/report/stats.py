"""Computes the statistics of a comparison: medians, intervals, targets, profiles and effects.

All functions use costs. The cost of a trial is its metric, or the negative of the metric if higher
is better, so a lower cost is always better. A trial that diverged or failed costs ∞, whatever value
the trial had reached before. The median over seeds therefore includes the failures of an arm.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tuning.trials import TrialRow

INFINITY = math.inf
LEVEL = 0.95
"""Least probability with which an interval should contain the true median. With fewer than six
values, no interval reaches this probability.
"""

# -- costs -----------------------------------------------------------------------------------------


def cost(row: TrialRow) -> float:
    """Return the row's best value as a cost; ∞ if the trial diverged, failed, or never reported a
    finite value.
    """
    if row.best is None or row.status in ("diverged", "failed") or not math.isfinite(row.best):
        return INFINITY
    return row.best if row.mode == "min" else -row.best


def from_cost(value: float, mode: str) -> float:
    """Convert a cost back to the metric. If higher is better, a missing value becomes −∞."""
    return value if mode == "min" else -value


def finished(rows: Sequence[TrialRow]) -> list[TrialRow]:
    """Return the rows of the trials that have ended."""
    return [row for row in rows if row.status != "running"]


# -- medians and intervals -------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """The median of `count` values and an interval around it; NaN if there are too few values."""

    median: float = math.nan
    low: float = math.nan
    high: float = math.nan
    coverage: float = math.nan
    """Least probability that such an interval contains the true median."""
    count: int = 0


def estimate(values: Sequence[float]) -> Estimate:
    """Compute the median and interval of some values, which may be ∞ but not NaN. The interval's
    bounds are observed values.
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
    """Return the median of ordered values. The median is 0 between −∞ and ∞: equally many runs
    failed on both sides.
    """
    low, high = ordered[(len(ordered) - 1) // 2], ordered[len(ordered) // 2]
    return 0.0 if low == -INFINITY and high == INFINITY else (low + high) / 2


def order_interval(count: int) -> tuple[int, float]:
    """Return (the number of values that the interval omits at each end of `count` ordered values,
    the probability that the interval contains the true median).

    The number of values below the true median is Binomial(count, 1/2) for every distribution. The
    interval is therefore exact for few values, where a bootstrap is not: for seven values, the 95%
    interval of a bootstrap contains the true median with 87.5%. The interval omits as many values
    as LEVEL allows. With five values or fewer, the range of all values has a lower probability,
    1 − 2^(1 − count): 50% for two values, 75% for three, 94% for five. [the sign test's interval,
    Conover 1999, Practical Nonparametric Statistics]
    """
    from scipy.stats import binom

    # The smallest k for which P(at most k values lie below the median) exceeds (1 − LEVEL) / 2.
    too_many = int(binom.ppf((1 - LEVEL) / 2, count, 0.5))
    left_out = max(0, too_many - 1)
    return left_out, float(1 - 2 * binom.cdf(left_out, count, 0.5))


# -- targets ---------------------------------------------------------------------------------------


def target_cost(rows: Sequence[TrialRow]) -> float | None:
    """Return the cost that every arm has to reach; None if no trial had a finite value.

    The target is the median over arms of the medians over seeds of the default trials' best values.
    Without default trials, the target is the median of the search's best values. If the median is
    ∞, the target is the worst finite value.
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
    """Return (steps, CPU seconds) until the row's metric first reached the target; (∞, ∞) for a
    miss.
    """
    if target is None or not math.isfinite(cost(row)):
        return INFINITY, INFINITY
    for step, seconds, value in row.curve:
        if (value if row.mode == "min" else -value) <= target:
            return float(step), float(seconds)
    return INFINITY, INFINITY


def ratios_to_fastest(times: Mapping[str, Mapping[Any, float]]) -> dict[str, list[float]]:
    """Divide each arm's time on each problem by the time of the fastest arm; ∞ for a miss.

    `times[arm][problem]`: steps or seconds, > 0; ∞ for a miss. A problem without a time of an arm
    counts as a miss of that arm. [performance profiles: Dolan 2002,
    https://arxiv.org/abs/cs/0102001]
    """
    problems = sorted({problem for each in times.values() for problem in each}, key=str)
    ratios: dict[str, list[float]] = {arm: [] for arm in times}
    for problem in problems:
        fastest = min(each.get(problem, INFINITY) for each in times.values())
        for arm, each in times.items():
            own = each.get(problem, INFINITY)
            ratios[arm].append(own / fastest if math.isfinite(own) else INFINITY)
    return ratios


def profile(ratios: Sequence[float], at: Iterable[float]) -> list[float]:
    """Return the share of problems solved within `at[i]` times the fastest arm's time."""
    return [
        sum(ratio <= limit for ratio in ratios) / len(ratios) if ratios else 0.0 for limit in at
    ]


# -- the search ------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class BestSoFar:
    """Costs of the best of the first n trials, n = 1 … T, over all orders of the T trials."""

    median: list[float]
    low: list[float]
    """The lower quartile."""
    high: list[float]
    """The upper quartile."""
    mean: list[float]
    """∞ while n is at most the number of trials without a finite cost."""


def best_so_far(costs: Sequence[float]) -> BestSoFar:
    """Compute the costs of the best of the first n trials exactly, without simulation.

    P(best of n ≤ k-th smallest cost) = 1 − C(T − k, n) / C(T, n). The mean is the expected
    validation performance [Dodge 2019, https://arxiv.org/abs/1909.03004], drawn without
    replacement. The median is finite if at least half of the orders have a trial that did not
    diverge among their first n.
    """
    ordered, total = sorted(costs), len(costs)
    median, low, high, mean = [], [], [], []
    for n in range(1, total + 1):
        reached = [1 - math.comb(total - k, n) / math.comb(total, n) for k in range(1, total + 1)]
        quartiles = []
        for share in (0.5, 0.25, 0.75):
            # 1e-12: rounding can put 1 − C/C just below one half.
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
    """Difference between the costs of two sets of runs. Negative: the first set is better."""

    difference: Estimate
    """If paired, the median of the differences at equal seeds; otherwise the difference of the
    medians.
    """
    paired: bool
    better: int
    """Number of pairs in which the first set is better; if unpaired, of all pairs (i, j)."""
    worse: int
    """Number of pairs in which the first set is worse; the remaining pairs are equal."""
    pairs: int
    """Number of pairs."""

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval excludes 0."""
        return self.difference.low > 0 or self.difference.high < 0

    @property
    def significant(self) -> bool:
        """Whether the interval excludes 0 and has a probability of at least LEVEL."""
        return self.excludes_zero and self.difference.coverage >= LEVEL


def effect(first: Mapping[int, float], second: Mapping[int, float]) -> Effect | None:
    """Compute `first` − `second`, both of which map a seed to a cost; None if either is empty.

    The runs are paired if both sets share at least two seeds. The difference of two failures is 0;
    the difference of a failure and a success is infinite.
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
        # The probability that either median is outside its interval is at most (1 − a) + (1 − b).
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
