"""Computes the luminance of pictures, and transfers colours between pictures.

Shapes: B batch, C channels, H height, W width, N pixels. Pictures are float32 in 0..1.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in the luma, by ITU-R BT.601."""


def luminance(x_BCHW: Tensor) -> Tensor:
    """Return the luma by ITU-R BT.601, [B, 1, H, W]."""
    return (x_BCHW * x_BCHW.new_tensor(LUMA)[:, None, None]).sum(1, keepdim=True)


def recoloured(content_1CHW: Tensor, styles: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Return the content, recoloured to the weighted average of the styles' colour means and
    covariances.

    Of all linear maps with this result, the map that changes colours least is used. Values are
    clipped to 0..1.
    [Pitié 2007, The linear Monge-Kantorovitch colour mapping, https://doi.org/10.1049/cp:20070055]
    """
    pixels = content_1CHW[0].flatten(1).double()
    mean, covariance = pixels.mean(1, keepdim=True), _covariance(pixels)
    colours = [style[0].flatten(1).double() for style in styles]
    target_mean = sum(weight * each.mean(1, keepdim=True) for weight, each in zip(weights, colours))
    target = torch.stack(
        [weight * _covariance(each) for weight, each in zip(weights, colours)]
    ).sum(0)
    root = power(covariance, 0.5)
    inverse = power(covariance, -0.5)
    map_33 = inverse @ power(root @ target @ root, 0.5) @ inverse
    moved = map_33 @ (pixels - mean) + target_mean
    return moved.view_as(content_1CHW[0])[None].to(content_1CHW.dtype).clamp(0, 1)


def _covariance(pixels_3N: Tensor) -> Tensor:
    """Return the covariance of the colours, [3, 3], plus 1e-4 on the diagonal.

    The added variance, a deviation of 1% of the range, makes the matrix invertible even for a
    picture of one colour.
    """
    return torch.cov(pixels_3N, correction=0) + 1e-4 * torch.eye(
        3, dtype=pixels_3N.dtype, device=pixels_3N.device
    )


def colours_of(result_1CHW: Tensor, content_1CHW: Tensor) -> Tensor:
    """Return a picture with the result's luminance and the content's chroma, clipped to 0..1."""
    return (content_1CHW + luminance(result_1CHW) - luminance(content_1CHW)).clamp(0, 1)


def power(symmetric_CC: Tensor, exponent: float) -> Tensor:
    """Return a power of a symmetric positive definite matrix, [C, C]."""
    values_C, vectors_CC = torch.linalg.eigh(symmetric_CC)
    return vectors_CC * values_C.clamp(min=1e-12).pow(exponent) @ vectors_CC.T
