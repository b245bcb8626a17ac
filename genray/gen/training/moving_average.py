"""Moving average of a network's weights. Samples come from the averaged network."""

import copy

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class MovingAverage:
    """Averages the weights of a network over its updates.

    Batch norms' statistics are averaged too, because they belong to the weights. Counters, which
    are integers, are not averaged.

    Args:
        source: the network that is trained, on its final device.
        decay: weight of the old average at each update, in [0, 1).
    """

    def __init__(self, source: nn.Module, decay: float):
        self.network = copy.deepcopy(source).requires_grad_(False)
        """The network with the averaged weights."""
        self._decay = decay
        # The tensors are listed once, because listing takes longer than averaging a small network.
        self._averages, self._sources = _floating(self.network), _floating(source)

    @torch.no_grad()
    def update(self, updates: int) -> None:
        """Include the source's current weights, after update number `updates` (counted from 1).

        The decay grows over the first updates, so that the random initial weights have little
        influence on the average.
        """
        decay = min(self._decay, (1 + updates) / (10 + updates))
        get_ema_multi_avg_fn(decay)(self._averages, self._sources, updates)


def _floating(network: nn.Module) -> list[Tensor]:
    """Return the floating-point weights and statistics of a network, in a fixed order."""
    return [
        tensor
        for tensor in (*network.parameters(), *network.buffers())
        if tensor.is_floating_point()
    ]
