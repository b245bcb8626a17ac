"""Applies styles inside and outside of a mask, with soft edges.

Pictures are uint8 RGB. Shapes: H height, W width.
"""

from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from genray.errors import require
from genray.gen.images.colours import LUMA
from genray.gen.images.pictures import read_picture, resized

WHITE = 128
"""Smallest value of a white pixel; a mask without one styles nothing."""


def read_mask(path: Path, height: int, width: int) -> np.ndarray:
    """Read the mask of a picture of `height` x `width` pixels, uint8 [H, W]: the luma of the file,
    0 where it is transparent.

    Raises ConfigError for an unreadable file, another size, or a mask without white pixels.
    """
    picture = read_picture(path.expanduser(), name=f"--mask {path}")
    tall, wide = picture.rgb.shape[:2]
    require(
        (tall, wide) == (height, width),
        f"--mask {path}: {wide}x{tall} pixels, and the content has {width}x{height}; give a mask "
        "of the content's size",
    )
    mask_HW = np.rint(picture.rgb @ np.array(LUMA, np.float32))
    if picture.alpha is not None:
        mask_HW = np.where(picture.alpha < WHITE, 0, mask_HW)
    require(
        float(mask_HW.max()) >= WHITE,
        f"--mask {path}: has no white pixels, so that nothing would be styled; paint the area of "
        "the style white",
    )
    return mask_HW.clip(0, 255).astype(np.uint8)


def soften(mask_HW: np.ndarray, feather: float, height: int, width: int) -> np.ndarray:
    """Scale a mask to a result of `height` x `width` pixels, and blur its edges.

    `feather`: width of the soft edge, in percent of the result's longer side. It is four standard
    deviations of a Gaussian. Returns float32 [height, width] in 0..1.
    """
    if mask_HW.shape != (height, width):
        mask_HW = resized(mask_HW, height, width)
    sigma = feather / 100 * max(height, width) / 4
    if sigma > 0:
        blurred = Image.fromarray(mask_HW).filter(ImageFilter.GaussianBlur(sigma))
        mask_HW = np.asarray(blurred)
    return mask_HW.astype(np.float32) / 255


def mix(inside: np.ndarray, outside: np.ndarray, weight_HW: np.ndarray) -> np.ndarray:
    """Return `weight_HW` · inside + (1 − `weight_HW`) · outside, rounded, uint8 [H, W, 3].

    Where the weight is 0 or 1, the pixels are exactly those of `outside` or `inside`.
    """
    away = outside.astype(np.float32)
    mixed = away + weight_HW[..., None] * (inside.astype(np.float32) - away)
    return np.rint(mixed).astype(np.uint8)
