"""Data-parallel workers: each worker's rows, random numbers, and averages over the group.

This module needs only PyTorch; `genray/distributed/parallel_fit.py` starts a group of workers with
Ray.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, distributed


class World:
    """Describes one data-parallel worker.

    All workers have the same seed. Each worker takes its own rows of every global batch. Random
    numbers are drawn for the *global* batch and cut to the worker's rows. K workers therefore give
    the same curve as one worker with the same global batch, up to rounding. Batch norms and losses
    that depend on statistics of a batch are exceptions, because each worker uses its own rows.

    Args:
        rank: the worker's number, from 0.
        size: the number of workers.
    """

    def __init__(self, rank: int = 0, size: int = 1):
        self.rank, self.size = rank, size

    def rows(self, count: int) -> slice:
        """Return the worker's rows of a global batch of `count` rows; `size` divides `count`."""
        share = count // self.size
        return slice(self.rank * share, (self.rank + 1) * share)

    def normal(self, count: int, *shape: int, device: torch.device) -> Tensor:
        """Draw from N(0, 1); returns float32 [count, *shape].

        Every worker draws the group's `count * size` rows and returns its own `count` rows.
        """
        return torch.randn(count * self.size, *shape, device=device)[self.rows(count * self.size)]

    def uniform(self, count: int, *shape: int, device: torch.device) -> Tensor:
        """Draw from U[0, 1) in the same way as `normal`; returns float32 [count, *shape]."""
        return torch.rand(count * self.size, *shape, device=device)[self.rows(count * self.size)]

    def gather(self, rows: Tensor) -> Tensor:
        """Return the rows of all workers in the order of their ranks, [B·size, …].

        `rows`: this worker's rows, [B, …]; B is the same for all workers.
        """
        if self.size == 1:
            return rows
        parts = [torch.empty_like(rows) for _ in range(self.size)]
        distributed.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    def average(self, tensors: Iterable[Tensor]) -> None:
        """Replace each tensor by its mean over the workers, in place."""
        if self.size == 1:
            return
        for tensor in tensors:
            distributed.all_reduce(tensor)
            tensor /= self.size

    def mean(self, value: float) -> float:
        """Return the mean of `value` over the workers."""
        tensor = torch.tensor(value, dtype=torch.float64)
        self.average([tensor])
        return tensor.item()


ALONE = World()
"""The only worker of a run that is not data-parallel."""
