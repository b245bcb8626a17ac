"""Computes n-step returns with effective discounts, for many lanes at once.

Shapes: E lanes, T rows. Row t of a lane contains the result of the action on frame t.
"""

from typing import NamedTuple

import numpy as np


class NStep(NamedTuple):
    """For each row t: the n-step return R = Σ_{j<k} γ^j r_{t+j}, the discount D of the bootstrap,
    and the horizon k ≤ n.
    """

    return_ET: np.ndarray  # float32: R
    discount_ET: np.ndarray  # float32: D = γ^k, or 0 if a termination is among the k rows
    horizon_ET: np.ndarray  # uint8: k; the bootstrap uses the observation of row t + k


def n_step(
    reward_ET: np.ndarray, discount_ET: np.ndarray, ends_ET: np.ndarray, n: int, num_rows: int
) -> NStep:
    """Return the n-step returns of the first `num_rows` rows; the arrays need at least
    `num_rows + n − 1` rows.

    `reward_ET`: the reward of row t's action. `discount_ET`: γ, or 0 if that action terminated the
    episode (or lost a life, if `life_loss` is "terminal"). `ends_ET`: the episode ended after row
    t, by termination *or truncation*. The window of an n-step return, its n rows, stops after such
    a row, so it never extends into the next episode. After a truncation, the return bootstraps from
    the final frame with γ^k. Rows near an episode's end are not dropped; their horizon is shorter.
    [Sutton 1988; as used by Ape-X, https://arxiv.org/abs/1803.00933, section 3.1]
    """
    num_lanes = reward_ET.shape[0]
    total = np.zeros((num_lanes, num_rows))
    discount = np.ones((num_lanes, num_rows))
    horizon = np.zeros((num_lanes, num_rows), np.uint8)
    open_ = np.ones((num_lanes, num_rows), bool)
    # open_: the window that starts at a row has not reached the episode's end yet.
    for j in range(n):
        step = slice(j, j + num_rows)
        total += open_ * discount * reward_ET[:, step]
        discount *= np.where(open_, discount_ET[:, step], 1.0)
        horizon += open_
        open_ &= ~ends_ET[:, step]
    return NStep(total.astype(np.float32), discount.astype(np.float32), horizon)
