"""Tests IQN, Munchausen and value rescaling, by hand and against slow loops."""

import numpy as np
import pytest
import torch

from genray.rl import targets
from genray.rl.augment import generator_of
from genray.rl.heads import IQNHead, Outputs, ScalarHead
from genray.rl.learner import Learner, LearnerConfig
from genray.rl.networks import NetworkConfig, QNetwork
from genray.rl.transfer import DeviceBatch
from tests.helpers.batches import ACTIONS, SIDE, random_batch

MUNCHAUSEN = LearnerConfig(double=False, munchausen=0.9, munchausen_temperature=0.5)


def one_transition(reward: float, discount: float, action: int) -> DeviceBatch:
    sample = random_batch(1)
    batch = DeviceBatch(*(torch.from_numpy(getattr(sample, n)) for n in DeviceBatch._fields))
    return batch._replace(
        action_B=torch.tensor([action], dtype=torch.uint8),
        return_B=torch.tensor([reward]),
        discount_B=torch.tensor([discount]),
    )


def test_quantile_huber_by_hand():
    """Three quantiles and two targets: δ of each pair, its weight, and its Huber loss."""
    value, tau, target = [0.0, 1.0, 3.0], [0.25, 0.5, 0.75], [0.5, 4.0]
    by_hand = 0.0
    for v, t in zip(value, tau):
        for y in target:
            delta = y - v
            weight = abs(t - (1.0 if delta < 0 else 0.0))
            by_hand += weight * (delta**2 / 2 if abs(delta) <= 1 else abs(delta) - 0.5) / 2
    # (0: .25·.125 + .25·3.5) + (1: .5·.125 + .5·2.5) + (3: .25·2 + .75·.5), each / 2
    assert by_hand == pytest.approx((0.90625 + 1.3125 + 0.875) / 2)
    loss_B = targets.quantile_huber(*(torch.tensor([each]) for each in (target, value, tau)))
    assert loss_B.item() == pytest.approx(by_hand)


def test_quantile_huber_is_least_at_the_quantiles():
    """The minimum over a constant is the τ-quantile of the targets, as κ is small beside them."""
    target = torch.linspace(-1000, 1000, 2001)[None]
    places = torch.linspace(-1000, 1000, 81)
    for tau in (0.1, 0.5, 0.8):
        losses = [
            targets.quantile_huber(target, place.view(1, 1), torch.tensor([[tau]])).item()
            for place in places
        ]
        assert places[int(np.argmin(losses))] == pytest.approx(-1000 + 2000 * tau, abs=13)


@pytest.mark.parametrize("double", [True, False])
def test_iqn_loss_uses_the_chosen_actions_quantiles(double: bool):
    head = IQNHead(3)
    now = torch.tensor([[[5.0, 5.0, 5.0], [0.0, 1.0, 2.0]]], requires_grad=True)
    next_target = torch.tensor([[[1.0, 2.0, 3.0], [3.0, 4.0, 5.0]]], requires_grad=True)
    next_online = torch.tensor([[[9.0, 9.0, 9.0], [0.0, 0.0, 0.0]]])
    tau = torch.tensor([[0.2, 0.5, 0.7]])
    out = Outputs(now, next_target, next_online if double else None, None, tau)
    loss = head.loss(one_transition(1.0, 0.5, 1), out, LearnerConfig())
    target = 1 + 0.5 * next_target[0, 0 if double else 1].detach()
    expected = targets.quantile_huber(target[None], torch.tensor([[0.0, 1.0, 2.0]]), tau)
    assert loss.loss_B.item() == pytest.approx(expected.item())
    assert loss.delta_B.item() == pytest.approx(target.mean().item() - 1.0)
    loss.loss_B.sum().backward()
    assert next_target.grad is None and now.grad is not None
    assert (now.grad[0, 0] == 0).all() and (now.grad[0, 1] != 0).any()


def test_munchausen_target_by_hand():
    """Q(s, ·; w⁻) = 0, 1 and Q(s', ·; w⁻) = 2, 1 with τ = 0.5, α = 0.9."""
    softmax = np.exp(2.0) / (1 + np.exp(2.0))  # of the better action, in both states
    log_taken = 0.5 * np.log(1 - softmax)  # action 0 in s: −1.06, which the floor cuts
    assert log_taken < -1
    soft = softmax * (2 - 0.5 * np.log(softmax)) + (1 - softmax) * (1 - 0.5 * np.log(1 - softmax))
    for action, added in ((0, 0.9 * -1.0), (1, 0.9 * 0.5 * np.log(softmax))):
        out = Outputs(
            torch.tensor([[0.3, 0.4]]), torch.tensor([[2.0, 1.0]]), None,
            torch.tensor([[0.0, 1.0]]), None,
        )  # fmt: skip
        loss = ScalarHead().loss(one_transition(1.5, 0.8, action), out, MUNCHAUSEN)
        expected = 1.5 + added + 0.8 * soft - [0.3, 0.4][action]
        assert loss.delta_B.item() == pytest.approx(expected, rel=1e-5)
        # Quantiles with the same means and no spread have the same target.
        spread = [each[..., None].expand(1, 2, 4) for each in (out.next_target, out.now_target)]
        quantiles = Outputs(
            torch.tensor([[[0.3] * 4, [0.4] * 4]]), spread[0], None, spread[1],
            torch.full((1, 4), 0.5),
        )  # fmt: skip
        iqn = IQNHead(4).loss(one_transition(1.5, 0.8, action), quantiles, MUNCHAUSEN)
        assert iqn.delta_B.item() == pytest.approx(expected, rel=1e-5)


