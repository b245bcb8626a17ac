"""Losses of the generator and the discriminator of a GAN, and two gradient penalties.

Shapes: B batch, C channels, H height, W width; R and F numbers of real and of fake logits. Logits
are the discriminator's outputs before any sigmoid. In the losses minimax and non-saturating,
D = sigmoid(logit); in the other losses and in the penalties, D = logit. Each function raises
ValueError for shapes that do not fit the names, for example for logits of shape [B, 1].
"""

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from genray.shapes import check_shapes

Loss = Literal["minimax", "non-saturating", "hinge", "wgan-gp", "lsgan"]


def discriminator_loss(
    loss: Loss, real_B: Tensor, fake_B: Tensor, smoothing: float = 0.0
) -> Tensor:
    """Return the discriminator's loss, a scalar, given its logits of real and fake images.

    With `smoothing` s, the label of real images is 1 − s, and the label of fake images stays 0.
    Hinge and WGAN ignore `smoothing`. [Salimans 2016, https://arxiv.org/abs/1606.03498, section
    3.4]
    """
    check_shapes(real_B=real_B, fake_B=fake_B)
    if loss in ("minimax", "non-saturating"):
        # −(1 − s) ln D(x) − s ln(1 − D(x)) − ln(1 − D(G(z)))  [Goodfellow 2014,
        # https://arxiv.org/abs/1406.2661]
        return (F.softplus(-real_B) + smoothing * real_B).mean() + F.softplus(fake_B).mean()
    if loss == "hinge":
        # max(0, 1 − D(x)) + max(0, 1 + D(G(z)))  [Lim & Ye 2017, https://arxiv.org/abs/1705.02894]
        return F.relu(1.0 - real_B).mean() + F.relu(1.0 + fake_B).mean()
    if loss == "lsgan":
        # ½ (D(x) − 1)² + ½ D(G(z))²  [Mao 2017, https://arxiv.org/abs/1611.04076]
        return 0.5 * (real_B - (1.0 - smoothing)).square().mean() + 0.5 * fake_B.square().mean()
    return fake_B.mean() - real_B.mean()  # [Arjovsky 2017, https://arxiv.org/abs/1701.07875]


def generator_loss(loss: Loss, fake_B: Tensor) -> Tensor:
    """Return the generator's loss, a scalar, given the discriminator's logits of fake images."""
    check_shapes(fake_B=fake_B)
    if loss == "minimax":
        return -F.softplus(fake_B).mean()  # ln(1 − D(G(z)))
    if loss == "non-saturating":
        return F.softplus(-fake_B).mean()  # −ln D(G(z))
    if loss == "lsgan":
        return 0.5 * (fake_B - 1.0).square().mean()
    return -fake_B.mean()  # hinge and WGAN


def accuracies(loss: Loss, real_R: Tensor, fake_F: Tensor) -> tuple[Tensor, Tensor]:
    """Return the discriminator's accuracies on real and on fake images, two scalars in 0..1.

    An image counts as real if its logit is above a threshold. For hinge, minimax and non-saturating
    the threshold is 0. For LSGAN it is ½, between the labels 0 and 1. A WGAN critic has no fixed
    threshold, so the midpoint between the mean logits of real and of fake images is used.
    """
    check_shapes(real_R=real_R, fake_F=fake_F)
    threshold: Tensor | float = {"lsgan": 0.5}.get(loss, 0.0)
    if loss == "wgan-gp":
        threshold = 0.5 * (real_R.mean() + fake_F.mean())
    return (real_R > threshold).float().mean(), (fake_F <= threshold).float().mean()


def squared_gradient(discriminator: Callable[[Tensor], Tensor], x_BCHW: Tensor) -> Tensor:
    """Return ‖∇D(x)‖² of each image, [B], differentiable.

    On real images, the mean of ‖∇D(x)‖² times γ/2 is the R1 penalty.
    [Mescheder 2018, https://arxiv.org/abs/1801.04406]
    """
    check_shapes(x_BCHW=x_BCHW)
    x_BCHW = x_BCHW.detach().requires_grad_(True)
    (gradient,) = torch.autograd.grad(discriminator(x_BCHW).sum(), x_BCHW, create_graph=True)
    return gradient.flatten(1).square().sum(1)


def gradient_penalty(
    discriminator: Callable[[Tensor], Tensor], real_BCHW: Tensor, fake_BCHW: Tensor, mix_B: Tensor
) -> Tensor:
    """Return WGAN-GP's penalty, the mean of (‖∇D(x̂)‖ − 1)², a scalar.

    x̂ = mix·x + (1 − mix)·G(z) is an image between a real and a fake one. `mix_B` is drawn from
    U[0, 1).  [Gulrajani 2017, https://arxiv.org/abs/1704.00028]
    """
    check_shapes(real_BCHW=real_BCHW, fake_BCHW=fake_BCHW, mix_B=mix_B)
    mix_B111 = mix_B[:, None, None, None]
    between = mix_B111 * real_BCHW + (1.0 - mix_B111) * fake_BCHW.detach()
    # The square root's slope at 0 is infinite, so a critic whose weights are all 0 would give NaN.
    norm_B = (squared_gradient(discriminator, between) + 1e-12).sqrt()
    return (norm_B - 1.0).square().mean()
