"""Tests one update of the learner: errors, gradients, optimizer steps and importance weights."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from genray.errors import RunFault
from genray.rl.chunk import Chunk
from genray.rl.learner import CentredRMSprop, Learner, LearnerConfig
from genray.rl.replay import ReplayConfig, ReplayShard, ShardLayout
from tests.helpers.batches import ACTIONS, SIDE, random_batch
from tests.helpers.learners import PLAIN, learner, network, q, separated, slow_delta


@pytest.mark.parametrize("double", [True, False])
@pytest.mark.parametrize("dueling", [True, False])
def test_update_errors_equal_the_slow_loop(double: bool, dueling: bool):
    """w and w⁻ differ, so that double and single Q-learning have different errors |δ|."""
    one, batch = separated(replace(PLAIN, double=double), dueling), random_batch(64)
    slow = slow_delta(one.online, one.target, batch, double)
    other = slow_delta(one.online, one.target, batch, not double)
    assert np.abs(slow - other).max() > 0.01  # the two forms differ for this batch
    update = one.update(batch, 64, 0.4)
    np.testing.assert_allclose(update.delta_B, np.abs(slow), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("loss", ["huber", "squared"])
@pytest.mark.parametrize("weighted", [True, False])
def test_update_gradient_is_weight_times_clipped_error(loss, weighted: bool):
    """Without dueling, dQ/db_a of the last bias is 1 for the chosen action and 0 for others. The
    gradient is then dL/db_a = −1/B Σ_{i: a_i = a} w_i · clip(δ_i, ±1). The squared loss does not
    clip, and w_i = 1 without weighting.
    """
    rng = np.random.default_rng(5)
    probability_B = rng.dirichlet(np.ones(100))[:40]
    config = replace(PLAIN, loss=loss, importance_weighting=weighted)
    one, batch = separated(config), random_batch(40, spread=3.0, probability_B=probability_B)
    delta_B = slow_delta(one.online, one.target, batch, double=False)
    assert (np.abs(delta_B) > 1).sum() > 5 and (np.abs(delta_B) < 1).sum() > 5
    size, beta = 100, 0.7
    weight_B = (1 / size / probability_B) ** beta
    weight_B = weight_B / weight_B.max() if weighted else np.ones(40)
    pull_B = weight_B * (np.clip(delta_B, -1, 1) if loss == "huber" else delta_B)
    by_hand = [-pull_B[batch.action_B == a].sum() / 40 for a in range(ACTIONS)]
    size_B = np.abs(delta_B)
    error_B = (
        np.where(size_B < 1, delta_B**2 / 2, size_B - 0.5) if loss == "huber" else delta_B**2 / 2
    )
    update = one.update(batch, size, beta)
    np.testing.assert_allclose(one.online.advantage[-1].bias.grad, by_hand, rtol=1e-3, atol=1e-5)
    assert update.loss == pytest.approx((weight_B * error_B).mean(), rel=1e-4)
    assert update.q_mean == pytest.approx(
        q(one.online, batch.obs_BSHW)[np.arange(40), batch.action_B].mean(), abs=0.1
    )


def test_update_gradient_equals_autograd():
    """With dueling and double Q-learning, the gradient of every parameter equals that of a loss in
    plain PyTorch.
    """
    batch = random_batch(16, spread=3.0, probability_B=np.linspace(0.01, 0.2, 16))
    one = separated(LearnerConfig(max_grad_norm=0), dueling=True)
    twin = network(0, dueling=True)
    twin.load_state_dict(one.online.state_dict())
    best = q(twin, batch.next_obs_BSHW).argmax(axis=1)
    target = (
        batch.return_B + batch.discount_B * q(one.target, batch.next_obs_BSHW)[np.arange(16), best]
    )
    taken = twin(torch.from_numpy(batch.obs_BSHW))[
        torch.arange(16), torch.from_numpy(batch.action_B.astype(np.int64))
    ]
    weight = (50 * torch.from_numpy(batch.probability_B)) ** -0.5
    loss = torch.nn.functional.huber_loss(
        taken, torch.from_numpy(target.astype(np.float32)), reduction="none"
    )
    ((weight / weight.max()).float() * loss).mean().backward()
    one.update(batch, 50, 0.5)
    for (name, mine), theirs in zip(one.online.named_parameters(), twin.parameters()):
        torch.testing.assert_close(mine.grad, theirs.grad, msg=name, rtol=1e-3, atol=1e-6)


def test_update_with_discount_0_does_not_bootstrap():
    """The target is the return, for all next frames and also if w⁻ has a large bias."""
    one, batch = separated(PLAIN), random_batch(8)
    batch = replace(batch, discount_B=np.zeros(8, np.float32))
    with torch.no_grad():
        one.target.advantage[-1].bias.fill_(1e6)
    expected = np.abs(batch.return_B - q(one.online, batch.obs_BSHW)[np.arange(8), batch.action_B])
    np.testing.assert_allclose(one.update(batch, 8, 1.0).delta_B, expected, rtol=1e-4, atol=1e-6)


def test_update_clips_long_gradients():
    batch = random_batch(16, spread=100.0)
    free, bound = separated(PLAIN), separated(replace(PLAIN, max_grad_norm=0.5))
    norms = [one.update(batch, 16, 0.0).grad_norm for one in (free, bound)]
    # The reported norm is that before clipping.
    assert norms[0] == pytest.approx(norms[1]) and norms[0] > 1

    def length(one: Learner) -> float:
        return float(
            torch.cat(
                [p.grad.flatten() for p in one.online.parameters() if p.grad is not None]
            ).norm()
        )

    assert length(free) == pytest.approx(norms[0], rel=1e-4)
    assert length(bound) == pytest.approx(0.5, rel=1e-3)


def test_update_steps_as_adam():
    one = learner(replace(PLAIN, learning_rate=3e-3, optimizer_epsilon=0.01))
    before = [p.detach().clone() for p in one.online.parameters()]
    one.update(random_batch(16), 16, 0.0)
    twins = [torch.nn.Parameter(p.clone()) for p in before]
    optimizer = torch.optim.Adam(twins, lr=3e-3, eps=0.01)
    for twin, p in zip(twins, one.online.parameters()):
        assert p.grad is not None
        twin.grad = p.grad.clone()
    optimizer.step()
    # The learner uses the fused form if there is one, so the last bits may differ.
    assert all(
        torch.allclose(twin, p, rtol=1e-6, atol=1e-8)
        for twin, p in zip(twins, one.online.parameters())
    )
    assert not all(torch.equal(old, p) for old, p in zip(before, one.online.parameters()))


def test_update_steps_as_the_papers_rmsprop():
    """The rule is that of the code of Mnih 2015. The gradients are about as large as ε, so that it
    matters whether ε is inside the root.
    """
    epsilon = 1e-6
    one = learner(
        replace(PLAIN, optimizer="rmsprop", learning_rate=1e-4, optimizer_epsilon=epsilon)
    )
    weights = list(one.online.parameters())
    w = [p.detach().numpy().astype(np.float64) for p in weights]
    g = [np.zeros_like(each) for each in w]
    g2 = [np.zeros_like(each) for each in w]
    sizes = []
    for number in range(20):
        one.update(random_batch(16, seed=number), 16, 0.0)
        for i, p in enumerate(weights):
            assert p.grad is not None
            d = p.grad.numpy().astype(np.float64)
            sizes.append(np.median(np.abs(d)))
            g[i] = 0.95 * g[i] + 0.05 * d
            g2[i] = 0.95 * g2[i] + 0.05 * d * d
            w[i] -= 1e-4 * d / np.sqrt(g2[i] - g[i] * g[i] + epsilon)
    assert min(sizes) < epsilon**0.5 < max(sizes)
    for mine, p in zip(w, weights):
        np.testing.assert_allclose(p.detach().numpy(), mine, atol=2e-6)


def test_centred_rmsprop_stays_finite_with_constant_gradients():
    """With constant gradients, E[g²] − E[g]² is 0 and may round to less than −ε."""
    weight = torch.nn.Parameter(torch.ones(100))
    optimizer = CentredRMSprop([weight], lr=1e-4, alpha=0.95, eps=1.5e-7, centered=True)
    for _ in range(500):
        weight.grad = torch.linspace(1, 30, 100)
        optimizer.step()
    assert torch.isfinite(weight).all()


def test_update_raises_if_the_loss_is_not_finite():
    one, batch = learner(), random_batch(8)
    one.update(batch, 8, 0.4)
    with pytest.raises(RunFault, match="the loss is nan at update 2: try a lower --learning-rate"):
        one.update(replace(batch, return_B=np.full(8, np.nan, np.float32)), 8, 0.4)


def estimate(weighting: bool) -> float:
    """Return the value that is learned from 200 transitions of one state with β = 1. A quarter of
    the transitions have reward 1, the others 0. They are drawn in proportion to their errors
    (α = 1).
    """
    layout = ShardLayout(
        sources=(0,), lanes_per_source=1, rows=210, frame_shape=(SIDE, SIDE),
        stack=1, stack_start="blank", past_actions=0, n_step=1,
    )  # fmt: skip
    shard = ReplayShard(ReplayConfig(alpha=1.0, priority_epsilon=0.01), layout, seed=1)
    rows = np.arange(201)
    one = (1, 201)
    shard.add(Chunk(
        source=0, incarnation=1, first_row=0, weight_version=0,
        frame_ETHW=np.full((*one, SIDE, SIDE), 128, np.uint8),
        action_ET=np.zeros(one, np.uint8),
        age_ET=np.minimum(rows, 255)[None].astype(np.uint8),
        return_ET=(rows % 4 == 0)[None].astype(np.float32),
        discount_ET=np.zeros(one, np.float32),
        horizon_ET=np.ones(one, np.uint8),
        delta_ET=np.ones(one, np.float32),
        valid_ET=(rows > 0)[None],
    ))  # fmt: skip
    assert shard.size == 200
    learning = learner(
        LearnerConfig(loss="squared", learning_rate=3e-3, importance_weighting=weighting),
        dueling=False,
    )
    values = []
    for _ in range(220):
        batch = shard.sample(64)
        update = learning.update(batch, shard.size, beta=1.0)
        shard.update(batch.key_B, update.delta_B)
        values.append(update.q_mean)
    return float(np.mean(values[-80:]))


def test_importance_weights_remove_the_bias_of_prioritized_draws():
    """The mean reward is 1/4. Without a correction of the draws, the estimate converges to the q
    with ¼(1 − q)² = ¾q², i.e. q = 1/(1 + √3) = 0.366.
    """
    assert estimate(weighting=True) == pytest.approx(0.25, abs=0.03)
    assert estimate(weighting=False) == pytest.approx(0.366, abs=0.04)
