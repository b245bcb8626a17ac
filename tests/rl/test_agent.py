"""Tests the algorithm in one process: a seed gives one run, and a resumed run equals an
uninterrupted one.
"""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from genray.errors import CheckpointError, ConfigError, ResourceError
from genray.machine import resolve_device
from genray.rl.agent import LocalAgent, build_network, split_by_mass
from genray.rl.catch import BOARD, Catch
from genray.rl.collect import CollectConfig
from genray.rl.config import DQNConfig, RunConfig
from genray.rl.engine import initial_network, network_card
from genray.rl.env import EnvConfig
from genray.rl.exploration import ExploreConfig
from genray.rl.learner import LearnerConfig
from genray.rl.networks import NetworkConfig
from genray.rl.replay import ReplayConfig
from tests.oracles import full_state

CATCH = DQNConfig(
    env=EnvConfig(env="genray.rl.catch:Catch"),
    network=NetworkConfig(channels=(4, 4, 4), hidden=16, past_actions=2),
    # 400 rows over 8 lanes are 50 a lane: 800 steps go twice round the ring.
    replay=ReplayConfig(
        capacity=400, shards=2, min_size=100, samples_per_insert=2.0, beta_anneal_updates=50
    ),
    learner=LearnerConfig(batch_size=16, learning_rate=1e-3, target_period_updates=20),
    explore=ExploreConfig(anneal_steps=600),
    collect=CollectConfig(collectors=2, envs_per_collector=4, chunk_rows=10),
    run=RunConfig(device="cpu", seed=5),
)
ATARI = replace(
    CATCH,
    env=EnvConfig(game="breakout", life_loss="terminal"),
    replay=replace(CATCH.replay, shards=1),
    collect=CollectConfig(collectors=1, envs_per_collector=2, chunk_rows=25),
)


