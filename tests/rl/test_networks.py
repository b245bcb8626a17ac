"""Tests the Q-network: the dueling sum, He's variance, past actions and sizes."""

import numpy as np
import pytest
import torch

from genray.errors import ConfigError
from genray.rl.building import build_network
from genray.rl.networks import OUTPUT_SCALE, NetworkConfig, QNetwork

SMALL = NetworkConfig(channels=(4, 4, 4), hidden=16)


def frames(batch: int, stack: int = 4, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(
        np.random.default_rng(seed).integers(0, 256, (batch, stack, 84, 84)).astype(np.uint8)
    )


def test_dueling_is_value_plus_advantage_minus_its_mean():
    """V = 10 and A = (1, 2, 6) with mean 3 give Q = (8, 9, 13). Only the biases of the last layers
    are not 0.
    """
    network = QNetwork(SMALL, 3)
    assert network.value is not None
    with torch.no_grad():
        for stream, bias in ((network.value, [10.0]), (network.advantage, [1.0, 2.0, 6.0])):
            stream[-1].weight.zero_()
            stream[-1].bias.copy_(torch.tensor(bias))
        assert network(frames(2)).tolist() == [[8.0, 9.0, 13.0]] * 2


def test_dueling_with_real_features():
    network = QNetwork(SMALL, 5)
    assert network.value is not None
    with torch.no_grad():
        features = network.convolutions(frames(3).float() / 255)
        value_B1, advantage_BA = network.value(features), network.advantage(features)
        q_BA = network(frames(3))
    by_hand = (
        value_B1.numpy() + advantage_BA.numpy() - advantage_BA.numpy().mean(axis=1, keepdims=True)
    )
    np.testing.assert_allclose(q_BA.numpy(), by_hand, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        q_BA.numpy().mean(axis=1), value_B1.numpy()[:, 0], rtol=1e-4, atol=1e-5
    )


def test_network_without_dueling_has_one_stream():
    network = QNetwork(NetworkConfig(channels=(4, 4, 4), hidden=16, dueling=False), 3)
    assert network.value is None
    with torch.no_grad():
        network.advantage[-1].weight.zero_()
        network.advantage[-1].bias.copy_(torch.tensor([1.0, 2.0, 6.0]))
        assert network(frames(1)).tolist() == [[1.0, 2.0, 6.0]]


def test_he_initialisation():
    """Weights before each ReLU are normal with variance 2/fan_in and biases are 0. Output weights
    have a tenth of that deviation.
    """
    torch.manual_seed(0)
    network = QNetwork(NetworkConfig(), 18)
    checked = 0
    for module in network.modules():
        if not isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            continue
        assert not module.bias.any()
        weight = module.weight.detach()
        fan_in = weight[0].numel()
        if weight.numel() < 5000:
            continue
        checked += 1
        relative_error = 5 * (2 / weight.numel()) ** 0.5  # 5 standard errors of a variance
        scale = OUTPUT_SCALE if module is network.advantage[-1] else 1.0
        assert float(weight.var()) == pytest.approx(scale**2 * 2 / fan_in, rel=relative_error)
        kurtosis = float((weight**4).mean() / weight.var() ** 2)
        assert kurtosis == pytest.approx(3.0, abs=0.4)  # a uniform distribution has 1.8
    assert checked >= 6


def test_natures_sizes():
    """The network has 3,136 features and, for 4 actions without dueling, the 1,686,180 parameters
    of the Nature paper.
    """
    network = QNetwork(NetworkConfig(dueling=False), 4)
    assert network.advantage[0].in_features == 64 * 7 * 7 == 3136
    assert sum(p.numel() for p in network.parameters()) == 1_686_180


def test_frames_are_scaled_to_one():
    """The first layer gets ones for frames of 255."""
    network = QNetwork(SMALL, 3)
    with torch.no_grad():
        features = network.convolutions(torch.ones(1, 4, 84, 84))
        expected = (
            network.value(features)
            + network.advantage(features)
            - network.advantage(features).mean()
        )  # type: ignore[misc]
        torch.testing.assert_close(
            network(torch.full((1, 4, 84, 84), 255, dtype=torch.uint8)), expected
        )


def test_past_actions_are_one_hot_beside_the_features():
    """With features' weights of 0, the hidden units get the one-hot inputs alone: K·A of them,
    zeros for "none yet".
    """
    num_actions, k = 3, 2
    network = QNetwork(
        NetworkConfig(channels=(4, 4, 4), hidden=6, dueling=False, past_actions=k), num_actions
    )
    first, last = network.advantage[0], network.advantage[-1]
    num_features = first.in_features - k * num_actions
    with torch.no_grad():
        first.weight.zero_()
        first.weight[:, num_features:] = torch.eye(6)
        last.weight.zero_()
        last.weight[0] = torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0, 32.0])
        past_BK = torch.tensor([[-1, -1], [0, -1], [2, 0], [1, 2]], dtype=torch.int16)
        assert network(frames(4), past_BK)[:, 0].tolist() == [0.0, 1.0, 4.0 + 8.0, 2.0 + 32.0]


def test_past_actions_must_be_given_to_a_network_that_was_made_with_them():
    network = QNetwork(NetworkConfig(channels=(4, 4, 4), hidden=6, past_actions=2), 3)
    with pytest.raises(AssertionError, match="past_actions"):
        network(frames(1))


@pytest.mark.parametrize("layer_norm", [False, True])
def test_layer_norm_makes_the_scale_of_weights_no_matter(layer_norm: bool):
    """With the norm, three times the weights of the last convolution or a hidden layer change
    nothing. Without the norm, the change is large.
    """
    config = NetworkConfig(channels=(8, 8, 8), hidden=32, layer_norm=layer_norm)
    network, x = QNetwork(config, 3), frames(4)
    with torch.no_grad():
        before = network(x)
        for module in (network.convolutions[4], network.advantage[0], network.value[0]):  # type: ignore[index]
            module.weight.mul_(3.0)  # type: ignore[union-attr, operator]
        assert torch.allclose(network(x), before, rtol=1e-2, atol=1e-4) == layer_norm


def test_build_network_of_an_old_card_has_no_layer_norm():
    card = {
        "channels": [4, 4, 4],
        "hidden": 16,
        "dueling": True,
        "past_actions": 0,
        "frame_shape": [84, 84],
    }
    card |= {"num_actions": 3, "stack": 4}
    assert not any(
        isinstance(module, torch.nn.LayerNorm) for module in build_network(card).modules()
    )
    normed = build_network({**card, "layer_norm": True})
    assert sum(isinstance(module, torch.nn.LayerNorm) for module in normed.modules()) == 3


def test_frames_too_small_for_the_convolutions_are_refused():
    with pytest.raises(ConfigError, match="at least 36x36"):
        QNetwork(SMALL, 3, 4, (35, 36))
    assert QNetwork(SMALL, 3, 4, (36, 36))(torch.zeros(1, 4, 36, 36, dtype=torch.uint8)).shape == (
        1,
        3,
    )
