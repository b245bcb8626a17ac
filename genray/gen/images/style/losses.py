"""What styles and contents are compared by: statistics of activations, and the losses made of them.

Every way of style transfer here, by optimisation or by a trained network, minimises these.
Shapes: B batch, C channels, H height, W width, N pixels. Pictures are float32 in 0..1.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor


def gram(f_BCHW: Tensor) -> Tensor:
    """Inner products of the channels, divided by C·H·W as Johnson does: [B, C, C]; comparable
    between sizes.

    [Johnson 2016, https://arxiv.org/abs/1603.08155]
    """
    f_BCN = f_BCHW.flatten(2)
    return f_BCN @ f_BCN.transpose(1, 2) / (f_BCN.shape[1] * f_BCN.shape[2])


def grams(features: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The Gram matrix of each layer."""
    return {layer: gram(f_BCHW) for layer, f_BCHW in features.items()}


def style_loss(
    features: Mapping[str, Tensor],
    target_grams: Mapping[str, Tensor],
    relative: bool = True,
    centres: Mapping[str, Tensor] | None = None,
) -> Tensor:
    """How far the Gram matrices are from the targets', averaged over the targets' layers and the
    batch.

    `relative`: each layer's ‖G − T‖² / ‖T‖², so that every layer counts alike whatever the scale
    of its activations and an image without any activation costs 1; else Gatys' mean squared
    difference. A target of batch 1 serves all. `centres` [1, C, 1, 1] are taken off the
    activations first: with the style's own means (and targets made likewise) a Gram matrix is a
    covariance plus the means' distance, and texture is not drowned by the means that ReLUs
    leave. [the activation shift of Novak 2016, https://arxiv.org/abs/1605.04603]
    """
    total: Tensor | float = 0.0
    for layer, target in target_grams.items():
        f_BCHW = features[layer] if centres is None else features[layer] - centres[layer]
        difference = (gram(f_BCHW) - target).square()
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
    """Mean squared difference of the activations, averaged over the target's layers.

    `relative`: in units of the target's variance around its channels' means, so that 1 is what
    the flat mean would cost.
    """
    total: Tensor | float = 0.0
    for layer, f_BCHW in target.items():
        difference = F.mse_loss(features[layer], f_BCHW)
        if relative:
            difference = difference / f_BCHW.var(dim=(2, 3), correction=0).mean().clamp(min=1e-6)
        total = total + difference
    return torch.as_tensor(total) / len(target)


def total_variation(x_BCHW: Tensor) -> Tensor:
    """Mean squared difference of neighbouring pixels, down plus across."""
    down, across = x_BCHW.diff(dim=2), x_BCHW.diff(dim=3)
    return down.square().mean() + across.square().mean()


def mean_std(f_BCHW: Tensor) -> tuple[Tensor, Tensor]:
    """Each channel's mean and standard deviation over its pixels, both [B, C, 1, 1]; never less
    than 1e-5 of the latter.

    The floor, rather than an ε added to the variance, leaves the statistics exact; below it
    there is no gradient.
    """
    mean = f_BCHW.mean((2, 3), keepdim=True)
    variance = (f_BCHW - mean).square().mean((2, 3), keepdim=True)
    return mean, variance.clamp(min=1e-10).sqrt()


def adain(content_BCHW: Tensor, style_BCHW: Tensor) -> Tensor:
    """The content's activations with the style's mean and standard deviation in each channel;
    sizes may differ.

    A channel in which the content is flat gets the style's mean alone.
    [Huang 2017, adaptive instance normalisation, https://arxiv.org/abs/1703.06868]
    """
    mean, std = mean_std(content_BCHW)
    style_mean, style_std = mean_std(style_BCHW)
    return (content_BCHW - mean) / std * style_std + style_mean


def box_penalty(x_BCHW: Tensor) -> Tensor:
    """Mean squared distance of the values from 0..1: an optimiser is steered back, where
    clamping would stop it.
    """
    return (x_BCHW - x_BCHW.clamp(0, 1)).square().mean()
