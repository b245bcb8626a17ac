"""Which parameters mattered within one arm's search, as far as its trials can tell; and
parameters as coordinates.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tuning.report.stats import cost, finished
from tuning.trials import TrialRow

LEAST_TRIALS = 12
"""Finished trials of one arm, below which a forest has nothing to learn from."""
LOG_FROM = 20.0
"""Positive numbers that span this factor are drawn, and learned from, by their logarithms."""


@dataclass(frozen=True, kw_only=True)
class Importances:
    """How much a forest's guess of held-out trials' ranks suffers when one parameter is
    shuffled.
    """

    explained: float
    """R² of held-out trials' ranks; where it is not above 0 the forest knows nothing and the
    rest means nothing.
    """
    importance: dict[str, float]
    """Parameter → mean loss of R² (may be a little below 0), over folds and shuffles."""
    trials: int


def importances(rows: Sequence[TrialRow], seed: int = 0) -> Importances | None:
    """Permutation importances on held-out trials of a random forest (scikit-learn) that predicts
    the trials' ranks.

    Ranks, so that diverged trials take part and a few bad ones do not outweigh the rest. None
    where trials are fewer than LEAST_TRIALS, fewer than two parameters vary, or all trials cost
    the same. [Breiman 2001, https://doi.org/10.1023/A:1010933404324]
    """
    rows = finished(rows)
    names = varied(rows)
    if len(rows) < LEAST_TRIALS or len(names) < 2:
        return None
    from scipy.stats import rankdata
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.inspection import permutation_importance
    from sklearn.metrics import r2_score
    from sklearn.model_selection import KFold

    rank_T = rankdata([cost(row) for row in rows])
    if np.ptp(rank_T) == 0:
        return None
    value_TP = np.stack(
        [coordinates([row.params.get(name) for row in rows]).position for name in names], axis=1
    )
    guess_T, losses = np.empty(len(rows)), []
    for known, asked in KFold(4, shuffle=True, random_state=seed).split(value_TP):
        forest = RandomForestRegressor(100, random_state=seed).fit(value_TP[known], rank_T[known])
        guess_T[asked] = forest.predict(value_TP[asked])
        result = permutation_importance(
            forest,
            value_TP[asked],
            rank_T[asked],
            n_repeats=10,
            random_state=seed,
            scoring="neg_mean_squared_error",
        )
        losses.append(result.importances_mean * len(asked))
    # In shares of the variance of all ranks: a fold's own R² would depend on the few trials that
    # are in it.
    loss_P = np.sum(losses, axis=0) / len(rows) / rank_T.var()
    return Importances(
        explained=float(r2_score(rank_T, guess_T)),
        importance={name: float(loss) for name, loss in zip(names, loss_P)},
        trials=len(rows),
    )


def varied(rows: Sequence[TrialRow]) -> list[str]:
    """The parameters that have more than one value among the rows, in the order of their
    appearance.
    """
    names = dict.fromkeys(name for row in rows for name in row.params)
    return [name for name in names if len({repr(row.params.get(name)) for row in rows}) > 1]


@dataclass(frozen=True, kw_only=True)
class Coordinates:
    """Values of one parameter as numbers in 0..1, and what to write at which of them."""

    position: np.ndarray
    """float64 [T]"""
    ticks: list[tuple[float, str]]
    log: bool


def coordinates(values: Sequence[Any]) -> Coordinates:
    """Numbers from their least to their greatest, logarithmically where all are > 0 and span
    LOG_FROM; other values (names, switches, absent ones) as evenly spaced steps in the order of
    their text.
    """
    numbers = [
        value for value in values if isinstance(value, int | float) and not isinstance(value, bool)
    ]
    if len(numbers) < len(values) or not all(math.isfinite(number) for number in numbers):
        words = sorted({_word(value) for value in values})
        place = {word: number / max(1, len(words) - 1) for number, word in enumerate(words)}
        position = np.array([place[_word(value)] for value in values])
        return Coordinates(
            position=position, ticks=[(place[word], word) for word in words], log=False
        )
    array = np.array(numbers, dtype=np.float64)
    log = bool((array > 0).all() and array.max() / array.min() >= LOG_FROM)
    scaled = np.log(array) if log else array
    low, high = scaled.min(), scaled.max()
    position = (scaled - low) / (high - low) if high > low else np.full(len(array), 0.5)
    ticks = (
        [(0.0, f"{array.min():.2g}"), (1.0, f"{array.max():.2g}")]
        if high > low
        else [(0.5, f"{array[0]:.2g}")]
    )
    return Coordinates(position=position, ticks=ticks, log=log)


def _word(value: Any) -> str:
    if value is None:
        return "–"
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else str(value)
