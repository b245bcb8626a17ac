"""Losses of the generator and the discriminator, and their penalties, against their formulas."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from genray.gen.gan import losses as gan_losses

REAL, FAKE = torch.tensor([2.0, -0.5, 0.3]), torch.tensor([-1.5, 0.4, 1.2])


def sigmoid(x: Tensor) -> Tensor:
    return 1 / (1 + torch.exp(-x))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_gan_losses_equal_their_formulas(smoothing: float):
    d_real, d_fake = sigmoid(REAL), sigmoid(FAKE)
    entropy = -(1 - smoothing) * d_real.log() - smoothing * (1 - d_real).log()
    expected = {
        "minimax": (entropy.mean() - (1 - d_fake).log().mean(), (1 - d_fake).log().mean()),
        "non-saturating": (entropy.mean() - (1 - d_fake).log().mean(), -d_fake.log().mean()),
        "lsgan": (
            ((REAL - 1 + smoothing) ** 2).mean() / 2 + (FAKE**2).mean() / 2,
            ((FAKE - 1) ** 2).mean() / 2,
        ),
    }
    if not smoothing:
        expected["hinge"] = (
            (1 - REAL).clamp(min=0).mean() + (1 + FAKE).clamp(min=0).mean(),
            -FAKE.mean(),
        )
        expected["wgan-gp"] = (FAKE.mean() - REAL.mean(), -FAKE.mean())
    for loss, (discriminator, generator) in expected.items():
        found = gan_losses.discriminator_loss(loss, REAL, FAKE, smoothing)  # type: ignore[arg-type]
        torch.testing.assert_close(found, discriminator, msg=loss)
        torch.testing.assert_close(gan_losses.generator_loss(loss, FAKE), generator, msg=loss)  # type: ignore[arg-type]


def test_label_smoothing_equals_cross_entropy_with_label_0_9():
    theirs = F.binary_cross_entropy_with_logits(REAL, torch.full((3,), 0.9))
    theirs += F.binary_cross_entropy_with_logits(FAKE, torch.zeros(3))
    torch.testing.assert_close(
        gan_losses.discriminator_loss("non-saturating", REAL, FAKE, 0.1), theirs
    )


def test_discriminator_loss_of_zero_logits_is_2_ln_2():
    nothing = torch.zeros(5)
    assert gan_losses.discriminator_loss("minimax", nothing, nothing).item() == pytest.approx(
        2 * math.log(2)
    )


def test_gan_accuracies_by_hand():
    for loss, expected in {
        "minimax": (2 / 3, 1 / 3),
        "hinge": (2 / 3, 1 / 3),
        "lsgan": (1 / 3, 2 / 3),
    }.items():
        assert [a.item() for a in gan_losses.accuracies(loss, REAL, FAKE)] == pytest.approx(
            expected
        ), loss  # type: ignore[arg-type]
    shifted = gan_losses.accuracies("wgan-gp", REAL + 7, FAKE + 7)
    # The threshold is the midpoint of both means, so adding 7 changes nothing.
    assert [a.item() for a in shifted] == pytest.approx([1 / 3, 1 / 3])


def test_gradient_penalties_of_a_linear_discriminator_by_hand():
    """D(x) = w·x has the gradient w everywhere."""
    w = torch.tensor([0.6, -1.2, 0.4, 0.0], requires_grad=True)
    x, y = torch.randn(2, 5, 1, 2, 2).unbind()

    def discriminator(images: Tensor) -> Tensor:
        return images.flatten(1) @ w

    norm = (0.36 + 1.44 + 0.16) ** 0.5
    torch.testing.assert_close(
        gan_losses.squared_gradient(discriminator, x), torch.full((5,), norm**2)
    )
    penalty = gan_losses.gradient_penalty(discriminator, x, y, torch.rand(5))
    assert penalty.item() == pytest.approx((norm - 1) ** 2, rel=1e-5)
    penalty.backward()
    assert w.grad is not None
    torch.testing.assert_close(w.grad, (2 * (norm - 1) / norm * w).detach())


def test_gradient_penalty_uses_images_between_real_and_fake():
    seen = []

    def discriminator(images: Tensor) -> Tensor:
        seen.append(images)
        return images.flatten(1).sum(1)

    real, fake = torch.zeros(2, 1, 1, 1), torch.ones(2, 1, 1, 1)
    gan_losses.gradient_penalty(discriminator, real, fake, torch.tensor([0.25, 1.0]))
    assert seen[0].flatten().tolist() == [0.75, 0.0]


IMAGES = torch.ones(3, 1, 2, 2)


@pytest.mark.parametrize("loss", ["minimax", "non-saturating", "hinge", "wgan-gp", "lsgan"])
@pytest.mark.parametrize("shape", [(3, 1), (1,), ()])
def test_gan_losses_refuse_logits_that_are_not_one_number_for_each_image(loss, shape):
    wrong = torch.zeros(shape)
    for call in (
        lambda: gan_losses.discriminator_loss(loss, REAL, wrong),
        lambda: gan_losses.discriminator_loss(loss, wrong, FAKE),
    ):
        with pytest.raises(ValueError, match="its shape does not fit its name"):
            call()
    if shape != (1,):  # one logit is a valid batch for these functions
        for call in (
            lambda: gan_losses.generator_loss(loss, wrong),
            lambda: gan_losses.accuracies(loss, REAL, wrong),
            lambda: gan_losses.accuracies(loss, wrong, FAKE),
        ):
            with pytest.raises(ValueError, match="its shape does not fit its name"):
                call()


@pytest.mark.parametrize(
    ("real", "fake", "mix"),
    [
        (IMAGES, IMAGES, torch.rand(3, 1)),
        (IMAGES, IMAGES, torch.rand(1)),
        (IMAGES, IMAGES[:1], torch.rand(3)),
        (IMAGES[0], IMAGES, torch.rand(3)),
    ],
)
def test_gradient_penalty_refuses_shapes_that_would_broadcast(real, fake, mix):
    with pytest.raises(ValueError, match="its shape does not fit its name"):
        gan_losses.gradient_penalty(lambda images: images.flatten(1).sum(1), real, fake, mix)


def test_squared_gradient_refuses_flat_images():
    with pytest.raises(ValueError, match="x_BCHW: its shape does not fit its name"):
        gan_losses.squared_gradient(lambda x: x.square().sum(1), torch.ones(3, 4))
