"""tianshou: NumPy ring, frames stored once (`save_only_last_obs`), segment tree by Numba.
https://tianshou.org
"""

import numpy as np
from tianshou.data import Batch, PrioritizedReplayBuffer, ReplayBuffer, SegmentTree

from tests.bench.rivals.replays import work


class Replay:
    def __init__(self) -> None:
        self._rng = np.random.default_rng(0)
        self._chunks: dict[int, ReplayBuffer] = {}
        self._buffer = PrioritizedReplayBuffer(
            work.CAPACITY,
            alpha=work.ALPHA,
            beta=work.BETA,
            stack_num=work.STACK,
            ignore_obs_next=True,
        )

    def add(self, steps: work.Steps) -> None:
        """By `update`, which takes over another buffer's steps at once; `add` takes one step at
        a time.
        """
        if id(steps) not in self._chunks:
            self._chunks[id(steps)] = _small_buffer(steps)
        self._buffer.update(self._chunks[id(steps)])

    def draw(self, batch_size: int) -> None:
        _batch, index_B = self._buffer.sample(batch_size)
        self._buffer.update_weight(index_B, self._rng.random(batch_size))

    def nbytes(self) -> int:
        leaves = 2 ** int(np.ceil(np.log2(work.CAPACITY)))
        arrays = [
            value for value in vars(self._buffer._meta).values() if isinstance(value, np.ndarray)
        ]
        return sum(array.nbytes for array in arrays) + 2 * leaves * 8


def _small_buffer(steps: work.Steps) -> ReplayBuffer:
    buffer = ReplayBuffer(work.CHUNK, stack_num=work.STACK, ignore_obs_next=True)
    for t in range(work.CHUNK):
        buffer.add(
            Batch(
                obs=steps.frame_THW[t],
                act=steps.action_T[t],
                rew=float(steps.reward_T[t]),
                terminated=bool(steps.done_T[t]),
                truncated=False,
                obs_next=steps.frame_THW[t],
                info={},
            )
        )
    return buffer


class Tree:
    def __init__(self, leaves: int):
        self._rng = np.random.default_rng(0)
        self._tree = SegmentTree(leaves)
        self._tree[np.arange(leaves)] = self._rng.random(leaves)

    def pair(self, batch_size: int) -> None:
        index_B = self._tree.get_prefix_sum_idx(self._rng.random(batch_size) * self._tree.reduce())
        self._tree[index_B] = self._rng.random(batch_size)
