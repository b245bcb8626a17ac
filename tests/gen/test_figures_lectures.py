"""The numbers of the figures `surface`, `batches` and `codes`."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from genray.gen.figures import batches, codes, drawing
from genray.gen.figures.surface import RATES, STARTS, STEPS, WELLS, surface, surface_paths
from genray.gen.training.optimizers import OPTIMIZERS
from genray.gen.training.randomness import fixed_randomness

SADDLE = 0.15779230
PLATEAU, RIDGE, LOCAL = range(3)  # the order of STARTS


def derivatives(x: float, y: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the gradient and the eigenvalues of the Hessian of the surface."""
    point = torch.tensor([x, y], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(surface(point), point)
    hessian = torch.autograd.functional.hessian(surface, point.detach())
    return gradient.numpy(), torch.linalg.eigvalsh(hessian).numpy()


def test_surface_by_hand():
    x, y = 0.3, -0.4
    expected = -1.0 * np.exp(-(1.2**2 + 0.16) / 0.7) - 0.6 * np.exp(-(1.3**2 + 0.16) / 0.7)
    assert surface(torch.tensor([x, y], dtype=torch.float64)).item() == pytest.approx(expected)


def test_surface_has_two_minima_a_saddle_and_a_plateau():
    # The other well moves each minimum by less than 1e-3.
    for _, at in WELLS:
        gradient, curvature = derivatives(at, 0.0)
        assert np.abs(gradient).max() < 2e-3 and curvature.min() > 1
    gradient, curvature = derivatives(SADDLE, 0.0)
    assert np.abs(gradient).max() < 1e-7 and curvature[0] < -0.2 and curvature[1] > 0.2
    # The start on the plateau has 1% of the gradient of the start beside the local minimum.
    slopes = {name: np.linalg.norm(derivatives(*start)[0]) for name, start in STARTS.items()}
    assert slopes["plateau"] < 0.01 * slopes["local minimum"]


def test_surface_paths_of_sgd_wait_at_each_difficulty():
    paths = surface_paths("sgd", RATES["sgd"])
    assert paths.shape == (3, STEPS + 1, 2)
    assert np.abs(paths[PLATEAU, -1] - STARTS["plateau"]).max() < 0.1  # it hardly moves
    near = np.abs(paths[RIDGE] - [SADDLE, 0]).max(1) < 0.15
    assert near.sum() >= 5  # it visits the saddle, and then leaves for the deeper well
    np.testing.assert_allclose(paths[RIDGE, -1], [1.5, 0], atol=1e-2)
    np.testing.assert_allclose(paths[LOCAL, -1], [-1, 0], atol=1e-2)  # it stays


def test_surface_paths_of_adam_cross_the_plateau_and_miss_the_saddle():
    paths = surface_paths("adam", RATES["adam"], steps=80)
    np.testing.assert_allclose(paths[PLATEAU, -1], [1.5, 0], atol=0.1)
    assert np.abs(paths[RIDGE] - [SADDLE, 0]).max(1).min() > 0.3
    np.testing.assert_allclose(paths[LOCAL, -1], [-1, 0], atol=0.1)


def test_surface_has_a_rate_for_every_optimizer():
    assert set(RATES) == set(OPTIMIZERS)
    for name, rate in RATES.items():
        paths = surface_paths(name, rate, steps=3)
        assert np.isfinite(paths).all() and not np.array_equal(paths[:, 0], paths[:, -1])


def test_batch_curve_of_all_rows_is_gradient_descent():
    losses, seconds = batches.batch_curve(1297, rate=0.3, epochs=2)
    assert losses.shape == seconds.shape == (3,) and (np.diff(seconds) > 0).all()
    images, labels = drawing.digits()
    with fixed_randomness([0, 11]):
        network = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    expected = []
    for _ in range(3):
        loss = functional.cross_entropy(network(images), labels)
        expected.append(loss.item())
        network.zero_grad()
        loss.backward()
        with torch.no_grad():
            for weight in network.parameters():
                assert weight.grad is not None
                weight -= 0.3 * weight.grad
    np.testing.assert_allclose(losses, expected, rtol=1e-5)


def test_batch_curve_of_small_batches_is_lower_by_epoch_and_slower():
    """After one epoch, 40 updates have learnt more than 5, and took more CPU time."""
    small, large = batches.batch_curve(32, 0.3, 1), batches.batch_curve(256, 0.3, 1)
    assert small[0][0] == large[0][0] and small[0][1] < large[0][1] - 0.3
    assert small[1][1] > large[1][1]


def test_reconstructions_of_longer_codes_have_a_lower_error():
    (short, images), (long, _) = (
        codes.reconstructions(arm, epochs=5) for arm in ("2 numbers", "32 numbers")
    )
    assert images.shape == (codes.SHOWN + codes.NOISE, 1, 8, 8)
    assert 0 < long < 0.8 * short
    assert (codes.reconstructions("2 numbers", epochs=1)[1] != images).any()


def test_best_curves_take_the_best_rate_of_three_seeds(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(batches, "EPOCHS", {256: 1})
    monkeypatch.setattr(batches, "RATES", (1e-4, 0.3, 1e-3))
    rate, losses, seconds = batches.best_curves(256)
    assert rate == 0.3 and losses.shape == (3, 2) and seconds.shape == (2,)
    for seed in range(3):
        assert np.array_equal(losses[seed], batches.batch_curve(256, 0.3, 1, seed)[0])
    assert len(set(losses[:, 1])) == 3


def test_reconstructions_of_a_code_larger_than_the_image_copy_noise_unless_regularised():
    noise = codes.shown_images()[codes.SHOWN :]
    errors, copied = {}, {}
    for arm in ("512, no penalty", "512, noise .5"):
        errors[arm], images = codes.reconstructions(arm, epochs=20)
        copied[arm] = (images[codes.SHOWN :] - noise).square().mean().item()
    # The error of digits is low because the network copies; it learns to copy noise as well.
    assert errors["512, no penalty"] < 0.5 * errors["512, noise .5"]
    assert copied["512, no penalty"] < 0.95 * copied["512, noise .5"]
