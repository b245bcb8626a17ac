"""Prepares a Q-network for programs that know neither genray nor PyTorch.

Shapes: B batch, S stack, H height, W width, K past actions, A actions, C channels.
"""

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from genray.rl.encoders import POOLED
from genray.rl.networks import QNetwork


class PortableNetwork(nn.Module):
    """Computes the Q-values of a network, by operations that exporters know.

    The network is copied to the CPU. The copy is in evaluation mode, in which noisy layers have no
    noise. Weights divided by a spectral norm become constants.

    Args:
        network: the network. It does not change.
    """

    def __init__(self, network: QNetwork):
        super().__init__()
        self.network = copy.deepcopy(network).cpu().eval()
        self.network.requires_grad_(False)
        for module in list(self.network.modules()):
            for name, child in list(module.named_children()):
                if isinstance(child, nn.AdaptiveMaxPool2d):
                    setattr(module, name, WindowMaxPool(POOLED))
                elif isinstance(child, nn.Conv2d) and parametrize.is_parametrized(child, "weight"):
                    setattr(module, name, _plain(child))

    def forward(self, frames_BSHW: Tensor, past_BK: Tensor | None = None) -> Tensor:
        """Return the Q-values, float32 [B, A], of uint8 frames, oldest first. `past_BK`: the last
        actions, int64, newest first, −1 before the episode's first action; only for networks with
        `past_actions`.
        """
        return self.network(frames_BSHW, past_BK)

    def example(self, count: int = 2) -> tuple[Tensor, ...]:
        """Return blank inputs of the right shapes and dtypes."""
        network = self.network
        frames = torch.zeros(count, network.stack, *network.frame_shape, dtype=torch.uint8)
        past = torch.full((count, network.config.past_actions), -1)
        return (frames, past) if network.config.past_actions else (frames,)

    @property
    def input_names(self) -> list[str]:
        """Names of the inputs in an exported file."""
        return ["frames", "past_actions"][: len(self.example())]


def _plain(layer: nn.Conv2d) -> nn.Conv2d:
    """Return a convolution whose weight is the computed weight of a parametrized one.

    PyTorch's `remove_parametrizations` would also change the layer of which `layer` is a copy.
    """
    plain = nn.Conv2d(
        layer.in_channels,
        layer.out_channels,
        layer.kernel_size,  # type: ignore[arg-type]
        layer.stride,  # type: ignore[arg-type]
        layer.padding,  # type: ignore[arg-type]
    ).requires_grad_(False)
    plain.weight.copy_(layer.weight)
    if plain.bias is not None and layer.bias is not None:
        plain.bias.copy_(layer.bias)
    return plain


class WindowMaxPool(nn.Module):
    """Computes `nn.AdaptiveMaxPool2d`, which ONNX lacks, as maxima over slices.

    Args:
        side: height and width of the output.
    """

    def __init__(self, side: int):
        super().__init__()
        self.side = side

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return the maxima, float32 [B, C, side, side]."""
        for dim in (2, 3):
            size = x_BCHW.shape[dim]
            # Windows overlap if `size` is not a multiple of `side`.
            starts = [i * size // self.side for i in range(self.side)]
            ends = [-(-(i + 1) * size // self.side) for i in range(self.side)]
            windows = [
                x_BCHW.narrow(dim, start, end - start).amax(dim) for start, end in zip(starts, ends)
            ]
            x_BCHW = torch.stack(windows, dim)
        return x_BCHW
