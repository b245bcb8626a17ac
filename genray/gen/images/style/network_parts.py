"""Defines common parts of the networks of style_fast and style_any.

The parts are the convolution, the padding, the residual block, and checks of the input.

Shapes: B batch, C channels, H height, W width. Pictures are float32 in 0..1.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from genray.errors import require

MAX_SIDE = 16_384
"""Longest side of a picture for a style model, in pixels; files are read up to 50 million pixels.
With the CPU presets' widths, a large picture needs about 125 bytes of memory a pixel.
"""
LEAST_SIDE = 8
"""Shortest side in pixels, because reflection padding at a quarter of the size needs two pixels."""


def conv(
    channels_in: int, channels_out: int, kernel: int = 3, stride: int = 1, groups: int = 1
) -> nn.Conv2d:
    """Return a convolution with reflection padding, because zeros would cause a visible border."""
    return nn.Conv2d(
        channels_in, channels_out, kernel, stride,
        padding=kernel // 2, padding_mode="reflect", groups=groups,
    )  # fmt: skip


def pad_to_multiple(x_BCHW: Tensor, multiple: int) -> Tensor:
    """Pad by reflection at the right and bottom, so that both sides are multiples of `multiple`."""
    down, right = -x_BCHW.shape[-2] % multiple, -x_BCHW.shape[-1] % multiple
    return F.pad(x_BCHW, (0, right, 0, down), mode="reflect") if down or right else x_BCHW


def check_picture(what: str, x_1CHW: Tensor, max_side: int, min_side: int = LEAST_SIDE) -> None:
    """Raise ConfigError unless the tensor is one RGB picture with sides from `min_side` to
    `max_side`.
    """
    require(
        x_1CHW.ndim == 4 and x_1CHW.shape[:2] == (1, 3),
        f"{what}: a tensor of shape {tuple(x_1CHW.shape)}; give one RGB picture, [1, 3, H, W]",
    )
    height, width = x_1CHW.shape[-2:]
    require(
        min(height, width) >= min_side and max(height, width) <= max_side,
        f"{what}: {width}x{height} pixels; this style model takes sides of {min_side} to "
        f"{max_side} pixels: scale the picture with --size",
    )


class Residual(nn.Module):
    """A residual block, [B, C, H, W] → [B, C, H, W]: returns x + f(x), f with two 3x3 convolutions.

    A ReLU is between the convolutions, and none after the sum.
    [Gross 2016, http://torch.ch/blog/2016/02/04/resnets.html]

    Args:
        channels: C.
        norm: whether instance norm follows each convolution.
        separable: whether each convolution is a depthwise 3x3 and a 1x1 convolution, with an eighth
            of the work. [Howard 2017, MobileNets, https://arxiv.org/abs/1704.04861]
    """

    def __init__(self, channels: int, norm: bool = True, separable: bool = False):
        super().__init__()
        if separable:
            one, other = (
                [conv(channels, channels, groups=channels), conv(channels, channels, 1)]
                for _ in range(2)
            )
            self.layers = nn.Sequential(*one, nn.ReLU(), *other)
            return
        layers: list[nn.Module] = [conv(channels, channels), nn.ReLU(), conv(channels, channels)]
        if norm:
            layers = [
                layers[0], nn.InstanceNorm2d(channels, affine=True), layers[1],
                layers[2], nn.InstanceNorm2d(channels, affine=True),
            ]  # fmt: skip
        self.layers = nn.Sequential(*layers)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return x + f(x)."""
        return x_BCHW + self.layers(x_BCHW)


def check_alpha(alpha: float) -> None:
    """Raise ConfigError unless the strength of a style lies in 0..1."""
    require(0 <= alpha <= 1, f"--alpha {alpha:g}: must lie in 0..1 (1: the full style)")
