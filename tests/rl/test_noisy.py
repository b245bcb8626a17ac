"""Tests noisy layers, spectral norm and pooling."""

import numpy as np
import pytest
import torch
from torch import nn

from genray.errors import ConfigError
from genray.rl.augment import generator_of
from genray.rl.encoders import Residual
from genray.rl.learner import Learner, LearnerConfig
from genray.rl.networks import NetworkConfig, QNetwork
from genray.rl.noisy import NoisyLinear, draw_noise
from tests.helpers.batches import ACTIONS, SIDE, random_batch


def test_noisy_layer_has_factorised_noise():
    layer, x = NoisyLinear(3, 2, sigma=0.5), torch.randn(4, 3)
    normal = torch.tensor([4.0, -9.0, 0.25, 1.0, -4.0])
    layer.set_noise(normal)
    f = [2.0, -3.0, 0.5, 1.0, -2.0]  # sign(x) √|x|; the first three belong to the inputs
    spread = 0.5 / np.sqrt(3)
    with torch.no_grad():
        weight = layer.weight + spread * torch.tensor(np.outer(f[3:], f[:3]), dtype=torch.float32)
        bias = layer.bias + spread * torch.tensor(f[3:])
        torch.testing.assert_close(layer(x), x @ weight.T + bias)
        layer.eval()
        torch.testing.assert_close(layer(x), x @ layer.weight.T + layer.bias)
    assert set(layer.state_dict()) == {"weight", "bias", "sigma_weight", "sigma_bias"}


def test_noisy_spreads_get_gradients():
    layer = NoisyLinear(3, 2, sigma=0.5)
    draw_noise(layer, generator_of(1))
    layer(torch.ones(1, 3)).sum().backward()
    noise = torch.outer(layer.noise_O, layer.noise_I)
    torch.testing.assert_close(layer.sigma_weight.grad, noise)
    torch.testing.assert_close(layer.sigma_bias.grad, layer.noise_O)


def test_noisy_network_explores_in_training_and_not_in_evaluation():
    shape = NetworkConfig(channels=(4, 4, 4), hidden=8, noisy=0.5)
    network = QNetwork(shape, 3, 1, (36, 36))
    assert sum(isinstance(module, NoisyLinear) for module in network.modules()) == 4
    frames = torch.randint(0, 256, (2, 1, 36, 36), dtype=torch.uint8)
    seen = []
    for number in (1, 2, 1):
        draw_noise(network, generator_of(number))
        seen.append(network(frames))
    assert torch.equal(seen[0], seen[2]) and not torch.equal(seen[0], seen[1])
    network.eval()
    quiet = network(frames)
    draw_noise(network, generator_of(3))
    assert torch.equal(network(frames), quiet)


def test_learner_draws_noise_for_both_networks_in_every_update():
    shape = NetworkConfig(channels=(4, 4, 4), hidden=8, noisy=0.5)
    online, target = (QNetwork(shape, ACTIONS, 1, (SIDE, SIDE)) for _ in range(2))
    learner = Learner(LearnerConfig(), online, target, seed=7)
    seen = []
    for number in range(2):
        learner.update(random_batch(8), 8, 0.4)
        random = generator_of(7, 3, number, 0)
        for network in (online, target):
            for layer in (each for each in network.modules() if isinstance(each, NoisyLinear)):
                normal = torch.randn(layer.in_features + layer.out_features, generator=random)
                f = normal.sign() * normal.abs().sqrt()
                assert torch.equal(torch.cat([layer.noise_I, layer.noise_O]), f)
                seen.append(f[0].item())
    assert len(set(seen)) == 16  # 2 updates, 2 networks, 4 layers: all different


def test_spectral_norm_against_an_svd():
    shape = NetworkConfig(encoder="impala", impala_width=0.25, hidden=8, spectral_norm=True)
    network = QNetwork(shape, 3, 1, (36, 36))
    residuals = [module for module in network.modules() if isinstance(module, Residual)]
    assert len(residuals) == 6
    before = network.convolutions[0][0].weight.clone()  # type: ignore[index]
    frames = torch.randint(0, 256, (1, 1, 36, 36), dtype=torch.uint8)
    with torch.no_grad():
        for _ in range(200):  # one power iteration each
            network(frames)
        network.eval()
        for residual in residuals:
            for convolution in (residual.first, residual.second):
                largest = np.linalg.svd(convolution.weight.flatten(1).numpy())[1][0]
                assert largest == pytest.approx(1.0, abs=0.01)
        # Other convolutions keep their weights.
        assert torch.equal(network.convolutions[0][0].weight, before)  # type: ignore[index]
    twin = QNetwork(shape, 3, 1, (36, 36)).eval()
    twin.load_state_dict(network.state_dict())
    assert torch.equal(twin(frames), network(frames))


@pytest.mark.parametrize(
    ("pooling", "features"), [("none", 11 * 11 * 8), ("max", 6 * 6 * 8), ("average", 8)]
)
def test_pooling_after_the_encoder(pooling, features):
    shape = NetworkConfig(encoder="impala", impala_width=0.25, hidden=8, pooling=pooling)
    network = QNetwork(shape, 3, 4)
    assert network.advantage[0].in_features == features
    with torch.no_grad():
        plain = nn.Sequential(*list(network.convolutions)[:4])(torch.ones(1, 4, 84, 84))
        pooled = network.convolutions(torch.ones(1, 4, 84, 84))
    if pooling == "average":
        torch.testing.assert_close(pooled, plain.mean((2, 3)))
    if pooling == "max":
        torch.testing.assert_close(pooled.amax(), plain.amax())


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (NetworkConfig(spectral_norm=True), "--spectral-norm: --encoder nature has no residual"),
        (NetworkConfig(head="c51", value_rescaling=True), "--value-rescaling: the support of c51"),
        (LearnerConfig(munchausen=0.9), "--munchausen 0.9: .* use --no-double"),
    ],
)
def test_later_switches_that_contradict_are_refused(config, words):
    with pytest.raises(ConfigError, match=f"^{words}"):
        config.validate()
