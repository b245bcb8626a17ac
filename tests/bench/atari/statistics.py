"""Statistics of tables of scores: a few runs (seeds) of each of several games.

The definitions are those of Agarwal 2021, https://arxiv.org/abs/2108.13264, and the bootstrap is
SciPy's. Scores are human-normalised, so that games can be averaged. The bootstrap is stratified:
each resample draws every game's runs from that game's own runs.

Shapes: R runs of a game, T thresholds.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

Table = Mapping[str, Sequence[float]]
"""Game: the scores of its runs."""

RESAMPLES = 5_000


class Estimate(NamedTuple):
    """A value and its 95% bootstrap interval (percentiles). The bounds are NaN if a game has a
    single run, of which no resample can differ.
    """

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        if math.isnan(self.low):
            return f"{self.value:.3f}"
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"

    def to_json(self) -> list[float | None]:
        """Return [value, low, high], with None for NaN, which JSON lacks."""
        return [None if math.isnan(number) else round(number, 4) for number in self]


def iqm(table: Table) -> Estimate:
    """Return the interquartile mean: the mean of all N runs of all games without the ⌊N/4⌋ lowest
    and the ⌊N/4⌋ highest ones.
    """

    def statistic(*games: np.ndarray, axis: int) -> np.ndarray:
        return stats.trim_mean(np.concatenate(games, axis), 0.25, axis=axis)

    return _estimate(_strata(table), statistic)


def improvement(ours: Table, theirs: Table) -> Estimate:
    """Return P(X > Y), averaged over games: the share of pairs (a run of `ours`, a run of `theirs`)
    of which ours scores more; an equal score counts one half. The bootstrap resamples both.

    Raises ValueError if the two tables have different games.
    """
    if ours.keys() != theirs.keys():
        raise ValueError(f"different games: {sorted(ours)} and {sorted(theirs)}")

    def statistic(*games: np.ndarray, axis: int) -> np.ndarray:
        half = len(games) // 2
        pairs = [
            np.sign(np.expand_dims(x, -1) - np.expand_dims(y, -2))
            for x, y in zip(games[:half], games[half:])
        ]
        return np.mean([((pair + 1) / 2).mean(axis=(-1, -2)) for pair in pairs], axis=0)

    same_order = {game: theirs[game] for game in ours}
    return _estimate(_strata(ours) + _strata(same_order), statistic)


class Profile(NamedTuple):
    """A performance profile with its 95% bootstrap band; float64 [T] each."""

    share_T: np.ndarray
    low_T: np.ndarray
    high_T: np.ndarray


def profile(table: Table, threshold_T: np.ndarray) -> Profile:
    """Return, for each threshold, the share of runs that score more, averaged over games."""
    above = [np.asarray(runs, float) > threshold_T[:, None] for runs in table.values()]  # [T, R]

    def statistic(*games: np.ndarray, axis: int) -> np.ndarray:
        return np.mean([game.mean(axis=axis) for game in games], axis=0)

    return Profile(*_bootstrap(above, statistic, resamples=1_000))


def apart(one: Estimate, other: Estimate) -> bool:
    """Whether two intervals have no point in common; False if one of them is unknown."""
    return one.low > other.high or other.low > one.high


def median_or_missed(values: Sequence[float | None]) -> float:
    """Return the median of times to a target, in which None (the target was missed) is ∞."""
    return float(np.median([math.inf if value is None else value for value in values]))


def _strata(table: Table) -> list[np.ndarray]:
    return [np.asarray(runs, float) for runs in table.values()]


def _estimate(strata: list[np.ndarray], statistic: Callable[..., np.ndarray]) -> Estimate:
    return Estimate(*(float(number) for number in _bootstrap(strata, statistic, RESAMPLES)))


def _bootstrap(
    strata: list[np.ndarray], statistic: Callable[..., np.ndarray], resamples: int
) -> tuple[Any, Any, Any]:
    """Return (the statistic, its lower bound, its upper bound), with the runs on the last axis."""
    value = statistic(*strata, axis=-1)
    if min(runs.shape[-1] for runs in strata) < 2:
        return value, np.full_like(value, np.nan), np.full_like(value, np.nan)
    interval = stats.bootstrap(
        strata,
        statistic,
        n_resamples=resamples,
        vectorized=True,
        axis=-1,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return value, interval.low, interval.high
