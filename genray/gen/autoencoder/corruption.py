"""Random corruption x̃ ~ C(x̃ | x) of the input of an autoencoder.
[Vincent 2010, https://jmlr.org/papers/v11/vincent10a.html]

Shapes: B batch, C channels, H height, W width.
"""

import torch
from torch import Tensor
from torch.nn import functional

from genray.errors import require
from genray.gen.training.world import ALONE, World

# A warp of strength s rotates by up to s radians. The factors of shear, scale and shift were chosen
# so that an 8x8 digit is legible at s = 0.3.
SHEAR_AND_SCALE = 2 / 3
SHIFT = 5 / 6


def corrupt(
    x: Tensor, kind: str, strength: float, low: float = 0.0, high: float = 1.0, world: World = ALONE
) -> Tensor:
    """Return the rows x [B, …], whose values are in low..high, with corruption.

    - none: returns x unchanged, as does a `strength` of 0
    - gaussian: adds N(0, strength²), without clipping
    - masking: sets each value to `low` with probability `strength` (the paper: 0, which is the same
      for data in 0..1)
    - salt-pepper: sets each value to `low` or to `high`, with probability `strength`/2 each
    - warp (not in the paper; images only): applies a random affine map to each image, so that codes
      learn not to depend on pose

    All random numbers come from PyTorch's global generator. Raises ConfigError for another kind, or
    if rows to warp are not images.
    """
    count, shape = len(x), x.shape[1:]
    if kind == "none" or strength == 0:
        return x
    if kind == "gaussian":
        return x + strength * world.normal(count, *shape, device=x.device)
    if kind == "masking":
        return torch.where(world.uniform(count, *shape, device=x.device) < strength, low, x)
    if kind == "salt-pepper":
        drawn = world.uniform(count, *shape, device=x.device)
        return torch.where(drawn < strength / 2, low, torch.where(drawn < strength, high, x))
    require(
        kind == "warp",
        f"--corruption {kind}: no such corruption; use gaussian, masking, salt-pepper or warp",
    )
    return warp(x, strength, low, world)


def warp(x_BCHW: Tensor, strength: float, low: float = 0.0, world: World = ALONE) -> Tensor:
    """Rotate each image by a random angle of up to `strength` radians; shear, scale and shift it by
    random amounts in proportion to `strength`.

    Pixels from outside the image are `low`. Raises ConfigError if the rows are not images.
    """
    require(x_BCHW.ndim == 4, "--corruption warp: needs images; use masking for text")
    # Six numbers for each image, U(−1, 1): rotation, shear, horizontal and vertical scale,
    # horizontal and vertical shift (in grid coordinates −1..1).
    drawn_B6 = 2 * world.uniform(len(x_BCHW), 6, device=x_BCHW.device) - 1
    turn_B = strength * drawn_B6[:, 0]
    shear_B = SHEAR_AND_SCALE * strength * drawn_B6[:, 1]
    scale_B2 = 1 + SHEAR_AND_SCALE * strength * drawn_B6[:, 2:4]
    shift_B2 = SHIFT * strength * drawn_B6[:, 4:6]
    cos_B, sin_B = turn_B.cos(), turn_B.sin()
    theta_B23 = torch.stack(
        [
            torch.stack([cos_B * scale_B2[:, 0], shear_B - sin_B, shift_B2[:, 0]], dim=1),
            torch.stack([sin_B, cos_B * scale_B2[:, 1], shift_B2[:, 1]], dim=1),
        ],
        dim=1,
    )
    grid_BHW2 = functional.affine_grid(theta_B23, list(x_BCHW.shape), align_corners=False)
    # grid_sample uses 0 outside the image, so `low` is subtracted first and added afterwards.
    return functional.grid_sample(x_BCHW - low, grid_BHW2, align_corners=False) + low


def median_filter(x_BCHW: Tensor) -> Tensor:
    """Return the median of each pixel's 3x3 neighbourhood. This is a denoiser without training.

    Outside the image, the edge pixels are repeated.
    """
    padded = functional.pad(x_BCHW, (1, 1, 1, 1), mode="replicate")
    windows_BC9N = functional.unfold(padded, 3).unflatten(1, (x_BCHW.shape[1], 9))
    return windows_BC9N.median(dim=2).values.view_as(x_BCHW)
