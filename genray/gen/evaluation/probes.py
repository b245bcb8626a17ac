"""Evaluates features with few labels: selects the labelled rows, and trains linear classifiers.

scikit-learn is imported where it is used, so that a process that only trains starts sooner.

Shapes: N rows, D features.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from genray.errors import require
from genray.gen.data.types import Split

if TYPE_CHECKING:
    from sklearn.decomposition import PCA


def labelled_rows(label_N: Tensor, count: int, seed: int) -> Tensor:
    """Draw the numbers of `count` rows, int64 [count], as balanced over the classes as possible.

    If every class has enough rows, the classes' counts differ by at most one. Raises ConfigError
    when there are fewer rows than `count`, or more classes than `count`.
    """
    classes, number_N = np.unique(label_N.cpu().numpy(), return_inverse=True)
    require(
        len(classes) <= count <= len(number_N),
        f"--finetune-labels {count}: must lie in {len(classes)}..{len(number_N)} (one of each "
        "class to all training rows)",
    )
    order_N = np.random.default_rng([seed, 3]).permutation(len(number_N))
    # Number the rows of each class in random order. Taking the rows with the lowest numbers
    # balances the classes.
    turn_N = np.zeros(len(order_N), np.int64)
    for number in range(len(classes)):
        of_class = number_N[order_N] == number
        turn_N[of_class] = np.arange(of_class.sum())
    return torch.from_numpy(order_N[np.argsort(turn_N, kind="stable")[:count]]).to(label_N.device)


def labelled_few(split: Split, count: int, seed: int) -> Split:
    """Return the rows that `labelled_rows` draws, as a split."""
    assert split.label is not None
    rows = labelled_rows(split.label, count, seed)
    values, label = split.take(rows)
    return Split(values, label, split.low, split.high, augment=split.augment)


def softmax_regression(
    train: np.ndarray, label: np.ndarray, test: np.ndarray, test_label: np.ndarray
) -> float:
    """Train a linear classifier on standardised features [N, D]; return its test accuracy.

    The L2 penalty has scikit-learn's default strength, C = 1.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=5000))
    return float(model.fit(train, label).score(test, test_label))


def principal_components(train: np.ndarray, components: int) -> PCA | None:
    """Fit PCA to the training rows [N, D]; None if `components` exceeds N or D."""
    from sklearn.decomposition import PCA

    if components > min(train.shape):
        return None
    return PCA(components, random_state=0).fit(train)


def flat(x: Tensor) -> np.ndarray:
    """Return x [N, …] as a float32 array [N, D] on the CPU."""
    return x.flatten(1).float().cpu().numpy()
