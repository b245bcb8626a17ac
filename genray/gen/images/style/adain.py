"""Adaptive instance normalisation (AdaIN): gives activations the mean and deviation of a style.

Shapes: B batch, C channels, H height, W width.
"""

from torch import Tensor


def mean_std(f_BCHW: Tensor) -> tuple[Tensor, Tensor]:
    """Return each channel's mean and standard deviation over its pixels, both [B, C, 1, 1].

    The deviation is at least 1e-5. Larger deviations stay exact, which adding an ε to the variance
    would not give. Below the minimum, the gradient of the deviation is 0.
    """
    mean = f_BCHW.mean((2, 3), keepdim=True)
    variance = (f_BCHW - mean).square().mean((2, 3), keepdim=True)
    return mean, variance.clamp(min=1e-10).sqrt()


def adain(content_BCHW: Tensor, style_BCHW: Tensor) -> Tensor:
    """Return the content's activations with the style's mean and deviation in each channel.

    The sizes of content and style may differ. A channel with constant content becomes the style's
    mean.
    [Huang 2017, adaptive instance normalisation, https://arxiv.org/abs/1703.06868]
    """
    mean, std = mean_std(content_BCHW)
    style_mean, style_std = mean_std(style_BCHW)
    return (content_BCHW - mean) / std * style_std + style_mean
