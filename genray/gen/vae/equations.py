"""Equations of a VAE: the KL divergence to the prior, Gaussian densities, binarised pixels.

Shapes: B batch, Z latent. Each function raises ValueError if its arguments' shapes differ.
"""

import math

from torch import Tensor

from genray.gen.vae.config import Binarisation
from genray.shapes import check_equal_shapes, check_shapes

LOG_2PI = math.log(2 * math.pi)


def gaussian_kl(mean_BZ: Tensor, log_variance_BZ: Tensor) -> Tensor:
    """Return KL(N(μ, σ²) ‖ N(0, 1)) = ½ (μ² + σ² − 1 − ln σ²) of each latent, nats, [B, Z].

    [Kingma 2014, https://arxiv.org/abs/1312.6114, appendix B]
    """
    check_shapes(mean_BZ=mean_BZ, log_variance_BZ=log_variance_BZ)
    return 0.5 * (mean_BZ.square() + log_variance_BZ.exp() - 1.0 - log_variance_BZ)


def gaussian_log_density(x: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """Return ln N(x; μ, σ²) of each element, nats. The three tensors have the same shape."""
    check_equal_shapes(x=x, mean=mean, log_variance=log_variance)
    return -0.5 * (LOG_2PI + log_variance + (x - mean).square() * (-log_variance).exp())


def binarised(x: Tensor, how: Binarisation, chance: Tensor | None = None) -> Tensor:
    """Turn pixels in [0, 1] into 0 or 1.

    Args:
        x: the pixels, float.
        how: "none" returns x. "threshold" gives 1 for pixels above 1/2. "fixed" and "dynamic" give
            1 with the pixel's value as probability.
        chance: numbers from U[0, 1) in x's shape, for "fixed" and "dynamic"; None: use 1/2 instead.
    """
    if how == "none":
        return x
    if chance is not None:
        check_equal_shapes(x=x, chance=chance)
    return (x > (0.5 if how == "threshold" or chance is None else chance)).to(x.dtype)
