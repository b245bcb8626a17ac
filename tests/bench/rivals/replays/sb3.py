"""Stable-Baselines3's ReplayBuffer: uniform, so it has no priorities to set; whole stacks, each
once.

https://stable-baselines3.readthedocs.io
"""

import numpy as np
from gymnasium.spaces import Box, Discrete
from stable_baselines3.common.buffers import ReplayBuffer

from tests.bench.rivals.replays import work


class Replay:
    def __init__(self) -> None:
        self._buffer = ReplayBuffer(
            work.CAPACITY,
            Box(0, 255, (work.STACK, 84, 84), np.uint8),
            Discrete(18),
            device="cpu",
            n_envs=1,
            optimize_memory_usage=True,
            handle_timeout_termination=False,
        )

    def add(self, steps: work.Steps) -> None:
        for t in range(len(steps.done_T)):  # it takes a step at a time
            here = slice(t, t + 1)
            self._buffer.add(
                steps.obs_TSHW[here],
                steps.next_obs_TSHW[here],
                steps.action_T[here, None],
                steps.reward_T[here],
                steps.done_T[here],
                [{}],
            )

    def draw(self, batch_size: int) -> None:
        self._buffer.sample(batch_size)

    def nbytes(self) -> int:
        return sum(
            value.nbytes for value in vars(self._buffer).values() if isinstance(value, np.ndarray)
        )
