"""Tests action masks: in exploration, in targets by hand, in dueling networks, in evaluation, and
in whole runs on an environment that raises when an illegal action reaches it.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from genray.rl import targets
from genray.rl.agent import LocalAgent
from genray.rl.evaluate import constant_action_scores, evaluate, random_play
from genray.rl.exploration import EpsilonGreedy, epsilon_greedy, random_legal
from genray.rl.heads import C51Head, Head, IQNHead, Outputs, ScalarHead
from genray.rl.learner import Learner, LearnerConfig
from genray.rl.networks import NetworkConfig, QNetwork
from genray.rl.transfer import DeviceBatch
from tests.helpers.batches import random_batch
from tests.helpers.records import OBSERVATION, TOP, Ladder
from tests.rl.test_records import LADDER, advance

# --- exploration ----------------------------------------------------------------------------------


@pytest.mark.parametrize("persistence", [0.0, 2.0])
def test_no_random_held_or_greedy_action_is_illegal_in_many_steps(persistence: float):
    """100,000 choices under masks that change at each step, so that held actions become illegal."""
    rng = np.random.default_rng(0)
    choose = EpsilonGreedy(100, persistence)
    epsilon_E = np.linspace(0, 1, 100)
    lanes = np.arange(100)
    for _ in range(1_000):
        legal_EA = rng.random((100, 6)) < 0.3
        legal_EA[lanes, rng.integers(6, size=100)] = True
        q_EA = np.where(legal_EA, 0.0, 1.0) + rng.random((100, 6))  # illegal ones look best
        action_E = choose(q_EA, epsilon_E, rng, legal_EA)
        assert legal_EA[lanes, action_E].all()


def test_random_actions_are_uniform_over_the_legal_ones():
    legal_EA = np.tile(np.array([0, 1, 0, 1, 1]) > 0, (30_000, 1))
    counts = np.bincount(random_legal(legal_EA, np.random.default_rng(0)), minlength=5)
    assert counts[0] == counts[2] == 0
    np.testing.assert_allclose(counts[[1, 3, 4]], 10_000, atol=5 * np.sqrt(30_000 * 2 / 9))


def test_a_mask_that_allows_everything_changes_no_greedy_choice():
    rng = np.random.default_rng(0)
    q_EA = rng.random((50, 4))
    chosen = epsilon_greedy(q_EA, np.zeros(50), rng, np.ones((50, 4), bool))
    np.testing.assert_array_equal(chosen, q_EA.argmax(1))


# --- targets by hand ------------------------------------------------------------------------------

R, D = 0.5, 0.9
LEGAL = torch.tensor([[True, False, True]])
ONLINE = torch.tensor([[1.0, 9.0, 2.0]])  # w prefers the illegal action 1, then action 2
TARGET = torch.tensor([[4.0, 8.0, 3.0]])  # w⁻ prefers the illegal action 1, then action 0
NOW = torch.tensor([[0.25, 0.0, 0.0]])


def one_transition() -> DeviceBatch:
    sample = random_batch(1)
    batch = DeviceBatch(*(torch.from_numpy(getattr(sample, n)) for n in DeviceBatch._fields))
    return batch._replace(
        action_B=torch.tensor([0], dtype=torch.uint8),
        return_B=torch.tensor([R]),
        discount_B=torch.tensor([D]),
    )


def delta_of(head: Head, config: LearnerConfig, **outputs: Any) -> float:
    values: dict[str, Any] = {
        "now": NOW, "next_target": TARGET, "next_online": None, "now_target": None, "tau_BZ": None,
        "legal_BA": None, "next_legal_BA": LEGAL,
    } | outputs  # fmt: skip
    return head.loss(one_transition(), Outputs(**values), config).delta_B.item()


def test_the_maximum_of_a_target_is_over_legal_actions():
    assert delta_of(ScalarHead(), LearnerConfig()) == pytest.approx(R + D * 4.0 - 0.25)


def test_the_action_that_double_q_learning_chooses_is_legal():
    delta = delta_of(ScalarHead(), LearnerConfig(), next_online=ONLINE)
    assert delta == pytest.approx(R + D * 3.0 - 0.25), "w chooses action 2, w⁻ gives its value 3"


def test_a_rescaled_target_leaves_illegal_actions_out():
    def h(x: float) -> float:
        return targets.rescaled(torch.tensor(x)).item()

    outputs = {"now": torch.tensor([[h(0.25), 0, 0]]), "next_target": targets.rescaled(TARGET)}
    delta = delta_of(ScalarHead(rescale=True), LearnerConfig(), **outputs)
    assert delta == pytest.approx(h(R + D * 4.0) - h(0.25), abs=1e-5)


@pytest.mark.parametrize("rescale", [False, True])
def test_a_munchausen_target_is_a_mean_over_legal_actions(rescale: bool):
    """π(a|s') has two actions, of values 4 and 3; the added reward is α τ log π(a|s), where action
    1, the best, is illegal in s as well.
    """
    tau, config = 0.5, LearnerConfig(munchausen=0.9, munchausen_temperature=0.5)
    pi = np.exp(np.array([4, 3]) / tau) / np.exp(np.array([4, 3]) / tau).sum()
    soft = (pi * (np.array([4, 3]) - tau * np.log(pi))).sum()
    now = np.exp(np.array([1, 2]) / tau)
    added = 0.9 * max(tau * np.log(now[0] / now.sum()), config.munchausen_floor)
    expected = R + added + D * soft
    outputs = {"now_target": ONLINE, "legal_BA": LEGAL}
    if rescale:
        outputs |= {"now_target": targets.rescaled(ONLINE), "next_target": targets.rescaled(TARGET)}
        expected = targets.rescaled(torch.tensor(expected)).item()
    delta = delta_of(ScalarHead(rescale), config, **outputs)
    assert delta == pytest.approx(expected - 0.25, abs=1e-4)


@pytest.mark.parametrize("double", [False, True])
def test_c51_projects_the_distribution_of_a_legal_action(double: bool):
    """The means of w⁻ for s' are 0, 1, −1 and those of w −1, 1, 0: action 1 is illegal."""
    low, middle, high = torch.eye(3)
    log = 40 * torch.stack([low, middle, high])  # nearly certain
    target = log[[1, 2, 0]][None]
    online = log[[0, 2, 1]][None]
    now = log[[1, 1, 1]][None].requires_grad_()
    head = C51Head(3, 1.0)
    delta = delta_of(
        head, LearnerConfig(), now=now, next_target=target, next_online=online if double else None
    )
    assert delta == pytest.approx(R - D if double else R, abs=1e-4)


@pytest.mark.parametrize("munchausen", [0.0, 0.9])
def test_iqn_s_targets_leave_illegal_actions_out(munchausen: float):
    """Two quantiles of each action. Whatever the illegal action's value is, δ is the same."""
    deltas = []
    for illegal in (-50.0, 9.0, 700.0):
        next_BAZ = torch.tensor([[[4.0, 4.5], [illegal, illegal], [3.0, 2.0]]])
        outputs = {
            "now": torch.zeros(1, 3, 2),
            "next_target": next_BAZ,
            "now_target": next_BAZ if munchausen else None,
            "legal_BA": LEGAL,
            "tau_BZ": torch.tensor([[0.25, 0.75]]),
        }
        config = LearnerConfig(munchausen=munchausen)
        deltas.append(delta_of(IQNHead(2), config, **outputs))
    assert deltas[0] == deltas[1] == deltas[2]
    if not munchausen:
        assert deltas[0] == pytest.approx(R + D * 4.25)


# --- networks -------------------------------------------------------------------------------------


def records(legal: list[list[int]]) -> torch.Tensor:
    """Return a batch of records of the ladder with given masks, uint8 [B, 1, 1, P]."""
    rng = np.random.default_rng(0)
    arrays = {"noise": rng.normal(size=(len(legal), 2)), "rung": np.arange(len(legal)) % TOP}
    return torch.from_numpy(OBSERVATION.pack(arrays | {"mask": np.array(legal)}))[:, None]


@pytest.mark.parametrize("head", ["scalar", "c51", "iqn"])
def test_an_illegal_advantage_does_not_enter_legal_q_values(head: str):
    """Dueling subtracts the mean advantage: here, that of the legal actions."""
    torch.manual_seed(0)
    config = NetworkConfig(hidden=8, head=head, dueling=True)  # type: ignore[arg-type]
    network = QNetwork(config, 3, 1, OBSERVATION.frame_shape, OBSERVATION)
    record = records([[1, 0, 1], [1, 1, 1], [0, 0, 1]])
    before = network(record)
    with torch.no_grad():
        last = network.advantage[-1]
        outputs = network.head.outputs_per_action
        last.bias[outputs : 2 * outputs] += torch.arange(1.0, outputs + 1)  # action 1
    after = network(record)
    legal = records([[1, 0, 1], [1, 1, 1], [0, 0, 1]])[:, 0, 0, -3:] != 0
    assert (before[~legal] == targets.ILLEGAL).all() and (after[~legal] == targets.ILLEGAL).all()
    torch.testing.assert_close(after[0, [0, 2]], before[0, [0, 2]])
    torch.testing.assert_close(after[2, 2], before[2, 2])
    assert not torch.allclose(after[1], before[1]), "it is legal there"


@pytest.mark.parametrize("double", [False, True])
def test_a_learner_reads_the_masks_of_the_stored_records(double: bool):
    """δ of the learner equals δ computed one transition at a time over the legal actions."""
    torch.manual_seed(1)
    config = NetworkConfig(hidden=8, dueling=False)
    online, target = (
        QNetwork(config, 3, 1, OBSERVATION.frame_shape, OBSERVATION) for _ in range(2)
    )
    learner = Learner(LearnerConfig(double=double), online, target)
    learner.target.load_state_dict(
        QNetwork(config, 3, 1, OBSERVATION.frame_shape, OBSERVATION).state_dict()
    )
    masks = [[1, 0, 1], [0, 1, 0], [1, 1, 0], [0, 1, 1]]
    now, later = records([[1, 1, 1]] * 4), records(masks)
    batch = replace(random_batch(4), obs_BSHW=now.numpy(), next_obs_BSHW=later.numpy())
    with torch.no_grad():
        q, q_next = online(now).numpy(), online(later).numpy()
        q_minus = learner.target(later).numpy()
    expected = []
    for b, mask in enumerate(masks):
        legal = [action for action in range(3) if mask[action]]
        best = max(legal, key=lambda action: (q_next if double else q_minus)[b, action])
        target_value = batch.return_B[b] + batch.discount_B[b] * q_minus[b, best]
        expected.append(abs(target_value - q[b, batch.action_B[b]]))
    np.testing.assert_allclose(learner.update(batch, 4, 0.4).delta_B, expected, rtol=1e-5)


# --- whole runs -----------------------------------------------------------------------------------


@pytest.mark.parametrize("noisy", [0.0, 0.5])
def test_no_illegal_action_is_played_in_a_run_and_in_its_evaluation(noisy: float):
    """`Ladder.step` raises for an illegal action. ε-greedy with held actions, and noisy layers."""
    config = replace(LADDER, network=replace(LADDER.network, noisy=noisy, past_actions=0))
    agent = LocalAgent(config)
    advance(agent, 2_000)
    assert agent.learner.updates > 100
    assert all(isinstance(each.env.own, Ladder) for each in agent.collectors)
    network = agent.network()
    for epsilon in (0.0, 0.5):
        result = evaluate(network, config.env, episodes=16, epsilon=epsilon)
        assert len(result.scores) == 16
    assert random_play(config.env, episodes=16).mean < 1
    assert constant_action_scores(config.env, episodes=4)["0"] == 1.0, "always up"
