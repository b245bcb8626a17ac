"""Losses of autoencoders: reconstruction errors, and penalties on the code.

Shapes: B batch, Z dimension of the code, D values of a row.
"""

import torch
from torch import Tensor
from torch.nn import functional

from genray.gen.training.world import ALONE, World
from genray.shapes import check_equal_shapes, check_shapes


def reconstruction_loss(kind: str, rebuilt: Tensor, target: Tensor) -> Tensor:
    """Return the reconstruction loss, a scalar.

    mse and bce (in nats) are means over rows and values; cosine is the mean of 1 − cos over rows.
    `rebuilt` and `target` are [B, …]; raises ValueError unless their shapes are equal.
    """
    check_equal_shapes(rebuilt=rebuilt, target=target)
    if kind == "cosine":
        return (
            1 - functional.cosine_similarity(rebuilt.flatten(1), target.flatten(1), dim=1)
        ).mean()
    if kind == "bce":
        return functional.binary_cross_entropy(rebuilt, target)
    return functional.mse_loss(rebuilt, target)


def sparsity(h: Tensor, activation: str, target: float) -> Tensor:
    """Return the sparsity penalty of the activations h [B, …], a scalar.

    For sigmoid units, the penalty is the sum over units of KL(target ‖ mean activity) [Ng 2011,
    CS294A notes], where the mean is over the worker's own rows. For other units, the penalty is the
    mean of |h|.
    """
    if activation != "sigmoid":
        return h.abs().mean()
    mean = h.flatten(1).mean(0).clamp(1e-6, 1 - 1e-6)
    return (target * (target / mean).log() + (1 - target) * ((1 - target) / (1 - mean)).log()).sum()


def contraction(h: Tensor, x: Tensor, world: World = ALONE) -> Tensor:
    """Return the contractive penalty: the mean over rows of ‖J‖²_F with the Jacobian J = ∂h/∂x.
    [Rifai 2011, https://icml.cc/2011/papers/455_icmlpaper.pdf]

    `h` and `x` are [B, …]. Raises ValueError unless they have equally many rows.

    Departure: the penalty is estimated without bias as ‖vᵀJ‖², with one v ~ N(0, I) for each row.
    The estimate costs one backward pass for any size of the code.
    """
    check_shapes(h_BZ=h.flatten(1), x_BD=x.flatten(1))
    v = world.normal(len(h), *h.shape[1:], device=h.device)
    (product,) = torch.autograd.grad((h.float() * v).sum(), x, create_graph=True)
    return product.flatten(1).square().sum(1).mean()
