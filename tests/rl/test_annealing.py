"""Tests the annealing of n, γ and the learning rate, against slow loops."""

from dataclasses import replace

import numpy as np
import pytest

from genray.errors import CheckpointError, ConfigError
from genray.rl.annealing import clock_at, learning_rate_at, returns_at
from genray.rl.collect import CollectConfig, Collector
from genray.rl.env import EnvConfig, make_env
from genray.rl.exploration import ExploreConfig, annealed
from genray.rl.learner import LearnerConfig
from genray.rl.networks import NetworkConfig, QNetwork
from genray.rl.replay import ReplayConfig, ReplayShard, ShardLayout

BBF = CollectConfig(
    n_step=10, n_step_end=3, gamma=0.97, gamma_end=0.997, anneal_returns_updates=100
)


def test_returns_are_annealed_geometrically_between_their_ends():
    assert returns_at(BBF, 0) == (10, pytest.approx(0.97))
    assert returns_at(BBF, 100) == returns_at(BBF, 10_000) == (3, pytest.approx(0.997))
    n, gamma = returns_at(BBF, 50)
    assert n == round((10 * 3) ** 0.5) and 1 - gamma == pytest.approx((0.03 * 0.003) ** 0.5)
    assert returns_at(replace(BBF, n_step_end=0), 100) == (10, pytest.approx(0.997))
    assert returns_at(replace(BBF, gamma_end=0), 100) == (3, 0.97)
    counts = [returns_at(BBF, clock)[0] for clock in range(101)]
    assert sorted(counts, reverse=True) == counts and set(counts) == set(range(3, 11))


def test_clock_starts_again_at_each_reset():
    config = LearnerConfig(reset_every=40)
    assert [clock_at(config, updates) for updates in (0, 39, 40, 41, 80)] == [0, 39, 0, 1, 0]
    assert clock_at(LearnerConfig(), 12_345) == 12_345


def test_learning_rate_falls_between_two_updates():
    config = LearnerConfig(
        learning_rate=3e-4, learning_rate_end=1e-4, learning_rate_fall=(100, 300)
    )
    config.validate()
    rates = [learning_rate_at(config, updates) for updates in (0, 100, 200, 300, 999)]
    np.testing.assert_allclose(rates, [3e-4, 3e-4, 2e-4, 1e-4, 1e-4])
    assert learning_rate_at(LearnerConfig(), 10**9) == LearnerConfig().learning_rate


def test_epsilon_is_1_for_the_random_steps_and_then_falls():
    final_E = np.array([0.2])
    seen = [annealed(final_E, step, 100, 50)[0] for step in (0, 49, 50, 100, 150, 999)]
    np.testing.assert_allclose(seen, [1, 1, 1, 0.6, 0.2, 0.2])
    assert annealed(final_E, 10, 0, 50) == 1 and annealed(final_E, 50, 0, 50) == 0.2


class Numbered:
    """An environment whose rewards are all different, and whose lanes end at chance: by a
    termination, a truncation, or a lost life.
    """

    num_actions, frame_shape = 2, (36, 36)

    def __init__(self, num_lanes: int):
        self.num_lanes = num_lanes

    def reset(self, seed: int) -> np.ndarray:
        self.rng, self.count = np.random.default_rng(3), 0
        self.over_E = np.zeros(self.num_lanes, bool)
        return self._frames()

    def _frames(self) -> np.ndarray:
        self.count += 1
        return np.full((self.num_lanes, 36, 36), self.count % 256, np.uint8)

    def step(self, action_E):
        chance_E = self.rng.random(self.num_lanes)
        kinds = [(chance_E > low) & (chance_E < low + 0.05) & ~self.over_E for low in (0, 0.1, 0.2)]
        reward_E = np.where(self.over_E, 0, self.rng.normal(size=self.num_lanes))
        self.over_E = kinds[0] | kinds[1]
        return self._frames(), reward_E.astype(np.float32), *kinds

    def close(self) -> None:
        pass


