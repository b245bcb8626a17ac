"""Tests the learner's target network, averaged policy, state, second stream and precision."""

import io
import threading
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from genray.rl.learner import LearnerConfig
from genray.rl.networks import QNetwork
from tests.helpers.batches import random_batch
from tests.helpers.learners import PLAIN, equal, flat, learner, network, q, slow_delta


def test_target_network_is_copied_every_target_period():
    one, batch = learner(replace(PLAIN, target_period_updates=5)), random_batch(8)
    assert equal(one.target, one.online)
    first = network(0)
    for update in range(1, 16):
        one.update(batch, 8, 1.0)
        assert equal(one.target, one.online) == (update % 5 == 0)
        assert equal(one.target, first) == (update < 5)
    assert not any(p.requires_grad for p in one.target.parameters())


def assert_targets_are_constant(config: LearnerConfig) -> None:
    """Assert that between two copies, targets come from the last copy of w, while w changes."""
    one, batch = learner(config), random_batch(16)
    frozen = network(0)
    for _ in range(9):
        slow = slow_delta(one.online, frozen, batch, one.config.double)
        np.testing.assert_allclose(
            one.update(batch, 16, 1.0).delta_B, np.abs(slow), rtol=1e-3, atol=1e-4
        )
    assert np.abs(q(one.online, batch.next_obs_BSHW) - q(frozen, batch.next_obs_BSHW)).max() > 0.05


@pytest.mark.parametrize("double", [True, False])
def test_target_network_is_constant_between_copies(double: bool):
    config = replace(PLAIN, double=double, target_period_updates=10, learning_rate=1e-2)
    assert_targets_are_constant(config)
    # Without a target network, the check fails.
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        assert_targets_are_constant(replace(config, target_network=False))


@pytest.mark.parametrize("optimizer", ["adam", "rmsprop"])
def test_learner_state_resumes_bit_for_bit(optimizer):
    config = replace(PLAIN, optimizer=optimizer, target_period_updates=4)
    one, again = learner(config), learner(config, seed=50)
    for seed in range(6):
        one.update(random_batch(8, seed), 8, 0.4)
    file = io.BytesIO()
    torch.save(one.state_dict(), file)  # as a checkpoint does
    again.load_state_dict(torch.load(io.BytesIO(file.getvalue()), weights_only=True))
    for seed in range(6, 12):
        mine, theirs = (
            one.update(random_batch(8, seed), 8, 0.4),
            again.update(random_batch(8, seed), 8, 0.4),
        )
        np.testing.assert_array_equal(mine.delta_B, theirs.delta_B)
        assert mine[1:] == theirs[1:]
    assert (
        equal(one.online, again.online)
        and equal(one.target, again.target)
        and one.updates == again.updates == 12
    )


def test_learner_weights_are_a_copy():
    one = learner()
    weights = one.weights()
    before = {name: tensor.clone() for name, tensor in weights.items()}
    one.update(random_batch(8), 8, 0.4)
    assert all(torch.equal(before[name], tensor) for name, tensor in weights.items())
    assert any(not torch.equal(before[name], tensor) for name, tensor in one.weights().items())


def test_learner_policy_is_the_mean_of_w_then_an_exponential_average():
    one = learner(replace(PLAIN, learning_rate=1e-2, average_updates=4))
    seen, slow = [], None
    for update in range(1, 9):
        one.update(random_batch(8, seed=update), 8, 0.4)
        seen.append(flat(one.weights()))
        slow = torch.stack(seen).mean(0) if update <= 4 else slow + (seen[-1] - slow) / 4
        assert torch.allclose(flat(one.policy()), slow, atol=1e-6)
    assert not torch.allclose(flat(one.policy()), seen[-1], atol=1e-6)


def test_learner_policy_average_is_restored_or_starts_at_w():
    config = replace(PLAIN, learning_rate=1e-2, average_updates=4)
    one, other, fresh = learner(config), learner(config, seed=5), learner(config, seed=5)
    for seed in range(3):
        one.update(random_batch(8, seed=seed), 8, 0.4)
    other.load_state_dict(one.state_dict())
    assert torch.equal(flat(other.policy()), flat(one.policy()))
    fresh.load_state_dict(one.state_dict() | {"average": None})
    assert torch.equal(flat(fresh.policy()), flat(one.weights()))


def test_learner_policy_without_an_average_is_w():
    one = learner()
    one.update(random_batch(8), 8, 0.4)
    assert torch.equal(flat(one.policy()), flat(one.weights()))


@pytest.mark.parametrize("double", [True, False])
@pytest.mark.parametrize("target_network", [True, False])
def test_learner_second_stream_changes_no_bit(double, target_network):
    """The results are also equal across copies of w to w⁻, which a batch that was processed ahead
    precedes, and across a load.
    """
    config = replace(
        PLAIN,
        double=double,
        learning_rate=1e-2,
        target_period_updates=3,
        target_network=target_network,
    )
    plain, quick = learner(config, dueling=True), learner(config, dueling=True, threads=1)
    batches = [random_batch(8, seed=seed) for seed in range(11)]
    for batch, following in pairwise(batches):
        expected, found = plain.update(batch, 8, 0.4), quick.update(batch, 8, 0.4, following)
        assert np.array_equal(expected.delta_B, found.delta_B)
    assert torch.equal(flat(plain.weights()), flat(quick.weights()))

    other = learner(config, dueling=True, seed=1).state_dict()
    for one in (plain, quick):
        one.load_state_dict(other)
    assert np.array_equal(
        plain.update(batches[-1], 8, 0.4).delta_B, quick.update(batches[-1], 8, 0.4).delta_B
    )


def test_learner_second_stream_runs_the_passes_without_a_gradient(monkeypatch):
    """Without this test, the test of equal bits would also pass without a second stream."""
    threads: list[tuple[bool, int]] = []
    forward = QNetwork.forward

    def noted(self, *inputs):
        threads.append((torch.is_grad_enabled(), threading.get_ident()))
        return forward(self, *inputs)

    monkeypatch.setattr(QNetwork, "forward", noted)
    one, following = learner(replace(PLAIN, double=True), threads=1), random_batch(8, seed=1)
    one.update(random_batch(8), 8, 0.4, following)
    one.update(following, 8, 0.4)
    here = threading.get_ident()
    assert [thread == here for grad, thread in threads if grad] == [True, True]
    # w and w⁻ process the next states of both batches once, so the results from ahead are used.
    assert [thread == here for grad, thread in threads if not grad] == [False] * 4


def test_learner_with_bfloat16_rounds_products_and_keeps_float32_outputs():
    batch = random_batch(16)
    plain, rounded = (
        learner(replace(PLAIN, double=True, precision=name)) for name in ("float32", "bfloat16")
    )
    expected, found = plain.update(batch, 16, 0.4), rounded.update(batch, 16, 0.4)
    # bfloat16 keeps 8 bits of a product: 1 in 256.
    np.testing.assert_allclose(found.delta_B, expected.delta_B, atol=0.02 * expected.delta_B.max())
    assert not np.array_equal(found.delta_B, expected.delta_B)
    assert {tensor.dtype for tensor in rounded.weights().values()} == {torch.float32}
    with torch.autocast("cpu", torch.bfloat16):
        q_BA = rounded.online(torch.from_numpy(batch.obs_BSHW))
    assert q_BA.dtype == torch.float32
    assert not torch.equal(q_BA, q_BA.bfloat16().float())
