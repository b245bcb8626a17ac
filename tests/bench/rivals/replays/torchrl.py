"""torchrl: tensors in a LazyTensorStorage, C++ segment trees. https://docs.pytorch.org/rl/

Stacks are stored whole, as its DQN examples store them; the next observation beside them.
"""

import numpy as np
import torch
from tensordict import TensorDict
from torchrl.data import LazyTensorStorage, TensorDictPrioritizedReplayBuffer
from torchrl.data.replay_buffers.samplers import PrioritizedSampler

from tests.bench.rivals.replays import work


class Replay:
    def __init__(self) -> None:
        self._generator = torch.Generator().manual_seed(0)
        self._capacity = work.CAPACITY
        self._buffer = TensorDictPrioritizedReplayBuffer(
            alpha=work.ALPHA,
            beta=work.BETA,
            eps=work.EPSILON,
            storage=LazyTensorStorage(work.CAPACITY),
            priority_key="td_error",
        )

    def add(self, steps: work.Steps) -> None:
        done_T1 = torch.from_numpy(steps.done_T)[:, None]
        self._buffer.extend(
            TensorDict(
                {
                    "pixels": torch.from_numpy(steps.obs_TSHW),
                    "action": torch.from_numpy(steps.action_T),
                    "next": {
                        "pixels": torch.from_numpy(steps.next_obs_TSHW),
                        "reward": torch.from_numpy(steps.reward_T)[:, None],
                        "done": done_T1,
                        "terminated": done_T1,
                    },
                },
                batch_size=[len(steps.done_T)],
            )
        )

    def draw(self, batch_size: int) -> None:
        batch = self._buffer.sample(batch_size)
        batch["td_error"] = torch.rand(batch_size, generator=self._generator)
        self._buffer.update_tensordict_priority(batch)

    def nbytes(self) -> int:
        leaves = 2 ** int(np.ceil(np.log2(work.CAPACITY)))
        return self._buffer.storage._storage.bytes() + 2 * 2 * leaves * 4


class Tree:
    """Its PrioritizedSampler's trees of float32, through the sampler's own update."""

    def __init__(self, leaves: int):
        self._sampler = PrioritizedSampler(leaves, alpha=1.0, beta=work.BETA)
        self._leaves, self._generator = leaves, torch.Generator().manual_seed(0)
        self._sampler._sum_tree[torch.arange(leaves)] = torch.rand(
            leaves, generator=self._generator
        )

    def pair(self, batch_size: int) -> None:
        tree = self._sampler._sum_tree
        mass_B = torch.rand(batch_size, generator=self._generator) * tree.query(0, self._leaves)
        index_B = tree.scan_lower_bound(mass_B)
        tree[index_B] = torch.rand(batch_size, generator=self._generator)
