"""Estimates the importance of parameters in one arm's search, and maps parameters to numbers."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tuning.report.stats import cost, finished
from tuning.trials import TrialRow

LEAST_TRIALS = 12
"""Least number of finished trials of one arm for which a forest is fitted."""
LOG_FROM = 20.0
"""Positive numbers that span this factor are drawn and learned on a logarithmic scale."""


@dataclass(frozen=True, kw_only=True)
class Importances:
    """How much a forest's prediction of held-out trials' ranks worsens when one parameter is
    shuffled.
    """

    explained: float
    """R² of held-out trials' ranks. If R² is not above 0, the forest predicts nothing, and the
    importances have no meaning.
    """
    importance: dict[str, float]
    """Parameter → mean loss of R² (may be slightly below 0), over folds and shuffles."""
    trials: int


def importances(rows: Sequence[TrialRow], seed: int = 0) -> Importances | None:
    """Compute permutation importances of a random forest (scikit-learn) that predicts the ranks of
    held-out trials.

    Ranks include diverged trials and limit the influence of a few bad ones. Returns None if there
    are fewer than LEAST_TRIALS trials, if fewer than two parameters vary, or if all trials have the
    same cost. [Breiman 2001, https://doi.org/10.1023/A:1010933404324]
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
    # Predict each trial by a forest that was fitted to the other folds.
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
    # The loss is a share of the variance of all ranks: the R² of a single fold would depend on its
    # few trials.
    loss_P = np.sum(losses, axis=0) / len(rows) / rank_T.var()
    return Importances(
        explained=float(r2_score(rank_T, guess_T)),
        importance={name: float(loss) for name, loss in zip(names, loss_P)},
        trials=len(rows),
    )


def varied(rows: Sequence[TrialRow]) -> list[str]:
    """List the parameters that have more than one value among the rows, in the order of their
    appearance.
    """
    names = dict.fromkeys(name for row in rows for name in row.params)
    return [name for name in names if len({repr(row.params.get(name)) for row in rows}) > 1]


@dataclass(frozen=True, kw_only=True)
class Coordinates:
    """Values of one parameter as numbers in 0..1, with labels for some positions."""

    position: np.ndarray
    """float64 [T]"""
    ticks: list[tuple[float, str]]
    log: bool


def coordinates(values: Sequence[Any]) -> Coordinates:
    """Map numbers from their minimum to their maximum, logarithmically if all are > 0 and span
    LOG_FROM. Map other values (names, switches, missing values) to evenly spaced positions in
    the order of their text.
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
