"""Tests the distributional head by hand, and the encoders' shapes."""

import numpy as np
import pytest
import torch

from genray.errors import ConfigError
from genray.rl import targets
from genray.rl.building import build_network
from genray.rl.heads import C51Head, Outputs
from genray.rl.learner import LearnerConfig
from genray.rl.networks import NetworkConfig, QNetwork
from genray.rl.transfer import DeviceBatch
from tests.helpers.batches import random_batch

SUPPORT = torch.tensor([-1.0, 0.0, 1.0])


@pytest.mark.parametrize(
    ("reward", "discount", "p_next", "expected"),
    [
        (0.25, 0.5, [0.0, 0.0, 1.0], [0.0, 0.25, 0.75]),  # z = 1 moves to 0.75
        (0.5, 0.5, [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]),  # z = −1 moves to 0, an atom
        (-0.3, 0.0, [0.2, 0.5, 0.3], [0.3, 0.7, 0.0]),  # a termination: all mass at −0.3
        (5.0, 0.9, [0.1, 0.2, 0.7], [0.0, 0.0, 1.0]),  # beyond the support: its last atom
        # −1, 0, 1 move to −0.4, 0.1, 0.6: 0.4 and 0.6 of 0.2; 0.9 and 0.1 of 0.5; 0.4, 0.6 of 0.3
        (0.1, 0.5, [0.2, 0.5, 0.3], [0.08, 0.12 + 0.45 + 0.12, 0.05 + 0.18]),
    ],
)
def test_categorical_projection_on_three_atoms_by_hand(reward, discount, p_next, expected):
    projected_BZ = targets.categorical_projection(
        torch.tensor([reward]), torch.tensor([discount]), torch.tensor([p_next]), SUPPORT
    )
    torch.testing.assert_close(projected_BZ, torch.tensor([expected]))


def test_categorical_projection_equals_the_papers_loop():
    """Algorithm 1 of Bellemare 2017, atom by atom."""
    rng = np.random.default_rng(0)
    support = np.linspace(-2, 2, 11)
    reward_B, discount_B = rng.normal(size=20) * 2, rng.random(20)
    p_BZ = rng.dirichlet(np.ones(11), 20)
    slow_BZ = np.zeros((20, 11))
    for b in range(20):
        for j, z in enumerate(support):
            place = (np.clip(reward_B[b] + discount_B[b] * z, -2, 2) + 2) / 0.4
            below, above = int(np.floor(place)), int(np.ceil(place))
            slow_BZ[b, below] += p_BZ[b, j] * (above - place + (above == below))
            slow_BZ[b, above] += p_BZ[b, j] * (place - below)
    fast_BZ = targets.categorical_projection(
        *(torch.from_numpy(each) for each in (reward_B, discount_B, p_BZ, support))
    )
    np.testing.assert_allclose(fast_BZ.numpy(), slow_BZ, atol=1e-12)


