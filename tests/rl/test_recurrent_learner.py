"""Tests learning from sequences: targets and gradients against a slow loop, resume, bad options."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from genray.errors import ConfigError
from genray.rl.agent import LocalAgent
from genray.rl.catch import BlindCatch
from genray.rl.chunk import Sample
from genray.rl.collect import CollectConfig
from genray.rl.config import DQNConfig, RunConfig
from genray.rl.env import EnvConfig
from genray.rl.evaluate import evaluate, play_steps
from genray.rl.exploration import ExploreConfig
from genray.rl.learner import LearnerConfig
from genray.rl.networks import NetworkConfig, QNetwork
from genray.rl.recurrent import Memory
from genray.rl.recurrent_learner import RecurrentLearner, make_learner
from genray.rl.replay import ReplayConfig
from genray.rl.sequences import AGE, HORIZON, SequenceConfig
from genray.rl.targets import rescaled, unrescaled
from tests.oracles import full_state

SIDE, ACTIONS, BATCH, STACK = 36, 3, 5, 2
SEQUENCES = SequenceConfig(sequence_length=4, sequence_overlap=2, burn_in=3)
LAYOUT = SEQUENCES.layout(n_step=2, state_size=12, repeats=False)
NETWORK = NetworkConfig(channels=(3, 3, 3), hidden=8, lstm_units=6, value_rescaling=True)
BLIND = DQNConfig(
    env=EnvConfig(env="genray.rl.catch:BlindCatch", stack=1),
    network=NetworkConfig(channels=(4, 4, 4), hidden=16, lstm_units=8),
    replay=ReplayConfig(capacity=400, shards=2, min_size=100, samples_per_insert=4.0),
    learner=LearnerConfig(batch_size=4, learning_rate=1e-3, target_period_updates=10),
    explore=ExploreConfig(anneal_steps=400),
    collect=CollectConfig(collectors=2, envs_per_collector=2, chunk_rows=8, n_step=2),
    sequences=SequenceConfig(sequence_length=8, sequence_overlap=4, burn_in=4),
    run=RunConfig(device="cpu", seed=5, steps=800),
)


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def batch_of(seed: int) -> Sample:
    """Random sequences of 9 rows with ends of episodes, and rows that are not learned from."""
    rng = np.random.default_rng(seed)
    batch = Sample.empty(BATCH, STACK, (SIDE, SIDE), 0, LAYOUT.rows - 1, LAYOUT)
    batch.obs_BSHW[:] = rng.integers(0, 256, batch.obs_BSHW.shape)
    batch.next_obs_BSHW[:] = 0
    ages = [[5, 6, 7, 8, 9, 10, 11, 12, 13], [0, 1, 2, 3, 4, 5, 6, 7, 8],
            [3, 4, 0, 1, 2, 3, 4, 5, 6], [9, 9, 9, 9, 9, 0, 1, 2, 3],
            [7, 8, 9, 10, 0, 1, 0, 1, 2]]  # fmt: skip
    horizon = [[2, 2, 2, 2], [2, 1, 2, 2], [2, 2, 2, 2], [1, 0, 2, 2], [0, 1, 0, 2]]
    steps = batch.steps_BTF
    steps[:] = rng.normal(size=steps.shape)
    steps[..., :2] = rng.integers(0, ACTIONS, (BATCH, LAYOUT.rows, 2))
    steps[..., AGE] = ages
    steps[..., 1][steps[..., AGE] == 0] = -1
    steps[..., 4] = np.where(rng.random((BATCH, LAYOUT.rows)) < 0.3, 0, 0.9)
    steps[..., HORIZON] = 0
    steps[:, 3:7, HORIZON] = horizon
    batch.state_BS[:] = rng.normal(size=batch.state_BS.shape)
    batch.probability_B[:] = rng.random(BATCH) / 50
    batch.key_B[:], batch.action_B[:], batch.later_BJ[:] = np.arange(BATCH), 0, 0
    batch.return_B[:], batch.discount_B[:] = 0, 0
    return batch


def slow_q(network: QNetwork, batch: Sample, b: int) -> list[torch.Tensor]:
    """Q-values of all rows of one sequence, one row at a time; burn-in rows without gradient."""
    state, found = torch.from_numpy(batch.state_BS[b : b + 1]), []
    for t in range(LAYOUT.rows):
        _, last_action, last_reward, *_, age = batch.steps_BTF[b, t]
        frames = batch.obs_BSHW[b, t : t + STACK].copy()
        if age == 0:
            state = torch.zeros_like(state)
            frames[0] = 0
        with torch.set_grad_enabled(t >= LAYOUT.burn_in):
            q_1A, state = network.step(
                torch.from_numpy(frames)[None],
                torch.tensor([last_action]),
                torch.tensor([last_reward]),
                state,
            )
        found.append(q_1A[0])
    return found


def slow_loss(learner: RecurrentLearner, batch: Sample) -> tuple[torch.Tensor, list[float]]:
    """Return (the loss, the priorities) of double Q-learning with rescaled values."""

    total, count, found = torch.zeros(()), 0, []
    largest = max(float(p) ** -0.4 for p in batch.probability_B)
    for b in range(BATCH):
        q, q_target = (slow_q(each, batch, b) for each in (learner.online, learner.target))
        weight, errors = float(batch.probability_B[b]) ** -0.4 / largest, []
        for t in range(3, 7):
            action, _, _, n_return, discount, horizon, _ = batch.steps_BTF[b, t]
            if horizon == 0:
                continue
            best = int(q[t + int(horizon)].argmax())
            following = unrescaled(q_target[t + int(horizon)][best]).detach()
            target = rescaled(float(n_return) + float(discount) * following)
            error = target - q[t][int(action)]
            size = abs(float(error.detach()))
            total = total + weight * (0.5 * error**2 if size <= 1 else abs(error) - 0.5)
            errors.append(size)
            count += 1
        found.append(0.9 * max(errors) + 0.1 * float(np.mean(errors)))
    return total / count, found


def learner_of(precision: Any = "float32", **options) -> RecurrentLearner:
    torch.manual_seed(4)
    networks = [QNetwork(NETWORK, ACTIONS, STACK, (SIDE, SIDE)) for _ in range(2)]
    config = LearnerConfig(max_grad_norm=0.0, precision=precision)
    learner = make_learner(config, *networks, sequence=LAYOUT, **options)
    assert isinstance(learner, RecurrentLearner)
    with torch.no_grad():  # w⁻ differs from w
        for weight in learner.target.parameters():
            weight.add_(0.1 * torch.randn(weight.shape))
    return learner


def test_recurrent_learner_equals_a_slow_loop_in_loss_gradients_and_priorities():
    learner, batch = learner_of(), batch_of(1)
    expected, priorities = slow_loss(learner, batch)
    expected.backward()
    gradients = [each.grad.clone() for each in learner.online.parameters()]
    learner.online.zero_grad()
    update = learner.update(batch, 1000, 0.4)
    assert update.loss == pytest.approx(expected.item(), rel=1e-5)
    np.testing.assert_allclose(update.delta_B, priorities, rtol=1e-4)
    for (name, weight), gradient in zip(learner.online.named_parameters(), gradients):
        assert weight.grad is not None
        torch.testing.assert_close(weight.grad, gradient, rtol=1e-3, atol=1e-6, msg=name)


def test_second_stream_gives_the_same_update():
    one, other, batch = learner_of(), learner_of(threads=1), batch_of(2)
    for each in (one, other):
        each.update(batch, 1000, 0.4)
    for mine, theirs in zip(one.online.parameters(), other.online.parameters()):
        assert torch.equal(mine, theirs)


def test_recurrent_update_with_bfloat16_keeps_the_lstm_in_float32(monkeypatch):
    batch = batch_of(3)
    plain, rounded = learner_of(), learner_of("bfloat16")
    seen: list[torch.Tensor] = []
    memory = rounded.online.memory
    assert memory is not None
    monkeypatch.setattr(
        memory, "hidden", lambda *args: seen.append(Memory.hidden(memory, *args)) or seen[-1]
    )
    first, second = (each.update(batch, 1_000, 0.4) for each in (plain, rounded))
    assert second.loss == pytest.approx(first.loss, rel=0.02) and second.loss != first.loss
    np.testing.assert_allclose(second.delta_B, first.delta_B, atol=0.05)
    assert seen and all(each.dtype == torch.float32 for each in seen)
    assert all(weight.dtype == torch.float32 for weight in rounded.online.parameters())


def test_play_carries_the_state_of_an_lstm():
    torch.manual_seed(7)
    network = QNetwork(BLIND.network, 3, 1, (40, 40)).eval()
    played = list(play_steps(network, BLIND.env, epsilon=0.0, seed=4))[1:]
    env = BlindCatch(1)
    frame = env.reset(
        int(np.random.default_rng(np.random.SeedSequence([4, 0])).integers(2**31 - 1))
    )
    state, action, reward = torch.zeros(1, 16), -1, 0.0
    for step in played:
        before = torch.tensor([action]), torch.tensor([reward])
        with torch.no_grad():
            q_1A, state = network.step(torch.from_numpy(frame)[:, None], *before, state)
        np.testing.assert_allclose(step.q_A, q_1A[0].numpy(), atol=1e-6)
        assert step.action == int(q_1A.argmax())
        frame, reward_E, *_ = env.step(np.array([step.action]))
        action, reward = step.action, float(reward_E[0])
    assert len(played) == 11 and state.any()


def state_of(agent: LocalAgent) -> dict[str, np.ndarray]:
    state = full_state(agent)
    for index, shard in enumerate(agent.shards):
        for name in ("delta_LC", "last_reward_LC", "state_LPS"):
            state[f"{index}.{name}"] = getattr(shard._sequences, name).copy()
    return state


def test_recurrent_run_repeats_and_resumes_bit_for_bit(tmp_path):
    agents = [LocalAgent(BLIND) for _ in range(3)]
    for agent in agents[:2]:
        agent.advance(800, 60)
    agents[2].advance(400, 60)
    agents[2].save(tmp_path / "checkpoint")
    assert agents[2].learner.updates > 5
    resumed = LocalAgent(BLIND)
    assert resumed.load(tmp_path / "checkpoint"), "the episodes continue"
    resumed.advance(800, 60)
    first, *others = (state_of(each) for each in (agents[0], agents[1], resumed))
    for other in others:
        assert first.keys() == other.keys()
        for name in first:
            np.testing.assert_array_equal(first[name], other[name], err_msg=name)
    # 4 samples per insert: of 8 transitions each for a sequence.
    assert first["counts"][3] == agents[0].learner.updates * 4 * 8


def remembering(hidden: int) -> float:
    """The mean return of a policy that remembers the first frame of BlindCatch."""
    env, scores = BlindCatch(16, hidden), []
    frames = env.reset(1)
    ball = frames[:, :5].any(axis=1).argmax(axis=1) // 5
    while not scores:
        paddle = frames[:, -1].argmax(axis=1) // 5
        step = env.step(1 + np.sign(ball - paddle))
        frames = step.frame_EHW
        assert not (frames == 255).any(), "the ball is seen in the first frame only"
        scores += step.reward_E[step.terminated_E].tolist()
    return float(np.mean(scores))


def test_blind_catch_needs_memory_and_nothing_else():
    assert remembering(4) == remembering(25) == 1.0
    # Without memory any column is as good as another: 1 of 8 balls is caught.
    score = evaluate(
        QNetwork(NetworkConfig(channels=(2, 2, 2), hidden=4), 3, 4, (40, 40)),
        EnvConfig(env="genray.rl.catch:BlindCatch"),
        episodes=300,
        epsilon=1.0,
    ).mean
    assert score == pytest.approx(-0.75, abs=0.15)


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("sequences", {"burn_in": 9}, "--burn-in 9: longer than --sequence-length 8"),
        ("sequences", {"sequence_overlap": 8}, "--sequence-overlap 8: must be less than"),
        ("sequences", {"sequence_overlap": 5}, "--chunk-rows 8: a sequence starts every 3 steps"),
        ("network", {"past_actions": 2}, "--lstm-units 8: the LSTM gets the last action anyway"),
        ("learner", {"prediction_steps": 1}, "--prediction-steps: not with --lstm-units 8"),
        ("learner", {"shift": 4}, "--shift: not with --lstm-units 8"),
        ("collect", {"gamma_end": 0.995}, "--gamma-end: not with --lstm-units 8"),
        (
            "replay",
            {"capacity": 60, "min_size": 9},
            "--capacity 60: leaves 12 rows for each of 4 lanes",
        ),
    ],
)
def test_recurrent_config_refuses(part, change, message):
    with pytest.raises(ConfigError, match=message):
        replace(BLIND, **{part: replace(getattr(BLIND, part), **change)}).validate()


def test_recurrent_run_does_not_resume_without_recurrence():
    plain = replace(BLIND, network=replace(BLIND.network, lstm_units=0))
    with pytest.raises(ConfigError, match="lstm"):
        plain.check_resumes(BLIND)
    longer = replace(BLIND, sequences=replace(BLIND.sequences, burn_in=8))
    with pytest.raises(ConfigError, match="burn"):
        longer.check_resumes(BLIND)


def test_recurrent_policy_is_refused_where_states_are_not_kept():
    network = QNetwork(NETWORK, ACTIONS, STACK, (SIDE, SIDE))
    with pytest.raises(ConfigError, match="--lstm-units 6: this policy carries a state"):
        network(torch.zeros(1, STACK, SIDE, SIDE, dtype=torch.uint8))
