"""One worker of a data-parallel group, or the only one. PyTorch alone: Ray starts the group in
dist/parallel_fit.py.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, distributed


class World:
    """This worker's rank among `size`. Every worker has the same seed, and takes its own rows of
    every global batch.

    Randomness is drawn for the *global* batch and cut to the worker's rows, so that K workers
    make the same curve as one with the same global batch, to rounding.
    """

    def __init__(self, rank: int = 0, size: int = 1):
        self.rank, self.size = rank, size

    def rows(self, count: int) -> slice:
        """The worker's rows of a global batch of `count`, which `size` divides."""
        share = count // self.size
        return slice(self.rank * share, (self.rank + 1) * share)

    def normal(self, count: int, *shape: int, device: torch.device) -> Tensor:
        """N(0, 1), float32 [count, *shape]: the worker's `count` rows of what the whole group
        draws.
        """
        return torch.randn(count * self.size, *shape, device=device)[self.rows(count * self.size)]

    def uniform(self, count: int, *shape: int, device: torch.device) -> Tensor:
        """U[0, 1), float32 [count, *shape], drawn as `normal` does."""
        return torch.rand(count * self.size, *shape, device=device)[self.rows(count * self.size)]

    def average(self, tensors: Iterable[Tensor]) -> None:
        """Replace each tensor by its mean over the workers, in place."""
        if self.size == 1:
            return
        for tensor in tensors:
            distributed.all_reduce(tensor)
            tensor /= self.size

    def mean(self, value: float) -> float:
        """The mean of `value` over the workers."""
        tensor = torch.tensor(value, dtype=torch.float64)
        self.average([tensor])
        return tensor.item()


ALONE = World()
