"""Converts pictures between arrays and tensors, scales them, and transfers their colours.

Shapes: C channels, H height, W width.
"""

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from genray.gen.generative import to_uint8
from genray.gen.images.colours import LUMA


def to_tensor(rgb: np.ndarray) -> Tensor:
    """Convert uint8 [H, W, 3] to float32 [1, 3, H, W] in 0..1."""
    return torch.from_numpy(np.ascontiguousarray(rgb)).permute(2, 0, 1)[None].float() / 255


def to_rgb(image_1CHW: Tensor) -> np.ndarray:
    """Convert float [1, 3, H, W] in 0..1 to uint8 [H, W, 3], rounded and clipped.

    Raises ValueError for another shape, or for NaN or infinite values.
    """
    if image_1CHW.ndim != 4 or image_1CHW.shape[:2] != (1, 3):
        raise ValueError(f"a picture is [1, 3, H, W], not {tuple(image_1CHW.shape)}")
    if not torch.isfinite(image_1CHW).all():
        raise ValueError("a picture with NaN or infinite values")
    return to_uint8(image_1CHW.detach(), 0.0, 1.0)[0]


def scaled(rgb: np.ndarray, longest: int, *, enlarge: bool = False) -> np.ndarray:
    """Scale uint8 [H, W, 3] or [H, W] to a longest side of `longest` pixels (Lanczos).

    A smaller picture is scaled only if `enlarge`; otherwise it is returned unchanged.
    """
    height, width = rgb.shape[:2]
    factor = longest / max(height, width)
    if factor == 1 or (factor > 1 and not enlarge):
        return rgb
    return resized(rgb, max(1, round(height * factor)), max(1, round(width * factor)))


def resized(rgb: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize uint8 [H, W, 3] or [H, W] to `height` x `width` (Lanczos)."""
    return np.asarray(Image.fromarray(rgb).resize((width, height), Image.Resampling.LANCZOS)).copy()


def with_colours_of(result_rgb: np.ndarray, content_rgb: np.ndarray) -> np.ndarray:
    """Combine the result's luminance with the content's colours; uint8 [H, W, 3], result's size.

    Uses the luma Y and the chroma Cb, Cr of ITU-R 601, as in JPEG. Values are clipped to 0..255.
    [Gatys 2016, Preserving color in neural artistic style transfer,
    https://arxiv.org/abs/1606.05897, luminance-only]
    """
    if content_rgb.shape != result_rgb.shape:
        content_rgb = resized(content_rgb, *result_rgb.shape[:2])
    weights = np.array(LUMA, np.float32)
    content = content_rgb.astype(np.float32)
    # R − Y, G − Y and B − Y are the chroma. Adding the same number to R, G and B changes only Y.
    change_HW = result_rgb.astype(np.float32) @ weights - content @ weights
    return np.rint(content + change_HW[..., None]).clip(0, 255).astype(np.uint8)
