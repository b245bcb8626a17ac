"""DiffAugment: differentiable augmentation of real and fake images, for GANs with few images.

[Zhao 2020, https://arxiv.org/abs/2006.10738]
Departures: an image is shifted by products with 0/1 matrices. They give the same numbers, and their
gradient is deterministic on GPUs, too. A cutout of odd length may start one pixel further down or
right than in the paper's code.
Shapes: B batch, C channels, H height, W width.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from genray.gen.training.world import World

Change = Literal["color", "translation", "cutout"]


def diff_augment(x_BCHW: Tensor, changes: Sequence[Change], world: World) -> Tensor:
    """Apply each of `changes` to `x_BCHW` (float, −1..1), with new random numbers for every image.

    Values of the result may lie outside −1..1.
    """
    for change in changes:
        x_BCHW = _CHANGES[change](x_BCHW, world)
    return x_BCHW


def _color(x: Tensor, world: World) -> Tensor:
    """Add −0.5..0.5 to the brightness; multiply saturation by 0..2 and contrast by 0.5..1.5."""
    draw_B3 = world.uniform(len(x), 3, device=x.device)
    brightness, saturation, contrast = (draw_B3[:, i, None, None, None] for i in range(3))
    x = x + (brightness - 0.5)
    grey = x.mean(dim=1, keepdim=True)
    x = (x - grey) * (2.0 * saturation) + grey
    mean = x.mean(dim=(1, 2, 3), keepdim=True)
    return (x - mean) * (contrast + 0.5) + mean


def _translation(x: Tensor, world: World, ratio: float = 0.125) -> Tensor:
    """Shift images by up to `ratio` of each side; zeros (mid-grey) fill the border."""
    height, width = x.shape[2:]
    draw_B2 = world.uniform(len(x), 2, device=x.device)
    down_BHH = _shift(draw_B2[:, 0], height, int(height * ratio + 0.5)).to(x.dtype)
    right_BWW = _shift(draw_B2[:, 1], width, int(width * ratio + 0.5)).to(x.dtype)
    return torch.einsum("bhi,bciw,bvw->bchv", down_BHH, x, right_BWW)


def _shift(draw_B: Tensor, side: int, most: int) -> Tensor:
    """Return bool M [B, side, side] with M[b, i, j] = (i = j + shift_b).

    `draw_B`, uniform in [0, 1), sets shift_b, which is uniform over the integers −most..most.
    """
    shift_B = (draw_B * (2 * most + 1)).floor() - most
    at = torch.arange(side, device=draw_B.device)
    return (at[:, None] - at[None, :])[None] == shift_B[:, None, None]


def _cutout(x: Tensor, world: World, ratio: float = 0.5) -> Tensor:
    """Set to 0 a rectangle whose sides are `ratio` of the image's sides.

    The rectangle may extend beyond the edge of the image.
    """
    height, width = x.shape[2:]
    draw_B2 = world.uniform(len(x), 2, device=x.device)
    rows_BH = _inside(draw_B2[:, 0], height, ratio)
    columns_BW = _inside(draw_B2[:, 1], width, ratio)
    cut_BHW = rows_BH[:, :, None] & columns_BW[:, None, :]
    return x * (~cut_BHW)[:, None].to(x.dtype)


def _inside(draw_B: Tensor, side: int, ratio: float) -> Tensor:
    """Return which of the `side` rows (or columns) a cutout covers, bool [B, side]."""
    length = int(side * ratio + 0.5)
    first_B = (draw_B * (side + 1)).floor() - length // 2
    at = torch.arange(side, device=draw_B.device)
    return (at >= first_B[:, None]) & (at < first_B[:, None] + length)


_CHANGES = {"color": _color, "translation": _translation, "cutout": _cutout}