@pytest.mark.parametrize("double", [True, False])
def test_c51_loss_is_the_cross_entropy_with_the_chosen_distribution(double: bool):
    """One transition, two actions, three atoms. w prefers action 0 and w⁻ action 1 in s'."""
    head = C51Head(3, 1.0)
    sample = random_batch(1)
    batch = DeviceBatch(*(torch.from_numpy(getattr(sample, n)) for n in DeviceBatch._fields))
    batch = batch._replace(
        action_B=torch.tensor([1], dtype=torch.uint8),
        return_B=torch.tensor([0.25]),
        discount_B=torch.tensor([0.5]),
    )
    p = torch.tensor([[[0.5, 0.25, 0.25], [0.2, 0.3, 0.5]]])
    next_target = torch.tensor([[[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]])
    next_online = torch.tensor([[[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]])
    logits = [(each + 1e-12).log().requires_grad_() for each in (p, next_target, next_online)]
    out = Outputs(logits[0], logits[1], logits[2] if double else None, None, None)
    loss = head.loss(batch, out, LearnerConfig())
    # Action 0: z = −1 moves to −0.25. Action 1: z = 1 moves to 0.75.
    target = [0.25, 0.75, 0.0] if double else [0.0, 0.25, 0.75]
    by_hand = -sum(t * np.log(q) for t, q in zip(target, [0.2, 0.3, 0.5]))
    assert loss.loss_B.item() == pytest.approx(by_hand, rel=1e-5)
    assert loss.q_taken_B.item() == pytest.approx(0.3)
    assert loss.delta_B.item() == pytest.approx((-0.25 if double else 0.75) - 0.3)
    # The gradient of a cross-entropy is softmax − target, for the action taken alone, and the
    # distributions for s' get none.
    loss.loss_B.sum().backward()
    expected = torch.zeros(1, 2, 3)
    expected[0, 1] = torch.tensor([0.2, 0.3, 0.5]) - torch.tensor(target)
    torch.testing.assert_close(logits[0].grad, expected, atol=1e-6, rtol=1e-5)
    assert logits[1].grad is None and logits[2].grad is None


def test_c51_q_values_are_means_and_dueling_adds_logits():
    shape = NetworkConfig(channels=(4, 4, 4), hidden=8, head="c51", atoms=3, value_limit=1.0)
    network = QNetwork(shape, 2, 1, (36, 36))
    with torch.no_grad():
        for stream, bias in (
            (network.value, [1.0, 0.0, 0.0]),
            (network.advantage, [2.0, 0.0, 0.0, 0.0, 4.0, 0.0]),
        ):
            stream[-1].weight.zero_()  # type: ignore[index,operator,union-attr]
            stream[-1].bias.copy_(torch.tensor(bias))  # type: ignore[index,operator,union-attr]
        frames = torch.zeros(1, 1, 36, 36, dtype=torch.uint8)
        logits = network(frames, None, True)
        torch.testing.assert_close(logits[0], torch.tensor([[2.0, -2.0, 0.0], [0.0, 2.0, 0.0]]))
        torch.testing.assert_close(network(frames), logits.softmax(-1) @ SUPPORT)


@pytest.mark.parametrize(
    ("encoder", "width", "features"),
    [("nature", 1.0, 3136), ("der", 1.0, 576), ("impala", 0.5, 11 * 11 * 16)],
)
def test_encoder_shapes_and_models_of_each(encoder, width, features):
    shape = NetworkConfig(encoder=encoder, impala_width=width, hidden=8, shared_hidden=True)
    network = QNetwork(shape, 3, 4)
    assert network.hidden[0].in_features == features  # type: ignore[index]
    assert network(torch.zeros(2, 4, 84, 84, dtype=torch.uint8)).shape == (2, 3)


def test_der_network_of_18_actions_has_the_known_number_of_weights():
    """Two convolutions 3,232 + 51,264, hidden 295,424, advantage 470,934, value 26,163."""
    shape = NetworkConfig(encoder="der", head="c51", shared_hidden=True)
    assert sum(p.numel() for p in QNetwork(shape, 18).parameters()) == 847_017


def test_build_network_of_a_card_without_newer_options_is_the_plain_network():
    card = {
        "num_actions": 3, "frame_shape": [36, 36], "stack": 1, "channels": [4, 4, 4],
        "hidden": 8, "dueling": True, "past_actions": 0,
    }  # fmt: skip
    network = build_network(card)
    assert network.config == NetworkConfig(channels=(4, 4, 4), hidden=8)
    assert "median_HW" not in network.state_dict()


def test_median_frame_is_subtracted_and_stored_in_the_model():
    shape = NetworkConfig(channels=(4, 4, 4), hidden=8, median_frame=True, input_gain=4.0)
    network = QNetwork(shape, 2, 1, (36, 36))
    frames = torch.randint(0, 256, (7, 36, 36), dtype=torch.uint8)
    network.set_median(frames)
    slow = np.median(frames.numpy(), axis=0) / 255
    np.testing.assert_allclose(network.state_dict()["median_HW"], slow, rtol=1e-6)
    inputs = network.inputs(frames[:1, None])
    np.testing.assert_allclose(inputs[0, 0], 4 * (frames[0].numpy() / 255 - slow), atol=1e-6)
    assert network.inputs(inputs) is inputs  # floats are inputs already


@pytest.mark.parametrize(("option", "value"), [("atoms", 1), ("impala_width", 0.0)])
def test_network_config_refuses(option, value):
    with pytest.raises(ConfigError, match=f"^--{option.replace('_', '-')}"):
        NetworkConfig(**{option: value}).validate()
