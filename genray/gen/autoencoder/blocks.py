"""Layers of an autoencoder. Each block has an encoding and a decoding direction.

Shapes: B batch, C channels, H height, W width.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from genray.errors import ConfigError
from genray.gen.layers import activation_layer, fan_out, init_for, max_pool, unpool

KERNEL = 3
NO_POSITIONS = (
    "--upsampling unpool: the decoder needs the pooling positions of an image, which a code does "
    "not contain, so codes cannot be decoded, retrieved or mapped; train with --upsampling nearest "
    "or transposed"
)


def activation_or_none(name: str) -> nn.Module:
    """Return the activation `name` as a module; the identity for "linear"."""
    return nn.Identity() if name == "linear" else activation_layer(name)


class Block(nn.Module):
    """Base class: one layer of the encoder with the matching layer of the decoder.

    In subclasses, `above` and `below` are the activations of the layer's code and of the layer's
    input. `norms` (above, below) says whether batch norm precedes each activation. A layer with
    batch norm has no bias, because the norm subtracts any constant and adds its own.
    [Ioffe 2015, https://arxiv.org/abs/1502.03167]
    """

    weight: nn.Parameter
    bias: nn.Parameter | None
    back: nn.Parameter | None
    """The decoder's weight; None for tied weights, and for a block without decoder."""
    back_bias: nn.Parameter | None
    norm_above: nn.Module
    norm_below: nn.Module

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the layer's activations, and the pooling's positions (None without pooling)."""
        raise NotImplementedError

    def decode(self, h: Tensor, position: Tensor | None) -> Tensor:
        """Return the reconstruction of the layer's input, before the activation `below`."""
        raise NotImplementedError

    def forget_decoder(self) -> None:
        """Delete the decoder's parameters."""
        self.back = self.back_bias = None
        self.norm_below = nn.Identity()


class DenseBlock(Block):
    """Encodes float32 [B, *shape] into [B, units] with a dense layer.

    Args:
        shape: the shape of a row of the layer's input.
        units: number of units.
        above, below: names of the activations of the code and of the input.
        tied: whether decoding uses the transposed weight of encoding.
        norms: whether batch norm precedes the activations (above, below).
    """

    def __init__(
        self, shape: Sequence[int], units: int, above: str, below: str, tied: bool,
        norms: tuple[bool, bool] = (False, False),
    ):  # fmt: skip
        super().__init__()
        self.shape, inputs = tuple(shape), math.prod(shape)
        self.weight = nn.Parameter(torch.empty(fan_out(above, units), inputs))
        self.bias = None if norms[0] else nn.Parameter(torch.zeros(fan_out(above, units)))
        self.back_bias = None if norms[1] else nn.Parameter(torch.zeros(fan_out(below, inputs)))
        init_for(above, self.weight)
        self.back = None if tied else nn.Parameter(torch.empty(fan_out(below, inputs), units))
        if self.back is not None:
            init_for(below, self.back)
        self.above = activation_or_none(above)
        self.norm_above = nn.BatchNorm1d(fan_out(above, units)) if norms[0] else nn.Identity()
        self.norm_below = (
            batch_norm(fan_out(below, shape[0]), len(shape)) if norms[1] else nn.Identity()
        )

    def encode(self, x: Tensor) -> tuple[Tensor, None]:
        return self.above(
            self.norm_above(functional.linear(x.flatten(1), self.weight, self.bias))
        ), None

    def decode(self, h: Tensor, position: Tensor | None) -> Tensor:
        weight = self.weight.t() if self.back is None else self.back
        return self.norm_below(
            functional.linear(h, weight, self.back_bias).unflatten(1, (-1, *self.shape[1:]))
        )


class ConvBlock(Block):
    """Encodes [B, C, H, W] into [B, C', H/2, W/2]: 3x3 convolution, activation, 2x2 max-pooling.

    Args:
        shape: (C, H, W) of the layer's input.
        channels: number of channels C' of the code.
        above, below: names of the activations of the code and of the input.
        tied: whether decoding uses the weight of encoding.
        upsampling: how decoding doubles the size: transposed, nearest or unpool.
        norms: whether batch norm precedes the activations (above, below).
    """

    def __init__(
        self,
        shape: Sequence[int],
        channels: int,
        above: str,
        below: str,
        tied: bool,
        upsampling: str,
        norms: tuple[bool, bool] = (False, False),
    ):
        super().__init__()
        self.size, self.upsampling = tuple(shape[1:]), upsampling
        self.weight = nn.Parameter(torch.empty(fan_out(above, channels), shape[0], KERNEL, KERNEL))
        self.bias = None if norms[0] else nn.Parameter(torch.zeros(fan_out(above, channels)))
        self.back_bias = None if norms[1] else nn.Parameter(torch.zeros(fan_out(below, shape[0])))
        init_for(above, self.weight)
        self.back = None
        if not tied:
            self.back = nn.Parameter(
                torch.empty(channels, fan_out(below, shape[0]), KERNEL, KERNEL)
            )
            # The weight of a transposed convolution has inputs and outputs exchanged.
            init_for(below, self.back.data.transpose(0, 1))
        self.above = activation_or_none(above)
        self.norm_above = nn.BatchNorm2d(fan_out(above, channels)) if norms[0] else nn.Identity()
        self.norm_below = nn.BatchNorm2d(fan_out(below, shape[0])) if norms[1] else nn.Identity()

    def activations(self, x: Tensor) -> Tensor:
        """Return the activations before the pooling, float32 [B, C', H, W]."""
        return self.above(
            self.norm_above(functional.conv2d(x, self.weight, self.bias, padding=KERNEL // 2))
        )

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return max_pool(self.activations(x), 2)

    def decode(self, h: Tensor, position: Tensor | None) -> Tensor:
        return self.norm_below(self._sums_below(h, position))

    def _sums_below(self, h: Tensor, position: Tensor | None) -> Tensor:
        weight = self.weight if self.back is None else self.back
        if self.upsampling == "transposed":
            return functional.conv_transpose2d(
                h, weight, self.back_bias, stride=2, padding=1, output_padding=1
            )
        if self.upsampling == "unpool":
            if position is None:
                raise ConfigError(NO_POSITIONS)
            up = unpool(h, position, *self.size)
        else:
            up = functional.interpolate(h, scale_factor=2.0, mode="nearest")
        return functional.conv_transpose2d(up, weight, self.back_bias, padding=1)


def batch_norm(channels: int, dimensions: int) -> nn.Module:
    """Return a batch norm for rows with `dimensions` axes.

    For images (three axes), all pixels of a channel share one mean and one variance.
    """
    return nn.BatchNorm2d(channels) if dimensions == 3 else nn.BatchNorm1d(channels)