@pytest.fixture(autouse=True)
def one_thread():
    """Use one thread, which adds in one order: bit-for-bit equality holds for one number of
    threads.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def played(config: DQNConfig, steps: int) -> LocalAgent:
    agent = LocalAgent(config)
    advance(agent, steps)
    return agent


def advance(agent: LocalAgent, steps: int) -> None:
    while agent.steps < steps:
        agent.advance(steps, seconds=60)


def assert_same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> None:
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def weights_differ(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return any(
        not np.array_equal(one[name], other[name]) for name in one if name.startswith("online.")
    )


# --- determinism ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "steps"), [(CATCH, 500), (ATARI, 250)], ids=["catch", "breakout"]
)
def test_local_agent_seed_gives_one_run(config: DQNConfig, steps: int):
    states: list[dict[str, np.ndarray]] = []
    for seed in (5, 5, 6):
        torch.manual_seed(len(states))  # the global random state has no effect
        np.random.seed(len(states))
        agent = played(replace(config, run=replace(config.run, seed=seed)), steps)
        states.append(full_state(agent))
        assert agent.learner.updates >= 10
        agent.close()
    assert_same(states[0], states[1])
    assert weights_differ(states[0], states[2])


def test_initial_weights_depend_on_the_seed_alone():
    card = network_card(CATCH, 3, (84, 84))
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    first = initial_network(card, 7).state_dict()
    assert torch.rand(1) == expected  # the global random state did not change
    second, other = initial_network(card, 7).state_dict(), initial_network(card, 8).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["advantage.0.weight"], other["advantage.0.weight"])


# --- the loop -------------------------------------------------------------------------------------


def test_keeps_its_samples_per_insert_and_waits_for_the_minimum():
    agent = LocalAgent(CATCH)
    while agent.limiter.inserted < 100:
        assert agent.learner.updates == 0
        advance(agent, agent.steps + 1)
    advance(agent, 1000)
    assert agent.learner.updates * 16 == agent.limiter.sampled
    assert 1.9 < agent.limiter.sampled / (agent.limiter.inserted - 100) <= 2.0
    assert agent.limiter.inserted == sum(shard.inserted for shard in agent.shards)
    assert [shard.layout.sources for shard in agent.shards] == [(0,), (1,)]
    assert all(shard.inserted > 300 for shard in agent.shards)  # both shards receive chunks
    agent.close()


def test_priorities_return_to_the_rows_they_came_from():
    """After an update, the leaf of a drawn row in its own shard is (|δ| + ε)^α, and P(i) was p_i /
    Σ over all shards.
    """
    agent = played(CATCH, 600)
    learner, seen = agent.learner, []
    really_update = learner.update

    def watched(batch, size, beta):
        update = really_update(batch, size, beta)
        seen.append((batch, size, beta, update))
        return update

    learner.update = watched  # type: ignore[method-assign]
    for _ in range(20):
        before = [shard._tree.state() for shard in agent.shards]
        total = sum(shard.total for shard in agent.shards)
        agent.update(16)
        batch, size, beta, update = seen[-1]
        assert size == sum(shard.size for shard in agent.shards)
        assert beta == pytest.approx(min(1.0, 0.4 + 0.6 * (learner.updates - 1) / 50))
        expected = [tree.copy() for tree in before]
        # Rows come shard by shard, a shard's ordered by leaf: the second shard begins where leaves
        # fall back.
        leaf_B = (batch.key_B % 4) * 50 + batch.key_B // 4 % 50
        falls = np.flatnonzero(np.diff(leaf_B) < 0)
        assert len(falls) <= 1
        border = int(falls[0]) + 1 if len(falls) else 16
        for i, leaf in enumerate(leaf_B):
            m = int(i >= border)
            assert batch.probability_B[i] == pytest.approx(before[m][leaf] / total, rel=1e-9)
            expected[m][leaf] = (float(update.delta_B[i]) + 1e-3) ** 0.6
        for m, shard in enumerate(agent.shards):
            np.testing.assert_allclose(shard._tree.state(), expected[m], rtol=1e-6)
    agent.close()


def test_split_by_mass_follows_the_masses():
    rng = np.random.default_rng(0)
    counts = np.zeros(3)
    for _ in range(500):
        split, shares = split_by_mass(32, [1.0, 0.0, 3.0], rng)
        assert sum(split) == 32 and shares == [0.25, 0.0, 0.75]
        counts += split
    assert counts[1] == 0
    assert counts[0] / counts.sum() == pytest.approx(0.25, abs=0.02)  # 5 standard errors


def test_local_agent_refuses_a_free_running_learner():
    with pytest.raises(ConfigError, match="--samples-per-insert 0.*choose e.g. 8"):
        LocalAgent(replace(CATCH, replay=replace(CATCH.replay, samples_per_insert=0.0)))


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_cuda_without_a_gpu_is_refused():
    with pytest.raises(ResourceError, match="--device cuda: no usable GPU.*--device cpu"):
        LocalAgent(replace(CATCH, run=replace(CATCH.run, device="cuda")))
    assert resolve_device("auto") == "cpu"


def test_network_card_builds_the_same_network():
    agent = played(CATCH, 400)
    card = json.loads(json.dumps(network_card(CATCH, 3, (84, 84))))
    again = build_network(card)
    again.load_state_dict(agent.network().state_dict())
    frames = torch.randint(0, 256, (2, 4, 84, 84), dtype=torch.uint8)
    past = torch.zeros(2, 2, dtype=torch.int16)
    assert torch.equal(again(frames, past), agent.learner.online(frames, past))
    agent.close()


# --- resume ---------------------------------------------------------------------------------------


def test_resuming_catch_equals_no_interruption(tmp_path: Path):
    """Catch saves its boards, so weights, optimizer, replay, tree and episodes continue bit for
    bit.
    """
    agent = played(CATCH, 360)  # 9 chunks of 40: the second collector's turn is next
    agent.save(tmp_path)
    advance(agent, 800)
    never_saved = played(CATCH, 800)
    assert_same(full_state(agent), full_state(never_saved))  # saving changes nothing
    resumed = LocalAgent(CATCH)
    resumed.load(tmp_path)
    assert resumed.steps == 360 and 0 < resumed.learner.updates < agent.learner.updates
    advance(resumed, 800)
    assert_same(full_state(resumed), full_state(never_saved))
    assert full_state(resumed)["target.advantage.2.bias"].any()
    episodes = [one.advance(1000, 60).episodes for one in (resumed, never_saved)]
    assert episodes[0] == episodes[1] != []
    for one in (agent, never_saved, resumed):
        one.close()


def test_resuming_atari_equals_no_interruption_until_new_frames_come(tmp_path: Path):
    """The emulator cannot be saved, so lanes begin new episodes. The next 20 updates from the
    stored rows are equal.
    """
    agent = played(ATARI, 300)
    agent.save(tmp_path)
    resumed = LocalAgent(ATARI)
    resumed.load(tmp_path)
    assert_same(full_state(resumed), full_state(agent))
    for _ in range(20):
        mine, theirs = agent.update(16), resumed.update(16)
        np.testing.assert_array_equal(mine.delta_B, theirs.delta_B)
        assert mine[1:] == theirs[1:]
    assert_same(full_state(resumed), full_state(agent))
    assert [c.epsilon_E.tolist() for c in agent.collectors] == [
        c.epsilon_E.tolist() for c in resumed.collectors
    ]
    # New episodes are a new stream: the rows before the gap stay, and later rows do not extend
    # across it.
    size, inserted = resumed.shards[0].size, resumed.limiter.inserted
    resumed.collect()
    # the first 3 rows' returns are not known yet
    assert resumed.limiter.inserted == inserted + 2 * (25 - 3)
    assert resumed.shards[0].size <= size + 44
    for one in (agent, resumed):
        one.close()


def test_resuming_without_the_replay_fills_it_anew_before_learning(tmp_path: Path):
    config = replace(CATCH, run=replace(CATCH.run, checkpoint_replay=False))
    agent = played(config, 600)
    agent.save(tmp_path)
    resumed = LocalAgent(config)
    resumed.load(tmp_path)
    updates = resumed.learner.updates
    assert updates == agent.learner.updates > 0 and not weights_differ(
        full_state(agent), full_state(resumed)
    )
    assert resumed.shards[0].size == 0
    while resumed.limiter.inserted < 100:
        assert resumed.learner.updates == updates
        advance(resumed, resumed.steps + 1)
    advance(resumed, resumed.steps + 200)
    assert resumed.learner.updates > updates
    for one in (agent, resumed):
        one.close()


def test_local_agent_load_refuses_another_network(tmp_path: Path):
    agent = LocalAgent(CATCH)
    agent.save(tmp_path)
    other = LocalAgent(replace(CATCH, network=replace(CATCH.network, hidden=17)))
    with pytest.raises(
        CheckpointError, match=r"does not fit this network \(.*size mismatch for .*--hidden"
    ):
        other.load(tmp_path)
    smaller = LocalAgent(replace(CATCH, replay=replace(CATCH.replay, capacity=320)))
    with pytest.raises(CheckpointError, match="resume with the same --capacity"):
        smaller.load(tmp_path)
    advance(agent, 40)
    agent.save(tmp_path)
    shorter = LocalAgent(replace(CATCH, collect=replace(CATCH.collect, n_step=1)))
    with pytest.raises(
        CheckpointError, match=r"reach over \d steps; resume with --n-step \d or more, not 1"
    ):
        shorter.load(tmp_path)


@pytest.mark.parametrize(
    "changed", [{"n_step": 5}, {"chunk_rows": 4}, {"envs_per_collector": 2}], ids=str
)
def test_options_that_change_a_collectors_arrays_begin_new_episodes(
    tmp_path: Path, changed: dict[str, int]
):
    config = replace(
        CATCH, run=replace(CATCH.run, checkpoint_replay="envs_per_collector" not in changed)
    )
    agent = played(config, 360)
    agent.save(tmp_path)
    resumed = LocalAgent(replace(config, collect=replace(config.collect, **changed)))
    assert not resumed.load(tmp_path) and agent.load(tmp_path)
    advance(resumed, 480)
    assert resumed.collectors[0].run_step > 360
    for one in (agent, resumed):
        one.close()


class Forgetful(Catch):
    """Catch that cannot be saved, like an emulator."""

    state = None  # type: ignore[assignment]

    def __getattribute__(self, name: str):
        if name in ("state", "restore"):
            raise AttributeError(name)
        return super().__getattribute__(name)


def test_loading_into_an_agent_that_has_worked_joins_nothing(tmp_path: Path):
    """The agent's lanes begin new episodes. No episode, return or stream of rows extends from
    before the load.
    """
    agent = played(replace(CATCH, env=EnvConfig(env=f"{__name__}:Forgetful")), 360)
    agent.save(tmp_path)
    lives = [collector.incarnation for collector in agent.collectors]
    assert not agent.load(tmp_path)
    assert all(collector.incarnation not in lives for collector in agent.collectors)
    episodes = agent.advance(1_000, 60).episodes
    assert episodes and {episode.steps for episode in episodes} == {BOARD - 1}
    agent.close()
