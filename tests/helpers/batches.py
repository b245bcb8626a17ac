"""Batches of random numbers, for a learner that need not learn anything."""

import numpy as np

from genray.rl.chunk import Sample

ACTIONS, SIDE = 3, 36  # the smallest frames that the convolutions take


def random_batch(
    size: int, seed: int = 0, *, spread: float = 1.0, probability_B: np.ndarray | None = None
) -> Sample:
    """Random frames and returns; one in four discounts is 0. `probability_B`: None for a uniform
    draw from `size`.
    """
    rng = np.random.default_rng(seed)
    frames = rng.integers(0, 256, (2, size, 1, SIDE, SIDE)).astype(np.uint8)
    return Sample(
        obs_BSHW=frames[0],
        next_obs_BSHW=frames[1],
        past_BK=np.zeros((size, 0), np.int16),
        next_past_BK=np.zeros((size, 0), np.int16),
        action_B=rng.integers(0, ACTIONS, size).astype(np.uint8),
        return_B=(spread * rng.normal(size=size)).astype(np.float32),
        discount_B=np.where(np.arange(size) % 4 == 0, 0.0, 0.9).astype(np.float32),
        key_B=np.arange(size),
        probability_B=np.full(size, 1 / size) if probability_B is None else probability_B,
    )
