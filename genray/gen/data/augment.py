"""Augments training batches on the training device.

Shapes: B batch, C channels, H height, W width.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from genray.gen.training.world import ALONE, World

SHIFT = 0.1
"""Largest shift in either direction, as a share of the side."""
SMALLEST_CROP = 0.8
"""Smallest crop, as a share of the side."""
NEGATIVE_SHARE = 0.3
"""Probability that "colour" inverts a channel."""


def augment(x_BCHW: Tensor, names: Sequence[str], world: World = ALONE) -> Tensor:
    """Return the batch after the augmentations in `names` (flip, shift, crop, colour).

    Each image has its own random numbers, from PyTorch's global generator. Every worker draws the
    numbers for the images of all workers, and uses the numbers for its own images. Outside the
    image, edge pixels are repeated. Values stay in the input's range, and the input tensor is not
    modified.
    """
    if not names:
        return x_BCHW
    count, _, height, width = x_BCHW.shape
    device = x_BCHW.device
    # Each image is mirrored with probability 1/2.
    if "flip" in names:
        flip_B111 = world.uniform(count, 1, 1, 1, device=device) < 0.5
        x_BCHW = torch.where(flip_B111, x_BCHW.flip(3), x_BCHW)
    if "shift" in names:
        # Shifts are whole pixels, because fractions would blur small images. The largest shift is
        # at least one pixel, also for 8x8 images.
        drawn_B2 = world.uniform(count, 2, device=device)
        row_BH = _shifted(drawn_B2[:, :1], height)
        column_BW = _shifted(drawn_B2[:, 1:], width)
        x_BCHW = x_BCHW.gather(2, row_BH[:, None, :, None].expand_as(x_BCHW))
        x_BCHW = x_BCHW.gather(3, column_BW[:, None, None, :].expand_as(x_BCHW))
    if "crop" in names:
        drawn_B3 = world.uniform(count, 3, device=device)
        scale_B = SMALLEST_CROP + (1 - SMALLEST_CROP) * drawn_B3[:, 0]
        # grid_sample's coordinates are −1..1, so the centre of a window of half-side `scale` must
        # lie within ±(1 − scale).
        middle_B2 = (2 * drawn_B3[:, 1:] - 1) * (1 - scale_B)[:, None]
        theta_B23 = torch.zeros(count, 2, 3, device=device)
        theta_B23[:, 0, 0] = theta_B23[:, 1, 1] = scale_B
        theta_B23[:, :, 2] = middle_B2
        grid_BHW2 = functional.affine_grid(
            theta_B23, [count, 1, height, width], align_corners=False
        )
        x_BCHW = functional.grid_sample(
            x_BCHW, grid_BHW2, padding_mode="border", align_corners=False
        )
    if "colour" in names:
        # The channels are permuted, then some of them are inverted.
        drawn_B2C = world.uniform(count, 2, x_BCHW.shape[1], device=device)
        x_BCHW = x_BCHW.gather(1, drawn_B2C[:, 0].argsort(1)[:, :, None, None].expand_as(x_BCHW))
        # A channel is inverted within its own range, so that values stay in the data's range.
        turned = x_BCHW.amin((2, 3), keepdim=True) + x_BCHW.amax((2, 3), keepdim=True) - x_BCHW
        x_BCHW = torch.where(drawn_B2C[:, 1, :, None, None] < NEGATIVE_SHARE, turned, x_BCHW)
    return x_BCHW


def _shifted(drawn_B1: Tensor, side: int) -> Tensor:
    """Return each pixel's source index along one side, int64 [B, side].

    `drawn_B1`: a uniform random number in [0, 1) for each image.
    """
    most = max(1, round(SHIFT * side))
    by_B1 = (drawn_B1 * (2 * most + 1)).floor().long() - most
    return (torch.arange(side, device=drawn_B1.device) + by_B1).clamp(0, side - 1)
