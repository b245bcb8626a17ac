"""Splits rows into training, validation and test rows, reproducibly."""

import os

import numpy as np

from genray.gen.data.types import TEST_SHARE


def split_rows(count: int, test_share: float = TEST_SHARE) -> tuple[np.ndarray, np.ndarray]:
    """(training rows, test rows), the same ones for the same count. RandomState: its stream is
    frozen for ever.
    """
    order = np.random.RandomState(0).permutation(count)
    cut = count - round(count * test_share)
    return order[:cut], order[cut:]


def labels_of(names: list[str]) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """(int64 [N], class names) from the first folder of each relative path; (None, ()) where one
    has none.
    """
    firsts = [name.replace(os.sep, "/").partition("/") for name in names]
    if not all(slash for _, slash, _ in firsts):
        return None, ()
    classes, label = np.unique([first for first, _, _ in firsts], return_inverse=True)
    return label.astype(np.int64), tuple(str(each) for each in classes)
