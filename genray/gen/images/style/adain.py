"""Gives activations the statistics of a style: adaptive instance normalisation (AdaIN).

Shapes: B batch, C channels, H height, W width.
"""

import torch
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


def match_covariance(content_BCHW: Tensor, style_BCHW: Tensor) -> Tensor:
    """Return the content with the style's mean and covariance of channels.

    Of all linear maps with this result, the map that changes the values least is used. The sizes of
    content and style may differ. 1e-4 is added to the variances.
    [Pitié 2007, The linear Monge-Kantorovitch colour mapping, https://doi.org/10.1049/cp:20070055;
    for activations: Li 2019, A closed-form solution to universal style transfer,
    https://arxiv.org/abs/1906.00668]
    """
    content_BCN, style_BCN = content_BCHW.flatten(2), style_BCHW.flatten(2)
    mean_BC1, style_mean_BC1 = content_BCN.mean(2, keepdim=True), style_BCN.mean(2, keepdim=True)
    centred_BCN = content_BCN - mean_BC1
    map_BCC = transport(_covariance(centred_BCN), _covariance(style_BCN - style_mean_BC1))
    return (map_BCC @ centred_BCN + style_mean_BC1).view_as(content_BCHW)


def transport(own_BCC: Tensor, wanted_BCC: Tensor) -> Tensor:
    """Return the symmetric maps [B, C, C] from one positive definite covariance to another."""
    values_BC, vectors_BCC = torch.linalg.eigh(own_BCC)
    root_BCC = _power(values_BC, vectors_BCC, 0.5)
    inverse_BCC = _power(values_BC, vectors_BCC, -0.5)
    values_BC, vectors_BCC = torch.linalg.eigh(root_BCC @ wanted_BCC @ root_BCC)
    middle_BCC = _power(values_BC, vectors_BCC, 0.5)
    return inverse_BCC @ middle_BCC @ inverse_BCC


def add_ridge(covariance_BCC: Tensor) -> Tensor:
    """Return the covariances plus 1e-4 on the diagonal, [B, C, C]."""
    return covariance_BCC + 1e-4 * torch.eye(covariance_BCC.shape[-1]).to(covariance_BCC)


def _covariance(centred_BCN: Tensor) -> Tensor:
    """Return the covariances of the channels, plus 1e-4 on the diagonal, [B, C, C]."""
    return add_ridge(centred_BCN @ centred_BCN.transpose(1, 2) / centred_BCN.shape[2])


def _power(values_BC: Tensor, vectors_BCC: Tensor, exponent: float) -> Tensor:
    """Return powers of symmetric matrices with these eigenvalues and eigenvectors, [B, C, C]."""
    scaled_BCC = vectors_BCC * values_BC.clamp(min=1e-12).pow(exponent)[..., None, :]
    return scaled_BCC @ vectors_BCC.transpose(-1, -2)
