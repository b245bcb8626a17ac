"""The players' losses, each a line of PyTorch, and the two gradient penalties.

Shapes: B batch. Logits are the discriminator's output before any sigmoid; D = sigmoid(logit)
where a loss speaks of D.
"""

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Loss = Literal["minimax", "non-saturating", "hinge", "wgan-gp", "lsgan"]


def discriminator_loss(
    loss: Loss, real_B: Tensor, fake_B: Tensor, smoothing: float = 0.0
) -> Tensor:
    """What the discriminator minimises; a scalar.

    `smoothing` s: the real images' label is 1 − s, the fakes' stays 0 (one-sided). [Salimans 2016,
    https://arxiv.org/abs/1606.03498, section 3.4] It has no meaning for hinge and WGAN.
    """
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
    """What the generator minimises, given the discriminator's logits of its images; a scalar."""
    if loss == "minimax":
        return -F.softplus(fake_B).mean()  # ln(1 − D(G(z)))
    if loss == "non-saturating":
        return F.softplus(-fake_B).mean()  # −ln D(G(z))
    if loss == "lsgan":
        return 0.5 * (fake_B - 1.0).square().mean()
    return -fake_B.mean()  # hinge and WGAN


def accuracies(loss: Loss, real_B: Tensor, fake_B: Tensor) -> tuple[Tensor, Tensor]:
    """Shares of the real and of the fake images that the discriminator tells rightly; scalars in
    0..1.

    It says "real" above D = ½, which is logit 0; LSGAN's labels are 0 and 1, so ½ of its raw
    output. A WGAN critic has no zero of its own: the middle between its two means stands for it.
    """
    threshold: Tensor | float = {"lsgan": 0.5}.get(loss, 0.0)
    if loss == "wgan-gp":
        threshold = 0.5 * (real_B.mean() + fake_B.mean())
    return (real_B > threshold).float().mean(), (fake_B <= threshold).float().mean()


def squared_gradient(discriminator: Callable[[Tensor], Tensor], x_BCHW: Tensor) -> Tensor:
    """‖∇D(x)‖² of each image, [B], itself differentiable; times γ/2 it is R1 on real images.

    [Mescheder 2018, https://arxiv.org/abs/1801.04406]
    """
    x_BCHW = x_BCHW.detach().requires_grad_(True)
    (gradient,) = torch.autograd.grad(discriminator(x_BCHW).sum(), x_BCHW, create_graph=True)
    return gradient.flatten(1).square().sum(1)


def gradient_penalty(
    discriminator: Callable[[Tensor], Tensor], real_BCHW: Tensor, fake_BCHW: Tensor, mix_B: Tensor
) -> Tensor:
    """(‖∇D(x̂)‖ − 1)² between each real and a fake image, x̂ = mix·x + (1 − mix)·G(z); its mean,
    a scalar.

    `mix_B`: U[0, 1).  [Gulrajani 2017, https://arxiv.org/abs/1704.00028]
    """
    mix_B111 = mix_B[:, None, None, None]
    between = mix_B111 * real_BCHW + (1.0 - mix_B111) * fake_BCHW.detach()
    # The square root's slope at 0 is infinite: a critic of all zeros would make NaN.
    norm_B = (squared_gradient(discriminator, between) + 1e-12).sqrt()
    return (norm_B - 1.0).square().mean()
