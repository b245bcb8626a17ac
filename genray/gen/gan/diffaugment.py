"""Differentiable augmentation of real and fake images alike, for GANs with few images.

[Zhao 2020, https://arxiv.org/abs/2006.10738]
Departures: the shift is a product with 0/1 matrices (the same numbers; its gradient is
deterministic on GPUs, too); sides are cut out whole, without the paper's one-pixel asymmetry for
odd sizes. Shapes: B batch, C channels, H height, W width.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from genray.gen.training.world import World

Change = Literal["color", "translation", "cutout"]


def diff_augment(x_BCHW: Tensor, changes: Sequence[Change], world: World) -> Tensor:
    """`x_BCHW` (float, −1..1) with each of `changes` drawn anew for every image; the result may
    pass −1..1.
    """
    for change in changes:
        x_BCHW = _CHANGES[change](x_BCHW, world)
    return x_BCHW


def _color(x: Tensor, world: World) -> Tensor:
    """Brightness ± 0.5, saturation × 0..2, contrast × 0.5..1.5."""
    draw_B3 = world.uniform(len(x), 3, device=x.device)
    brightness, saturation, contrast = (draw_B3[:, i, None, None, None] for i in range(3))
    x = x + (brightness - 0.5)
    grey = x.mean(dim=1, keepdim=True)
    x = (x - grey) * (2.0 * saturation) + grey
    mean = x.mean(dim=(1, 2, 3), keepdim=True)
    return (x - mean) * (contrast + 0.5) + mean


def _translation(x: Tensor, world: World, ratio: float = 0.125) -> Tensor:
    """A shift by up to `ratio` of each side, zeros (mid-grey) coming in."""
    height, width = x.shape[2:]
    draw_B2 = world.uniform(len(x), 2, device=x.device)
    down_BHH = _shift(draw_B2[:, 0], height, int(height * ratio + 0.5)).to(x.dtype)
    right_BWW = _shift(draw_B2[:, 1], width, int(width * ratio + 0.5)).to(x.dtype)
    return torch.einsum("bhi,bciw,bvw->bchv", down_BHH, x, right_BWW)


def _shift(draw_B: Tensor, side: int, most: int) -> Tensor:
    """M[b, i, j] = 1 where i = j + shift_b, shift_b even over −most..most, bool [B, side, side]."""
    shift_B = (draw_B * (2 * most + 1)).floor() - most
    at = torch.arange(side, device=draw_B.device)
    return (at[:, None] - at[None, :])[None] == shift_B[:, None, None]


def _cutout(x: Tensor, world: World, ratio: float = 0.5) -> Tensor:
    """A rectangle of half of each side set to 0, its centre anywhere: it may stand out over the
    edge.
    """
    height, width = x.shape[2:]
    draw_B2 = world.uniform(len(x), 2, device=x.device)
    rows_BH = _inside(draw_B2[:, 0], height, ratio)
    columns_BW = _inside(draw_B2[:, 1], width, ratio)
    cut_BHW = rows_BH[:, :, None] & columns_BW[:, None, :]
    return x * (~cut_BHW)[:, None].to(x.dtype)


def _inside(draw_B: Tensor, side: int, ratio: float) -> Tensor:
    length = int(side * ratio + 0.5)
    first_B = (draw_B * (side + 1)).floor() - length // 2
    at = torch.arange(side, device=draw_B.device)
    return (at >= first_B[:, None]) & (at < first_B[:, None] + length)


_CHANGES = {"color": _color, "translation": _translation, "cutout": _cutout}