def test_value_rescaling_and_its_inverse():
    x = torch.cat([torch.linspace(-1e4, 1e4, 2001), torch.linspace(-1, 1, 201)]).double()
    torch.testing.assert_close(targets.unrescaled(targets.rescaled(x)), x, rtol=1e-6, atol=1e-6)
    assert targets.rescaled(torch.tensor(3.0)).item() == pytest.approx(1.003)
    assert targets.rescaled(torch.tensor(-3.0)).item() == pytest.approx(-1.003)


@pytest.mark.parametrize("head", [ScalarHead(True), IQNHead(1, True)])
def test_rescaled_targets_are_computed_in_units_of_returns(head):
    """h(R + D h⁻¹(Q')) with Q' = h(15): the target is h(100 + 0.5 · 15)."""
    q_next = targets.rescaled(torch.tensor([[15.0, 3.0]]))
    now = torch.zeros(1, 2)
    if isinstance(head, IQNHead):
        q_next, now = q_next[..., None], now[..., None]
    out = Outputs(now, q_next, None, None, torch.tensor([[0.5]]))
    loss = head.loss(one_transition(100.0, 0.5, 0), out, LearnerConfig(double=False))
    expected = targets.rescaled(torch.tensor(107.5)).item()
    assert loss.delta_B.item() == pytest.approx(expected, rel=1e-5)


def test_iqn_network_is_a_function_of_tau_and_acts_with_midpoints():
    torch.manual_seed(0)
    shape = NetworkConfig(channels=(4, 4, 4), hidden=8, head="iqn", quantiles=4)
    network = QNetwork(shape, 3, 1, (36, 36))
    frames = torch.randint(0, 256, (2, 1, 36, 36), dtype=torch.uint8)
    middle = torch.tensor([0.125, 0.375, 0.625, 0.875])
    value_BAZ = network(frames, None, True, middle.expand(2, 4))
    assert value_BAZ.shape == (2, 3, 4)
    torch.testing.assert_close(network(frames), value_BAZ.mean(-1))
    # A quantile's value depends on its own τ alone.
    other_BAZ = network(frames, None, True, torch.tensor([0.9, 0.375, 0.1, 0.875]).expand(2, 4))
    torch.testing.assert_close(other_BAZ[..., [1, 3]], value_BAZ[..., [1, 3]])
    assert (other_BAZ[..., [0, 2]] - value_BAZ[..., [0, 2]]).abs().min() > 0
    # cos(π i τ), i = 0 … 63
    angles = np.cos(np.pi * 0.125 * np.arange(64))
    features = network.convolutions(network.inputs(frames))
    assert network.cosines is not None and network.value is not None
    embedding = torch.relu(network.cosines(torch.tensor(angles, dtype=torch.float32)))
    advantage = network.advantage(features * embedding)
    slow = network.value(features * embedding) + advantage - advantage.mean(1, keepdim=True)
    torch.testing.assert_close(value_BAZ[..., 0], slow, rtol=1e-4, atol=1e-5)


def test_iqn_draws_are_uniform_and_depend_on_the_numbers_alone():
    head = IQNHead(8)
    one, again = (head.draw(500, generator_of(4, 3, 9)) for _ in range(2))
    assert torch.equal(one, again) and one.shape == (500, 8)
    assert not torch.equal(one, head.draw(500, generator_of(4, 3, 10)))
    assert one.mean().item() == pytest.approx(0.5, abs=0.02) and 0 <= one.min() < one.max() < 1


def test_learner_gives_the_head_the_outputs_for_both_states_and_both_taus():
    """s and τ by w, s' and τ' by w⁻, and s by w⁻ with midpoints for Munchausen."""
    torch.manual_seed(0)
    shape = NetworkConfig(channels=(4, 4, 4), hidden=8, head="iqn", quantiles=4)
    online, target = (QNetwork(shape, ACTIONS, 1, (SIDE, SIDE)) for _ in range(2))
    head = online.head
    assert isinstance(head, IQNHead)
    learner = Learner(MUNCHAUSEN, online, target, seed=7)
    sample, random = random_batch(8), generator_of(7, 3, 0, 0)
    tau_BZ, next_tau_BZ = (head.draw(8, random) for _ in range(2))
    batch = DeviceBatch(*(torch.from_numpy(getattr(sample, n)) for n in DeviceBatch._fields))
    with torch.no_grad():
        for network in (online, target):
            for weight in network.parameters():
                weight.add_(0.1 * torch.randn(weight.shape))
        out = Outputs(
            online(batch.obs_BSHW, None, True, tau_BZ),
            target(batch.next_obs_BSHW, None, True, next_tau_BZ),
            None,
            target(batch.obs_BSHW, None, True),
            tau_BZ,
        )
        expected = head.loss(batch, out, MUNCHAUSEN)
    found = learner.update(sample, 8, 0.4)
    np.testing.assert_allclose(found.delta_B, expected.delta_B.abs(), rtol=1e-4, atol=1e-5)
    assert found.loss == pytest.approx(expected.loss_B.mean().item(), rel=1e-5)
