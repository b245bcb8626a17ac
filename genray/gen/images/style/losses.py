"""Losses of style transfer: statistics of activations, and losses computed from the statistics.

All methods of style transfer in this package, by optimisation or by a network, minimise them.
Shapes: B batch, C channels, H height, W width, N pixels, T batch of targets. Pictures are float32
in 0..1. The losses raise ValueError for shapes that do not fit the names.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from genray.shapes import check_shapes


def gram(f_BCHW: Tensor) -> Tensor:
    """Return the Gram matrix, the inner products of the channels divided by C·H·W: [B, C, C].

    The division makes Gram matrices of different sizes comparable.
    [Johnson 2016, https://arxiv.org/abs/1603.08155]
    """
    f_BCN = f_BCHW.flatten(2)
    return f_BCN @ f_BCN.transpose(1, 2) / (f_BCN.shape[1] * f_BCN.shape[2])


def grams(features: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the Gram matrix of each layer."""
    return {layer: gram(f_BCHW) for layer, f_BCHW in features.items()}


def style_loss(
    features: Mapping[str, Tensor],
    target_grams: Mapping[str, Tensor],
    relative: bool = True,
    centres: Mapping[str, Tensor] | None = None,
) -> Tensor:
    """Return the style loss: the distance of Gram matrices G from targets T, averaged over the
    targets' layers and the batch.

    `relative`: uses ‖G − T‖² / ‖T‖² for each layer, so that all layers have the same weight
    whatever the scale of their activations; a picture without activations has loss 1. Otherwise
    uses Gatys' mean squared difference. A target of batch size 1 applies to the whole batch.
    `centres`: [1, C, 1, 1] for each layer, subtracted from the activations. With the style's means
    as centres, also in the targets, a Gram matrix is a covariance plus the distance of the means.
    Without centres, the large means of ReLU activations hide the texture.
    [activation shift: Novak 2016, https://arxiv.org/abs/1605.04603]
    """
    total: Tensor | float = 0.0
    for layer, target in target_grams.items():
        f_BCHW = features[layer] if centres is None else features[layer] - centres[layer]
        gram_BCC = gram(f_BCHW)
        check_shapes(gram_BCC=gram_BCC, target_TCC=target)
        difference = (gram_BCC - target).square()
        if relative:
            total = (
                total
                + (difference.sum((1, 2)) / target.square().sum((1, 2)).clamp(min=1e-12)).mean()
            )
        else:
            total = total + difference.mean()
    return torch.as_tensor(total) / len(target_grams)


def content_loss(
    features: Mapping[str, Tensor], target: Mapping[str, Tensor], relative: bool = True
) -> Tensor:
    """Return the content loss: the mean squared difference of activations, averaged over layers.

    `relative`: divides by the target's variance around its channels' means, so that activations
    equal to the means have loss 1.
    """
    total: Tensor | float = 0.0
    for layer, f_BCHW in target.items():
        check_shapes(features_BCHW=features[layer], target_BCHW=f_BCHW)
        difference = F.mse_loss(features[layer], f_BCHW)
        if relative:
            difference = difference / f_BCHW.var(dim=(2, 3), correction=0).mean().clamp(min=1e-6)
        total = total + difference
    return torch.as_tensor(total) / len(target)


def total_variation(x_BCHW: Tensor) -> Tensor:
    """Return the mean squared difference of neighbouring pixels, vertical plus horizontal."""
    down, across = x_BCHW.diff(dim=2), x_BCHW.diff(dim=3)
    return down.square().mean() + across.square().mean()


def mean_std(f_BCHW: Tensor) -> tuple[Tensor, Tensor]:
    """Return each channel's mean and standard deviation over its pixels, both [B, C, 1, 1].

    The deviation is at least 1e-5. A minimum, unlike an ε added to the variance, leaves larger
    deviations exact; below the minimum, the gradient is 0.
    """
    mean = f_BCHW.mean((2, 3), keepdim=True)
    variance = (f_BCHW - mean).square().mean((2, 3), keepdim=True)
    return mean, variance.clamp(min=1e-10).sqrt()


def adain(content_BCHW: Tensor, style_BCHW: Tensor) -> Tensor:
    """Return the content's activations with the style's mean and deviation in each channel.

    The two sizes may differ. A channel with constant content becomes the style's mean.
    [Huang 2017, adaptive instance normalisation, https://arxiv.org/abs/1703.06868]
    """
    mean, std = mean_std(content_BCHW)
    style_mean, style_std = mean_std(style_BCHW)
    return (content_BCHW - mean) / std * style_std + style_mean


def box_penalty(x_BCHW: Tensor) -> Tensor:
    """Return the mean squared distance of the values from 0..1.

    The penalty has a gradient towards 0..1; clamping would have none.
    """
    return (x_BCHW - x_BCHW.clamp(0, 1)).square().mean()
