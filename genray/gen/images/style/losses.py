"""Losses of style transfer: style, content, total variation, values outside 0..1.

Optimisation minimises them over pixels, and training over the weights of a network.
Shapes: B batch, C channels, H height, W width, T batch of targets. Pictures are float32 in 0..1.
The style loss and the content loss raise ValueError for activations and targets whose shapes do not
match.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from genray.gen.images.style.gram import gram
from genray.shapes import check_shapes


def style_loss(
    features: Mapping[str, Tensor],
    target_grams: Mapping[str, Tensor],
    relative: bool = True,
    centres: Mapping[str, Tensor] | None = None,
) -> Tensor:
    """Return the style loss: the distance of Gram matrices G from targets T, averaged over the
    targets' layers and the batch.

    `relative`: if True, the distance is ‖G − T‖² / ‖T‖² for each layer, so that all layers have the
    same weight whatever the scale of their activations; a picture without activations has loss 1.
    If False, the distance is Gatys' mean squared difference. A target of batch size 1 applies to
    the whole batch.
    `centres`: [1, C, 1, 1] for each layer, subtracted from the activations. The targets must have
    been computed with the same centres. If the centres are the style's means, a target is the
    style's covariance, and G is a covariance plus the product of the differences of the means.
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

    `relative`: if True, the difference is divided by the target's variance around the means of its
    channels, so that activations equal to these means have loss 1.
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


def box_penalty(x_BCHW: Tensor) -> Tensor:
    """Return the mean squared distance of the values from 0..1.

    The penalty has a gradient towards 0..1, whereas clamped values would have no gradient.
    """
    return (x_BCHW - x_BCHW.clamp(0, 1)).square().mean()
