"""cpprb: C++ ring and segment trees; frames stored once by `stack_compress`.
https://ymd_h.gitlab.io/cpprb/
"""

import numpy as np
from cpprb import PrioritizedReplayBuffer

from tests.bench.rivals.replays import work


class Replay:
    def __init__(self, capacity: int = work.CAPACITY):
        self._rng = np.random.default_rng(0)
        self._buffer = PrioritizedReplayBuffer(
            capacity,
            {
                "obs": {"shape": (84, 84, work.STACK), "dtype": np.uint8},
                "act": {"shape": 1, "dtype": np.uint8},
                "rew": {"dtype": np.float32},
                "done": {"dtype": np.float32},
            },
            next_of="obs",
            stack_compress="obs",
            alpha=work.ALPHA,
            eps=work.EPSILON,
        )
        self._capacity = capacity

    def add(self, steps: work.Steps) -> None:
        first = 0
        # it wants to be told of ends
        for end in [*np.flatnonzero(steps.done_T) + 1, len(steps.done_T)]:
            part = slice(first, end)
            if first < end:
                self._buffer.add(
                    obs=steps.obs_TSHW[part].transpose(0, 2, 3, 1),  # stacks lie last in cpprb
                    next_obs=steps.next_obs_TSHW[part].transpose(0, 2, 3, 1),
                    act=steps.action_T[part],
                    rew=steps.reward_T[part],
                    done=steps.done_T[part].astype(np.float32),
                )
                if steps.done_T[end - 1]:
                    self._buffer.on_episode_end()
            first = end

    def draw(self, batch_size: int) -> None:
        batch = self._buffer.sample(batch_size, beta=work.BETA)
        self._buffer.update_priorities(batch["indexes"], self._rng.random(batch_size))

    def nbytes(self) -> int:
        """One frame, action, reward, done; two float64 trees of twice the next power of 2."""
        leaves = 2 ** int(np.ceil(np.log2(self._capacity)))
        return self._capacity * (work.PIXELS + 1 + 4 + 4) + 2 * 2 * leaves * 8


class Tree:
    """A buffer of one byte a transition: cpprb's trees cannot be had alone."""

    def __init__(self, leaves: int):
        self._rng = np.random.default_rng(0)
        self._buffer = PrioritizedReplayBuffer(
            leaves, {"act": {"dtype": np.uint8}}, alpha=work.ALPHA
        )
        self._buffer.add(act=np.zeros(leaves, np.uint8), priorities=self._rng.random(leaves))

    def pair(self, batch_size: int) -> None:
        batch = self._buffer.sample(batch_size, beta=work.BETA)
        self._buffer.update_priorities(batch["indexes"], self._rng.random(batch_size))
