"""Chooses the rows of each batch; every epoch has a new random order of all rows."""

import numpy as np
import torch
from torch import Tensor

from genray.gen.data.augment import augment
from genray.gen.data.types import Split
from genray.gen.training.task import Batch
from genray.gen.training.world import World


class Batches:
    """Makes the batches of one stage.

    The order of the rows is a function of (seed, stage, epoch), so that a resumed run needs only
    the number of its next step. The last rows of an epoch, which do not fill a batch, are left out.

    Args:
        split: the rows that the stage trains on, on the training device.
        batch_size: rows of a batch, over all workers together.
        seed: the run's seed.
        stage: the stage's number, from 0.
        world: this data-parallel worker, which takes its own share of each batch.
    """

    def __init__(self, split: Split, batch_size: int, seed: int, stage: int, world: World):
        self._split, self._batch_size, self._world = split, batch_size, world
        self._seed, self._stage = seed, stage
        self._epoch = -1
        self._order_N: Tensor | None = None
        self.steps_an_epoch = max(1, len(split) // batch_size)
        """Number of batches in one epoch."""

    def batch(self, step: int) -> Batch:
        """Return this worker's rows of the stage's step `step` (counted from 0), augmented."""
        # Draw the epoch's order of rows, at the epoch's first step and after resuming.
        epoch, position = divmod(step, self.steps_an_epoch)
        if self._order_N is None or epoch != self._epoch:
            self._epoch, self._order_N = epoch, self._draw_order(epoch)
        # Take this worker's rows of the global batch.
        start = position * self._batch_size
        rows = self._order_N[start : start + self._batch_size][self._world.rows(self._batch_size)]
        x, label = self._split.take(rows)
        return Batch(augment(x, self._split.augment, self._world), label, rows)

    def _draw_order(self, epoch: int) -> Tensor:
        generator = np.random.default_rng([self._seed, 0, self._stage, epoch])
        order_N = torch.from_numpy(generator.permutation(len(self._split)))
        device = self._split.values.device
        # With pinned memory, the host does not wait for earlier steps on the GPU.
        if device.type == "cuda":
            order_N = order_N.pin_memory()
        return order_N.to(device, non_blocking=True)
