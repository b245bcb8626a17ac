"""Trains a style network to give steady clips, without clips: by contents that are disturbed.

A still area of a clip flickers because of the camera's noise, and because moving objects elsewhere
change the statistics of the picture and the activations around them. In training, a content gets
both: noise, and a rectangle with other pixels. Outside the rectangle, the result must not change.
[noise: Rainy 2018, Stabilizing neural style-transfer for video; a temporal loss with optical flow:
Gao 2018, ReCoNet, https://arxiv.org/abs/1807.01197]

Shapes: B batch, H height, W width. Pictures are float32 in 0..1.
"""

import torch
from torch import Tensor

from genray.gen.training.world import World

NOISE = 0.03
"""Standard deviation of the noise, 8 levels of 255."""
MARGIN = 4
"""Distance from the rectangle within which the result may change, in pixels."""


def disturb(x_B3HW: Tensor, world: World) -> tuple[Tensor, Tensor]:
    """Return the contents with noise and a rectangle of other pixels, clipped to 0..1, and a mask.

    The rectangle has a quarter to half of the height and of the width, at a random position, and
    shows the mirrored content. The mask, float32 [B, 1, H, W], is 1 at a distance of more than
    `MARGIN` pixels from the rectangle, else 0.
    """
    (count, _, height, width), device = x_B3HW.shape, x_B3HW.device
    drawn_B4 = world.uniform(count, 4, device=device)
    noise_B3HW = NOISE * world.normal(count, 3, height, width, device=device)
    inside, near = [], []
    for length, drawn_B2 in ((height, drawn_B4[:, :2]), (width, drawn_B4[:, 2:])):
        size_B111, place_B111 = drawn_B2[:, :, None, None, None].unbind(1)
        extent = ((1 + size_B111) / 4 * length).round()
        start = (place_B111 * (length - extent)).round()
        at = torch.arange(length, device=device, dtype=x_B3HW.dtype)
        inside.append((at >= start) & (at < start + extent))
        near.append((at >= start - MARGIN) & (at < start + extent + MARGIN))
    rows_B1H1, columns_B11W = inside[0].transpose(2, 3), inside[1]
    object_B1HW = rows_B1H1 & columns_B11W
    around_B1HW = near[0].transpose(2, 3) & near[1]
    other_B3HW = torch.where(object_B1HW, x_B3HW.flip(3), x_B3HW)
    return (other_B3HW + noise_B3HW).clamp(0, 1), (~around_B1HW).to(x_B3HW)


def unsteadiness(y_B3HW: Tensor, other_B3HW: Tensor, mask_B1HW: Tensor) -> Tensor:
    """Return the mean squared change of the results where the mask is 1, over the noise's variance.

    1 means that the network passes the noise on unchanged.
    """
    change_B1HW = (other_B3HW - y_B3HW).square().mean(1, keepdim=True)
    return (change_B1HW * mask_B1HW).sum() / mask_B1HW.sum().clamp(min=1) / NOISE**2
