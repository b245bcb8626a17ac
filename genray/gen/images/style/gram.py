"""Gram matrices of activations, the statistic of a style in Gatys' and Johnson's methods.

Shapes: B batch, C channels, H height, W width, N pixels.
"""

from collections.abc import Mapping

from torch import Tensor


def gram(f_BCHW: Tensor) -> Tensor:
    """Return the Gram matrices [B, C, C], the inner products of the channels divided by C·H·W.

    The division makes Gram matrices of different sizes comparable.
    [Johnson 2016, https://arxiv.org/abs/1603.08155]
    """
    f_BCN = f_BCHW.flatten(2)
    return f_BCN @ f_BCN.transpose(1, 2) / (f_BCN.shape[1] * f_BCN.shape[2])


def grams(features: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the Gram matrix of each layer."""
    return {layer: gram(f_BCHW) for layer, f_BCHW in features.items()}
