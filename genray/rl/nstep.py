"""Computes n-step returns with effective discounts, for many lanes at once.

Shapes: E lanes, T rows (time). Row t of a lane contains the result of *acting on frame t*.
"""

from typing import NamedTuple

import numpy as np


class NStep(NamedTuple):
    """The n-step return of each row t: R = Σ_{j<k} γ^j r_{t+j}, the discount D of the bootstrap,
    and the horizon k ≤ n of the bootstrap.
    """

    return_ET: np.ndarray  # float32
    discount_ET: np.ndarray  # float32: γ^k, or 0 after a termination inside the window
    horizon_ET: np.ndarray  # uint8: the next observation is row t + k


def n_step(
    reward_ET: np.ndarray, discount_ET: np.ndarray, ends_ET: np.ndarray, n: int, num_rows: int
) -> NStep:
    """Return the n-step returns of the first `num_rows` rows; the arrays have at least
    `num_rows + n − 1` rows.

    `reward_ET`: reward of row t's action. `discount_ET`: γ, or 0 if that action terminated the
    episode (or lost a life, under that protocol). `ends_ET`: the episode ended after row t, by
    termination *or truncation*: the window stops there and, when truncated, bootstraps from the
    final frame with γ^k. A window never extends into the next episode, and no row near an
    episode's end is dropped: its horizon becomes shorter. [Sutton 1988; as used by Ape-X,
    https://arxiv.org/abs/1803.00933, section 3.1]
    """
    num_lanes = reward_ET.shape[0]
    total = np.zeros((num_lanes, num_rows))
    discount = np.ones((num_lanes, num_rows))
    horizon = np.zeros((num_lanes, num_rows), np.uint8)
    open_ = np.ones((num_lanes, num_rows), bool)
    # open_: the window has not reached its episode's end yet.
    for j in range(n):
        step = slice(j, j + num_rows)
        total += open_ * discount * reward_ET[:, step]
        discount *= np.where(open_, discount_ET[:, step], 1.0)
        horizon += open_
        open_ &= ~ends_ET[:, step]
    return NStep(total.astype(np.float32), discount.astype(np.float32), horizon)