def test_annealed_draws_equal_the_slow_loop_and_never_mix_horizons():
    """After every change of (n, γ), all drawn returns, old and new ones, have this n and γ."""
    env_config = EnvConfig(env="tests.rl.test_annealing:Numbered", life_loss="terminal", stack=2)
    collect = replace(BBF, collectors=1, envs_per_collector=2, chunk_rows=12, reward_clip="none")
    network = QNetwork(NetworkConfig(channels=(2, 2, 2), hidden=4), 2, 2, (36, 36))
    collector = Collector(
        make_env(env_config, 2), network, env_config, collect, ExploreConfig(anneal_steps=0)
    )
    layout = ShardLayout(
        sources=(0,), lanes_per_source=2, rows=64, frame_shape=(36, 36), stack=2,
        stack_start="blank", past_actions=2, n_step=10, anneals_returns=True,
    )  # fmt: skip
    shard = ReplayShard(ReplayConfig(), layout)
    rewards, ends, ages, actions, horizons = [], [], [], [], set()
    for number in range(20):  # 240 rows: almost four times round the ring
        chunk, _ = collector.collect()
        rewards.append(chunk.reward_ET)
        ends.append(chunk.end_ET)
        ages.append(chunk.age_ET)
        actions.append(chunk.action_ET)
        shard.add(chunk)
        if number < 2:
            continue
        reward_LT, end_LT, age_LT, action_LT = (
            np.concatenate(parts, axis=1) for parts in (rewards, ends, ages, actions)
        )
        for clock in (0, 30, 100):
            shard.returns = n, gamma = returns_at(collect, clock)
            placed = shard.sample_places(40)
            for b in range(40):
                row, lane = divmod(int(placed.key_B[b]), 2)
                total, discount, k = 0.0, 1.0, 0
                while k < n:
                    total += discount * reward_LT[lane, row + k]
                    end = end_LT[lane, row + k]
                    discount, k = discount * gamma * (end != 2), k + 1
                    if end:
                        break
                assert placed.horizon_B[b] == k
                assert placed.return_B[b] == pytest.approx(total, abs=1e-5)
                assert placed.discount_B[b] == pytest.approx(discount, abs=1e-6)
                # The next observation, with its age and its past actions, is k rows later.
                age = age_LT[lane, row + k]
                past = [action_LT[lane, row + k - 1 - j] if j < age else -1 for j in range(2)]
                assert placed.next_age_B[b] == age and placed.next_past_BK[b].tolist() == past
                horizons.add((n, k))
            sample = shard.sample(8)  # the next observation is `horizon` rows later
            assert (sample.next_obs_BSHW[:, -1] != sample.obs_BSHW[:, -1]).any()
    assert {k for n, k in horizons if n == 10} == set(range(1, 11))
    assert {k for n, k in horizons if n == 3} == {1, 2, 3}


def test_annealed_draws_equal_the_collectors_returns_at_the_start(tmp_path):
    """With n and γ of the collector, the draws are those that the collector computed; and a saved
    shard draws the same.
    """
    env_config = EnvConfig(env="genray.rl.catch:Catch")
    shards = []
    for collect in (BBF, replace(BBF, n_step_end=0, gamma_end=0.0)):
        collect = replace(collect, collectors=1, envs_per_collector=2, chunk_rows=10)
        network = QNetwork(NetworkConfig(channels=(2, 2, 2), hidden=4, past_actions=2), 3)
        for weight in network.parameters():
            weight.data.zero_()
        collector = Collector(
            make_env(env_config, 2), network, env_config, collect, ExploreConfig()
        )
        layout = ShardLayout(
            sources=(0,), lanes_per_source=2, rows=200, frame_shape=(84, 84), stack=4,
            stack_start="blank", past_actions=2, n_step=10, anneals_returns=collect.anneals_returns,
        )  # fmt: skip
        shard = ReplayShard(ReplayConfig(), layout)
        for _ in range(12):
            shard.add(collector.collect()[0])
        shard.returns = (10, 0.97)
        shards.append(shard)
    state = shards[0].save(tmp_path)
    again = ReplayShard(ReplayConfig(), shards[0].layout)
    again.load(tmp_path, state)
    again.returns = (10, 0.97)
    one, plain, loaded = (shard.sample(64) for shard in (*shards, again))
    for name in vars(one):
        np.testing.assert_allclose(getattr(one, name), getattr(plain, name), rtol=1e-6)
        np.testing.assert_array_equal(getattr(one, name), getattr(loaded, name))
    with pytest.raises((CheckpointError, FileNotFoundError)):
        (tmp_path / "reward_LC.npy").unlink()
        again.load(tmp_path, state)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (CollectConfig(n_step=3, n_step_end=5), "--n-step-end 5: n falls from --n-step 3"),
        (CollectConfig(gamma=1.0, gamma_end=0.9), "--gamma-end 0.9: .* which must be < 1"),
        (LearnerConfig(learning_rate_end=1e-5), "--learning-rate-fall 0 0: needs"),
        (LearnerConfig(learning_rate_fall=(1, 2)), "--learning-rate-fall 1 2: needs"),
        (LearnerConfig(weight_decay=0.1), "--weight-decay 0.1: only adamw"),
        (LearnerConfig(target_network=False, target_tau=0.1), "--no-target-network: "),
    ],
)
def test_annealing_and_optimizer_options_that_contradict_are_refused(config, words):
    with pytest.raises(ConfigError, match=f"^{words}"):
        config.validate()
