"""Batches of random numbers, for a learner that need not learn anything."""

from dataclasses import replace

import numpy as np

from genray.rl.chunk import Sample

ACTIONS, SIDE = 3, 36  # the smallest frames that the convolutions take


def random_batch(
    size: int,
    seed: int = 0,
    *,
    spread: float = 1.0,
    probability_B: np.ndarray | None = None,
    later: int = 0,
) -> Sample:
    """Random frames and returns; one in four discounts is 0. `probability_B`: None for a uniform
    draw from `size`. `later`: random frames and actions after each transition, of which one in
    three transitions has only the first one in its episode.
    """
    rng = np.random.default_rng(seed)
    frames = rng.integers(0, 256, (2, size, 1, SIDE, SIDE)).astype(np.uint8)
    batch = Sample(
        obs_BSHW=frames[0],
        next_obs_BSHW=frames[1],
        past_BK=np.zeros((size, 0), np.int16),
        next_past_BK=np.zeros((size, 0), np.int16),
        action_B=rng.integers(0, ACTIONS, size).astype(np.uint8),
        return_B=(spread * rng.normal(size=size)).astype(np.float32),
        discount_B=np.where(np.arange(size) % 4 == 0, 0.0, 0.9).astype(np.float32),
        key_B=np.arange(size),
        probability_B=np.full(size, 1 / size) if probability_B is None else probability_B,
        later_BJ=np.zeros((size, 0), np.int16),
        steps_BTF=np.zeros((size, 0, 7), np.float32),
        state_BS=np.zeros((size, 0), np.float32),
    )
    if not later:
        return batch
    frames_BJHW = rng.integers(0, 256, (size, later, SIDE, SIDE)).astype(np.uint8)
    later_BJ = rng.integers(0, ACTIONS, (size, later)).astype(np.int16)
    later_BJ[::3, 1:] = -1
    obs_BTHW = np.concatenate([batch.obs_BSHW, frames_BJHW], axis=1)
    return replace(batch, obs_BSHW=obs_BTHW, later_BJ=later_BJ)
