"""Losses of pix2pix and CycleGAN.

Shapes: B batch, C channels, H height, W width; h, w numbers of patches. Images are in −1..1.
"""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor

Loss = Literal["non-saturating", "lsgan"]


def adversarial_loss(loss: Loss, logits_B1hw: Tensor, real: bool) -> Tensor:
    """Return the mean over all patches of a discriminator's loss with the label `real`, a scalar.

    For label 1, non-saturating is −ln σ(l), and lsgan (l − 1)²; for label 0, non-saturating is
    −ln(1 − σ(l)), and lsgan l². The generator minimises the loss of its images with the label True.
    [pix2pix: Isola 2017, https://arxiv.org/abs/1611.07004, equation 1, section 3.3; lsgan: Mao
    2017, https://arxiv.org/abs/1611.04076]
    """
    if loss == "lsgan":
        return (logits_B1hw - float(real)).square().mean()
    return F.softplus(-logits_B1hw if real else logits_B1hw).mean()


def discriminator_loss(loss: Loss, real_B1hw: Tensor, fake_B1hw: Tensor) -> Tensor:
    """Return half of the sum of the losses of real and of fake images, a scalar.

    The half slows the discriminator down relative to the generator. [Isola 2017, section 3.3]
    """
    real = adversarial_loss(loss, real_B1hw, True)
    return 0.5 * (real + adversarial_loss(loss, fake_B1hw, False))


def l1_loss(found_BCHW: Tensor, wanted_BCHW: Tensor) -> Tensor:
    """Return the mean absolute difference, a scalar: pix2pix's distance to the target, and
    CycleGAN's cycle and identity losses. Raises ValueError for images of unlike shapes.
    """
    if found_BCHW.shape != wanted_BCHW.shape:
        raise ValueError(f"images of {tuple(found_BCHW.shape)} and {tuple(wanted_BCHW.shape)}")
    return (found_BCHW - wanted_BCHW).abs().mean()
