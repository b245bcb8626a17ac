"""One update against numbers worked out by hand, and what the target network and the importance
weights are for.
"""

import io
import threading
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from genray.errors import RunFault
from genray.rl.chunk import Chunk, Sample
from genray.rl.learner import CentredRMSprop, Learner, LearnerConfig
from genray.rl.networks import NetworkConfig, QNetwork
from genray.rl.replay import ReplayConfig, ReplayShard, ShardLayout
from tests.helpers.batches import ACTIONS, SIDE, random_batch

PLAIN = LearnerConfig(double=False, loss="squared", max_grad_norm=0)


def network(seed: int, dueling: bool = False) -> QNetwork:
    torch.manual_seed(seed)
    return QNetwork(
        NetworkConfig(channels=(4, 4, 4), hidden=16, dueling=dueling), ACTIONS, 1, (SIDE, SIDE)
    )


def learner(
    config: LearnerConfig = PLAIN, seed: int = 0, dueling: bool = False, threads: int = 0
) -> Learner:
    return Learner(config, network(seed, dueling), network(seed + 1, dueling), threads=threads)


def q(net: QNetwork, frames: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return net(torch.from_numpy(frames)).numpy()


def slow_delta(w: QNetwork, w_minus: QNetwork, batch: Sample, double: bool) -> np.ndarray:
    """δ of each transition, one at a time."""
    q_BA, next_w_BA, next_minus_BA = (
        q(w, batch.obs_BSHW),
        q(w, batch.next_obs_BSHW),
        q(w_minus, batch.next_obs_BSHW),
    )
    deltas = []
    for i in range(batch.size):
        best = int(np.argmax(next_w_BA[i] if double else next_minus_BA[i]))
        target = batch.return_B[i] + batch.discount_B[i] * next_minus_BA[i][best]
        deltas.append(target - q_BA[i][batch.action_B[i]])
    return np.array(deltas)


def separated(config: LearnerConfig, dueling: bool = False, seed: int = 0) -> Learner:
    """A learner whose w has moved away from its w⁻."""
    one = learner(config, seed, dueling)
    one.online.load_state_dict(network(seed + 7, dueling).state_dict())
    return one


@pytest.mark.parametrize("double", [True, False])
@pytest.mark.parametrize("dueling", [True, False])
def test_errors_are_those_of_the_slow_loop(double: bool, dueling: bool):
    """|δ| with w and w⁻ apart, where double and single Q-learning differ."""
    one, batch = separated(replace(PLAIN, double=double), dueling), random_batch(64)
    slow = slow_delta(one.online, one.target, batch, double)
    other = slow_delta(one.online, one.target, batch, not double)
    assert np.abs(slow - other).max() > 0.01  # the two forms can be told apart here
    update = one.update(batch, 64, 0.4)
    np.testing.assert_allclose(update.delta_B, np.abs(slow), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("loss", ["huber", "squared"])
@pytest.mark.parametrize("weighted", [True, False])
def test_the_gradient_is_weight_times_clipped_error(loss, weighted: bool):
    """Without dueling, dQ/db_a of the last bias is 1 for the action taken and 0 else, so on paper
    dL/db_a = −1/B Σ_{i: a_i = a} w_i · clip(δ_i, ±1); squared loss does not clip, and w_i = 1
    without weighting.
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


def test_the_whole_gradient_is_autograds():
    """Every parameter, dueling and double, against a loss written out in PyTorch's own words."""
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


def test_discount_0_means_no_bootstrap():
    """Whatever the next frames are, and however wild w⁻: the target is the return."""
    one, batch = separated(PLAIN), random_batch(8)
    batch = replace(batch, discount_B=np.zeros(8, np.float32))
    with torch.no_grad():
        one.target.advantage[-1].bias.fill_(1e6)
    expected = np.abs(batch.return_B - q(one.online, batch.obs_BSHW)[np.arange(8), batch.action_B])
    np.testing.assert_allclose(one.update(batch, 8, 1.0).delta_B, expected, rtol=1e-4, atol=1e-6)


def test_long_gradients_are_shortened():
    batch = random_batch(16, spread=100.0)
    free, bound = separated(PLAIN), separated(replace(PLAIN, max_grad_norm=0.5))
    norms = [one.update(batch, 16, 0.0).grad_norm for one in (free, bound)]
    # what is reported is the length before
    assert norms[0] == pytest.approx(norms[1]) and norms[0] > 1

    def length(one: Learner) -> float:
        return float(
            torch.cat(
                [p.grad.flatten() for p in one.online.parameters() if p.grad is not None]
            ).norm()
        )

    assert length(free) == pytest.approx(norms[0], rel=1e-4)
    assert length(bound) == pytest.approx(0.5, rel=1e-3)


def test_steps_as_adam():
    one = learner(replace(PLAIN, learning_rate=3e-3, optimizer_epsilon=0.01))
    before = [p.detach().clone() for p in one.online.parameters()]
    one.update(random_batch(16), 16, 0.0)
    twins = [torch.nn.Parameter(p.clone()) for p in before]
    optimizer = torch.optim.Adam(twins, lr=3e-3, eps=0.01)
    for twin, p in zip(twins, one.online.parameters()):
        assert p.grad is not None
        twin.grad = p.grad.clone()
    optimizer.step()
    # Ours is the fused form where there is one, so the last bits may differ.
    assert all(
        torch.allclose(twin, p, rtol=1e-6, atol=1e-8)
        for twin, p in zip(twins, one.online.parameters())
    )
    assert not all(torch.equal(old, p) for old, p in zip(before, one.online.parameters()))


def test_steps_as_the_papers_rmsprop():
    """As Mnih 2015's code writes it, on gradients of ε's own size, where it matters on which
    side of the root ε stands.
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


def test_rmsprop_outlasts_gradients_that_never_change():
    """E[g²] − E[g]² is 0 then, and may round to less than −ε."""
    weight = torch.nn.Parameter(torch.ones(100))
    optimizer = CentredRMSprop([weight], lr=1e-4, alpha=0.95, eps=1.5e-7, centered=True)
    for _ in range(500):
        weight.grad = torch.linspace(1, 30, 100)
        optimizer.step()
    assert torch.isfinite(weight).all()


def test_a_loss_that_is_not_finite_ends_the_run_and_says_where():
    one, batch = learner(), random_batch(8)
    one.update(batch, 8, 0.4)
    with pytest.raises(RunFault, match="the loss is nan at update 2: try a lower --learning-rate"):
        one.update(replace(batch, return_B=np.full(8, np.nan, np.float32)), 8, 0.4)


# --- the target network ---------------------------------------------------------------------------


def equal(a: QNetwork, b: QNetwork) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values()))


def test_w_is_copied_to_w_minus_every_c_updates():
    one, batch = learner(replace(PLAIN, target_period_updates=5)), random_batch(8)
    assert equal(one.target, one.online)  # from the start
    first = network(0)
    for update in range(1, 16):
        one.update(batch, 8, 1.0)
        assert equal(one.target, one.online) == (update % 5 == 0)
        assert equal(one.target, first) == (update < 5)
    assert not any(p.requires_grad for p in one.target.parameters())


def assert_targets_stand_still(config: LearnerConfig) -> None:
    """Between two copies the targets come from the w⁻ of the last copy, however far w has moved."""
    one, batch = learner(config), random_batch(16)
    frozen = network(0)
    for _ in range(9):
        slow = slow_delta(one.online, frozen, batch, one.config.double)
        np.testing.assert_allclose(
            one.update(batch, 16, 1.0).delta_B, np.abs(slow), rtol=1e-3, atol=1e-4
        )
    assert np.abs(q(one.online, batch.next_obs_BSHW) - q(frozen, batch.next_obs_BSHW)).max() > 0.05


@pytest.mark.parametrize("double", [True, False])
def test_targets_stand_still_between_copies(double: bool):
    config = replace(PLAIN, double=double, target_period_updates=10, learning_rate=1e-2)
    assert_targets_stand_still(config)
    # switched off, the check fails
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        assert_targets_stand_still(replace(config, target_network=False))


# --- importance weights ---------------------------------------------------------------------------


def estimate(weighting: bool) -> float:
    """The value learned from 200 transitions of one state, a quarter of which pay 1 and the rest
    0, drawn in proportion to their errors (α = 1) with β = 1.
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


def test_importance_weights_take_out_the_bias_of_prioritized_draws():
    """The mean payment is 1/4. Drawn in proportion to the error and left uncorrected, the
    estimate settles where ¼(1 − q)² = ¾q²: q = 1/(1 + √3) = 0.366.
    """
    assert estimate(weighting=True) == pytest.approx(0.25, abs=0.03)
    assert estimate(weighting=False) == pytest.approx(0.366, abs=0.04)


# --- state ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["adam", "rmsprop"])
def test_resumes_bit_for_bit_with_its_optimizer(optimizer):
    config = replace(PLAIN, optimizer=optimizer, target_period_updates=4)
    one, again = learner(config), learner(config, seed=50)
    for seed in range(6):
        one.update(random_batch(8, seed), 8, 0.4)
    file = io.BytesIO()
    torch.save(one.state_dict(), file)  # as a checkpoint does it
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


def test_weights_are_a_copy():
    one = learner()
    weights = one.weights()
    before = {name: tensor.clone() for name, tensor in weights.items()}
    one.update(random_batch(8), 8, 0.4)
    assert all(torch.equal(before[name], tensor) for name, tensor in weights.items())
    assert any(not torch.equal(before[name], tensor) for name, tensor in one.weights().items())


def test_the_policy_is_the_mean_of_w_then_an_exponential_average():
    one = learner(replace(PLAIN, learning_rate=1e-2, average_updates=4))
    seen, slow = [], None
    for update in range(1, 9):
        one.update(random_batch(8, seed=update), 8, 0.4)
        seen.append(flat(one.weights()))
        slow = torch.stack(seen).mean(0) if update <= 4 else slow + (seen[-1] - slow) / 4
        assert torch.allclose(flat(one.policy()), slow, atol=1e-6)
    assert not torch.allclose(flat(one.policy()), seen[-1], atol=1e-6)


def test_the_average_is_kept_and_begins_at_w_where_it_was_not():
    config = replace(PLAIN, learning_rate=1e-2, average_updates=4)
    one, other, fresh = learner(config), learner(config, seed=5), learner(config, seed=5)
    for seed in range(3):
        one.update(random_batch(8, seed=seed), 8, 0.4)
    other.load_state_dict(one.state_dict())
    assert torch.equal(flat(other.policy()), flat(one.policy()))
    fresh.load_state_dict(one.state_dict() | {"average": None})
    assert torch.equal(flat(fresh.policy()), flat(one.weights()))


def test_without_an_average_the_policy_is_w():
    one = learner()
    one.update(random_batch(8), 8, 0.4)
    assert torch.equal(flat(one.policy()), flat(one.weights()))


def flat(weights: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([tensor.flatten() for tensor in weights.values()])


@pytest.mark.parametrize("double", [True, False])
@pytest.mark.parametrize("target_network", [True, False])
def test_a_second_stream_changes_no_bit(double, target_network):
    """Also across copies of w to w⁻, of which a batch that was looked at too early knows
    nothing, and across a load.
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


def test_the_second_stream_makes_the_passes_without_a_gradient(monkeypatch):
    """Otherwise the test above would pass without it."""
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
    # w and w⁻ over both batches' next states, each once: what was looked at ahead was used.
    assert [thread == here for grad, thread in threads if not grad] == [False] * 4


def test_bfloat16_rounds_the_products_and_keeps_float32_outputs():
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
