"""Corruption of an autoencoder's input, its losses and penalties, by hand and by their effect."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from genray.gen.autoencoder.corruption import corrupt, median_filter
from genray.gen.autoencoder.losses import contraction, reconstruction_loss, sparsity
from genray.gen.autoencoder.task import AEConfig, AETask
from genray.gen.data.config import DataConfig
from genray.gen.data.load import load_data
from genray.gen.data.types import Data
from genray.gen.training.fit import Fit
from tests.helpers.gen import small_ae, trained


@pytest.fixture(scope="module")
def digits() -> Data:
    return load_data(DataConfig())


def test_corrupt_has_the_stated_strength():
    torch.manual_seed(0)
    x = torch.full((200, 1, 8, 8), 0.5)
    noise = corrupt(x, "gaussian", 0.2) - x
    assert noise.std() == pytest.approx(0.2, rel=0.05) and abs(noise.mean()) < 0.01
    masked = corrupt(x, "masking", 0.3, low=-1.0)
    assert set(masked.unique().tolist()) == {-1.0, 0.5} and (
        masked == -1
    ).float().mean() == pytest.approx(0.3, abs=0.02)
    salted = corrupt(x, "salt-pepper", 0.4)
    for value, share in ((0.0, 0.2), (1.0, 0.2), (0.5, 0.6)):
        assert (salted == value).float().mean() == pytest.approx(share, abs=0.02)
    assert corrupt(x, "none", 0.3) is x and corrupt(x, "gaussian", 0.0) is x


def test_warp_moves_the_digit_and_keeps_the_background(digits):
    torch.manual_seed(0)
    x = digits.test.all()
    warped = corrupt(x, "warp", 0.3)
    change = (warped - x).square().mean()
    assert 0.01 < change < 0.1
    assert warped.sum() == pytest.approx(float(x.sum()), rel=0.1)
    low = corrupt(x * 2 - 1, "warp", 0.3, low=-1.0)
    assert low.min() >= -1 - 1e-5
    assert (low[:, :, 0, 0] + 1).abs().median() < 1e-5, "the corners of a digit are background"
    assert (corrupt(x, "warp", 1e-4) - x).abs().max() < 1e-2


def test_median_filter_equals_numpy():
    x = torch.rand(2, 3, 5, 6)
    padded = np.pad(x.numpy(), ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge")
    expected = np.zeros(x.shape, np.float32)
    for row in range(5):
        for column in range(6):
            expected[:, :, row, column] = np.median(
                padded[:, :, row : row + 3, column : column + 3], axis=(2, 3)
            )
    assert np.array_equal(median_filter(x).numpy(), expected)


def test_reconstruction_losses_by_hand():
    rebuilt, target = torch.tensor([[0.8, 0.2]]), torch.tensor([[1.0, 0.0]])
    assert reconstruction_loss("mse", rebuilt, target).item() == pytest.approx(0.04)
    assert reconstruction_loss("bce", rebuilt, target).item() == pytest.approx(-math.log(0.8))
    assert reconstruction_loss("cosine", rebuilt, target).item() == pytest.approx(
        1 - 0.8 / math.sqrt(0.68)
    )


@pytest.mark.parametrize("kind", ["mse", "bce", "cosine"])
@pytest.mark.parametrize("target", [(4, 1), (1, 4, 1), (4,), (4, 2, 1), (4, 4)])
@pytest.mark.filterwarnings("ignore:Using a target size")  # PyTorch's warning of a broadcast
def test_reconstruction_loss_refuses_shapes_that_would_broadcast(kind: str, target: tuple):
    with pytest.raises(ValueError, match="rebuilt and target need equal shapes"):
        reconstruction_loss(kind, torch.full((4, 1, 1), 0.5), torch.full(target, 0.5))


def test_contraction_refuses_codes_of_other_rows():
    x = torch.ones(4, 3, requires_grad=True)
    with pytest.raises(ValueError, match="its shape does not fit its name"):
        contraction(x[:2].square(), x)


def test_sparsity_by_hand():
    h = torch.tensor([[0.2, 0.5], [0.4, 0.5]])
    expected = sum(0.1 * math.log(0.1 / m) + 0.9 * math.log(0.9 / (1 - m)) for m in (0.3, 0.5))
    assert sparsity(h, "sigmoid", 0.1).item() == pytest.approx(expected, rel=1e-5)
    assert sparsity(-h, "linear", 0.1).item() == pytest.approx(0.4)


def test_contraction_is_the_mean_squared_norm_of_the_jacobian():
    torch.manual_seed(0)
    weight = torch.randn(3, 6)
    x = torch.randn(6).expand(20_000, 6).clone().requires_grad_()
    jacobian = torch.autograd.functional.jacobian(
        lambda row: torch.tanh(weight @ row), x[0].detach()
    )
    found = contraction(torch.tanh(x @ weight.t()), x)
    assert found.item() == pytest.approx(jacobian.square().sum().item(), rel=0.05)


@pytest.mark.parametrize(
    "penalty", [{"sparsity": 0.3, "code_activation": "sigmoid"}, {"contractive": 0.02}]
)
def test_penalty_lowers_the_penalised_figure(penalty, digits):
    def size(config: AEConfig) -> float:
        fit = trained(config, digits)
        x = digits.test.all().requires_grad_()
        h = fit.task.model.encode_layers(x)[0]
        if "sparsity" in penalty:
            return sparsity(h, "sigmoid", 0.05).item()
        torch.manual_seed(0)
        return contraction(h, x).item()

    without = {**penalty, "sparsity": 0.0, "contractive": 0.0}
    assert size(small_ae(epochs=4, **penalty)) < 0.8 * size(small_ae(epochs=4, **without))


def test_autoencoder_step_does_not_augment_rows_again(digits, monkeypatch):
    config = small_ae()
    data = replace(digits, train=replace(digits.train, augment=("shift",)))
    task = AETask(config)
    fit = Fit(task, data, config.fit)
    seen, loss = [], task._loss
    monkeypatch.setattr(
        task, "_loss", lambda name, x, label: seen.append(x) or loss(name, x, label)
    )
    batch = fit._batches.batch(0)
    assert not torch.equal(batch.x, data.train.values[batch.rows])
    task.step(batch)
    assert torch.equal(seen[0], batch.x)
