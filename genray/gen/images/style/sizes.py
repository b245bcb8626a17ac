"""Sizes of pictures in style transfer: the scales of an optimisation, and resizing.

Shapes: B batch, C channels, H height, W width. Pictures are float32 in 0..1.
"""

import torch.nn.functional as F
from torch import Tensor

LEAST = 16
"""Shortest side of the smallest scale, in pixels."""


def sizes_of(height: int, width: int, scales: int, least: int) -> list[tuple[int, int]]:
    """Return (height, width) of each scale, smallest first.

    Smaller scales whose shorter side would be below `least` are left out.
    """
    found = [(height, width)]
    while len(found) < scales and min(found[0]) // 2 >= least:
        found.insert(0, (round(found[0][0] / 2), round(found[0][1] / 2)))
    return found


def resize(x_BCHW: Tensor, height: int, width: int) -> Tensor:
    """Resize pictures bicubically, with antialiasing."""
    if x_BCHW.shape[-2:] == (height, width):
        return x_BCHW
    return F.interpolate(
        x_BCHW, (height, width), mode="bicubic", antialias=True, align_corners=False
    )


def at_scale(style_1CHW: Tensor, longest: float, least: int) -> Tensor:
    """Scale a style to a longest side of `longest`, or larger if a side would be below `least`."""
    height, width = style_1CHW.shape[-2:]
    factor = max(longest / max(height, width), least / min(height, width))
    return resize(style_1CHW, max(least, round(height * factor)), max(least, round(width * factor)))
