"""Splits rows into training and test rows, reproducibly, and derives labels from paths."""

import os

import numpy as np

from genray.gen.data.types import TEST_SHARE


def split_rows(count: int, test_share: float = TEST_SHARE) -> tuple[np.ndarray, np.ndarray]:
    """Return the training rows and the test rows, which depend only on `count`.

    RandomState is used because its stream is the same in all versions of NumPy.
    """
    order = np.random.RandomState(0).permutation(count)
    cut = count - round(count * test_share)
    return order[:cut], order[cut:]


def labels_of(names: list[str]) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """Return labels (int64 [N]) and class names, from the first directory of each relative path.

    Returns (None, ()) if any path has no directory.
    """
    firsts = [name.replace(os.sep, "/").partition("/") for name in names]
    if not all(slash for _, slash, _ in firsts):
        return None, ()
    classes, label = np.unique([first for first, _, _ in firsts], return_inverse=True)
    return label.astype(np.int64), tuple(str(each) for each in classes)
