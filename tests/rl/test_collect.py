"""Collectors: first priorities against the slow double-Q error, endings, scores, ε, and
truncation's bootstrap.
"""

from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
import torch

from genray.errors import RunFault
from genray.rl import targets
from genray.rl.agent import LocalAgent
from genray.rl.collect import CollectConfig, Collector, Lanes
from genray.rl.config import DQNConfig, RunConfig
from genray.rl.env import AtariLanes, EnvConfig, FrameVectorEnv, Step
from genray.rl.exploration import ExploreConfig
from genray.rl.learner import Learner, LearnerConfig
from genray.rl.networks import NetworkConfig, QNetwork
from genray.rl.replay import ReplayConfig, ReplayShard, plan_shards
from tests.oracles import RecordedAtari, slow_priority

LANES = 2
CONFIG = CollectConfig(collectors=1, envs_per_collector=LANES, chunk_rows=64)
SMALL = NetworkConfig(channels=(4, 4, 4), hidden=16)
PONG = EnvConfig(game="pong", max_episode_frames=200)  # up to 50 steps, then cut


def make(
    env: FrameVectorEnv,
    env_config: EnvConfig = PONG,
    config: CollectConfig = CONFIG,
    explore: ExploreConfig = ExploreConfig(),  # noqa: B008 - frozen
    network: NetworkConfig = SMALL,
    seed: int = 0,
) -> Collector:
    torch.manual_seed(seed)
    net = QNetwork(network, env.num_actions, env_config.stack, env.frame_shape)
    return Collector(env, net, env_config, config, explore, seed=seed)


def shard_for(
    env_config: EnvConfig, config: CollectConfig = CONFIG, past_actions: int = 0
) -> ReplayShard:
    replay = ReplayConfig(capacity=LANES * 400, min_size=1)
    [layout] = plan_shards(
        replay,
        collectors=1,
        lanes=LANES,
        frame_shape=(84, 84),
        stack=env_config.stack,
        stack_start=env_config.stack_start,
        past_actions=past_actions,
        n_step=config.n_step,
        chunk_rows=config.chunk_rows,
    )
    return ReplayShard(replay, layout)


@pytest.mark.parametrize(
    ("dueling", "past_actions", "n"), [(True, 0, 3), (False, 4, 1), (True, 2, 5)]
)
def test_first_priorities_are_the_n_step_double_q_error(dueling: bool, past_actions: int, n: int):
    """Ape-X: |R + γⁿ Q(s', argmax_a Q(s', a; w); w⁻) − Q(s, a; w)| with the collector's own
    weights as w and as w⁻, worked out again from the observations that the shard gives back.
    """
    env_config = EnvConfig(game="breakout", life_loss="terminal", max_episode_frames=200)
    config = replace(CONFIG, n_step=n)
    env = AtariLanes(env_config, LANES, num_threads=1)
    collector = make(
        env, env_config, config, network=replace(SMALL, dueling=dueling, past_actions=past_actions)
    )
    shard = shard_for(env_config, config, past_actions)
    delta_of: dict[tuple[int, int], float] = {}
    for _ in range(4):
        chunk, _ = collector.collect()
        shard.add(chunk)
        for lane, t in np.argwhere(chunk.valid_ET):
            delta_of[int(lane), chunk.first_row - n + int(t)] = float(chunk.delta_ET[lane, t])
    env.close()
    batch = shard.sample(300)
    slow_B = slow_priority(
        collector.network,
        batch.obs_BSHW,
        batch.past_BK,
        batch.action_B,
        batch.return_B,
        batch.discount_B,
        batch.next_obs_BSHW,
        batch.next_past_BK,
    )
    fast_B = np.array([delta_of[key % LANES, key // LANES] for key in batch.key_B.tolist()])
    np.testing.assert_allclose(fast_B, slow_B, rtol=1e-4, atol=1e-5)
    assert slow_B.std() > 1e-3 and (batch.discount_B == 0).any() and (batch.discount_B > 0).any()
    # … which is what the shard draws by, and what a learner whose weights are the same finds for
    # itself.
    powered_B = targets.priority(slow_B, shard.config.priority_epsilon, shard.config.alpha)
    np.testing.assert_allclose(batch.probability_B * shard.total, powered_B, rtol=1e-3)
    learner = Learner(LearnerConfig(), collector.network, collector.network.__class__(
        collector.network.config, env.num_actions, 4))  # fmt: skip
    np.testing.assert_allclose(
        learner.update(batch, shard.size, 0.4).delta_B, slow_B, rtol=1e-4, atol=1e-5
    )


def test_priorities_across_a_change_of_weights_use_what_was_known_when_acting():
    """New weights arrive between two chunks: a transition that ends in the second uses each
    row's own Q-values.
    """
    env = RecordedAtari(PONG, LANES)
    collector = make(env)
    old = QNetwork(SMALL, env.num_actions)
    old.load_state_dict(collector.network.state_dict())
    collector.collect()
    torch.manual_seed(99)
    new = QNetwork(SMALL, env.num_actions)
    collector.set_weights(new.state_dict(), 7)
    chunk, _ = collector.collect()
    assert chunk.weight_version == 7
    env.close()
    for lane, life in enumerate(env.lives):
        # rows 61, 62, 63 acted with the old weights, bootstrap at 64, 65, 66 with the new
        for t in range(3):
            row = 61 + t
            assert not any(life[row + k].over or life[row + k].truncated for k in range(4))
            with torch.no_grad():
                q = float(old(torch.from_numpy(env.stacks[lane][row][None]))[0, life[row].action])
                q_next = float(new(torch.from_numpy(env.stacks[lane][row + 3][None])).max())
            target = float(chunk.return_ET[lane, t]) + float(chunk.discount_ET[lane, t]) * q_next
            assert chunk.delta_ET[lane, t] == pytest.approx(abs(target - q), rel=1e-4, abs=1e-5)


# --- endings --------------------------------------------------------------------------------------


class CutAsIfLost:
    """A real environment whose truncations are reported as terminations: the bootstrap at
    truncation switched off.
    """

    def __init__(self, env: FrameVectorEnv):
        self._env = env
        self.num_lanes, self.num_actions, self.frame_shape = (
            env.num_lanes,
            env.num_actions,
            env.frame_shape,
        )

    def reset(self, seed: int) -> np.ndarray:
        return self._env.reset(seed)

    def step(self, action_E: np.ndarray) -> Step:
        step = self._env.step(action_E)
        return step._replace(
            terminated_E=step.terminated_E | step.truncated_E,
            truncated_E=np.zeros_like(step.truncated_E),
        )

    def close(self) -> None:
        self._env.close()


def assert_truncations_bootstrap(env: FrameVectorEnv) -> None:
    """In Pong cut so early nothing terminates: every transition bootstraps with γ^k, from the
    cut episode's own last frame where it is near, and never from a reset's.
    """
    collector = make(env)
    chunks = [collector.collect()[0] for _ in range(4)]
    env.close()
    valid, discount, horizon, age = (
        np.concatenate([getattr(chunk, name) for chunk in chunks], axis=1)
        for name in ("valid_ET", "discount_ET", "horizon_ET", "age_ET")
    )
    short = valid & (horizon < 3)
    assert short.sum() >= 2 * LANES
    np.testing.assert_allclose(discount[valid], 0.99 ** horizon[valid].astype(float), rtol=1e-6)
    for lane, column in np.argwhere(short):
        row = column - 3  # transitions lag n rows behind the frames
        # same episode
        assert age[lane, row + horizon[lane, column]] == age[lane, row] + horizon[lane, column]
        assert age[lane, row + horizon[lane, column] + 1] == 0  # … and the next row begins another


def test_truncation_bootstraps():
    assert_truncations_bootstrap(AtariLanes(PONG, LANES, num_threads=1))
    with pytest.raises(AssertionError):  # the check can tell: with the bootstrap dropped it fails
        assert_truncations_bootstrap(CutAsIfLost(AtariLanes(PONG, LANES, num_threads=1)))


class Endless:
    """One grey picture, reward 1 for whatever is done, cut after every 4 steps: worth 1 + γ + γ²
    + … = 1/(1 − γ).
    """

    num_actions = 2
    frame_shape = (36, 36)

    def __init__(self, num_lanes: int):
        self.num_lanes = num_lanes
        self._age = 0

    def reset(self, seed: int) -> np.ndarray:
        self._age = 0
        return np.full((self.num_lanes, 36, 36), 128, np.uint8)

    def step(self, action_E: np.ndarray) -> Step:
        begins = self._age == 4
        self._age = 0 if begins else self._age + 1
        none_E = np.zeros(self.num_lanes, bool)
        reward_E = np.full(self.num_lanes, 0.0 if begins else 1.0, np.float32)
        return Step(
            np.full((self.num_lanes, 36, 36), 128, np.uint8),
            reward_E,
            none_E,
            none_E | (self._age == 4),
            none_E,
        )

    def close(self) -> None:
        pass


class EndlessLost(Endless):
    """The same, but its cuts are called terminations."""

    def step(self, action_E: np.ndarray) -> Step:
        step = super().step(action_E)
        return step._replace(terminated_E=step.truncated_E, truncated_E=step.terminated_E)


def learned_value(env: str) -> float:
    """The mean Q after some 300 updates in one process."""
    config = DQNConfig(
        env=EnvConfig(env=f"{__name__}:{env}", stack=1),
        network=NetworkConfig(channels=(2, 2, 2), hidden=8),
        replay=ReplayConfig(capacity=1000, min_size=100, samples_per_insert=16, prioritized=False),
        learner=LearnerConfig(learning_rate=3e-2, target_period_updates=5),
        explore=ExploreConfig(exploration="shared", epsilon=1.0),
        collect=CollectConfig(
            collectors=1, envs_per_collector=4, chunk_rows=16, gamma=0.5, n_step=3
        ),
        run=RunConfig(device="cpu"),
    )
    agent = LocalAgent(config)
    agent.advance(832, seconds=100)
    assert 250 < agent.learner.updates < 350
    with torch.no_grad():
        return float(agent.network()(torch.full((1, 1, 36, 36), 128, dtype=torch.uint8)).mean())


def test_a_task_that_is_only_ever_cut_is_worth_its_endless_return():
    """1/(1 − 0.5) = 2, although no episode is longer than 4 steps. Were the cuts terminations,
    it would be the mean of the four steps' targets: Q = (1.75 + Q/8 + 1.75 + 1.5 + 1)/4, so
    1.548.
    """
    assert learned_value("Endless") == pytest.approx(2.0, abs=0.05)
    assert learned_value("EndlessLost") == pytest.approx(1.548, abs=0.05)


def test_a_lost_life_ends_the_return_only_where_that_was_chosen():
    rules: tuple[Literal["terminal", "ignore"], ...] = ("terminal", "ignore")
    for life_loss in rules:
        env_config = EnvConfig(game="breakout", life_loss=life_loss)
        env = RecordedAtari(env_config, LANES)
        collector = make(env, env_config, explore=ExploreConfig(exploration="shared", epsilon=1.0))
        chunks = [collector.collect()[0] for _ in range(2)]
        env.close()
        discount_ET = np.concatenate([chunk.discount_ET for chunk in chunks], axis=1)[:, 3:]
        rows = [
            (lane, t, life[t])
            for lane, life in enumerate(env.lives)
            for t in range(discount_ET.shape[1])
        ]
        lost = [(lane, t) for lane, t, row in rows if row.life_lost and not row.terminated]
        died = [(lane, t) for lane, t, row in rows if row.terminated]
        assert len(lost) >= 4
        assert all(discount_ET[lane, t] == 0 for lane, t in died)
        assert all((discount_ET[lane, t] == 0) == (life_loss == "terminal") for lane, t in lost)
        # The game goes on after a lost life: no reset, and the stack reaches back across it.
        assert all(env.lives[lane][t + 1].age == env.lives[lane][t].age + 1 for lane, t in lost)


def test_scores_are_the_games_own_and_learning_sees_clipped_rewards():
    """Ms. Pac-Man pays tens at a time: episodes report them whole, the replay gets at most 1 a
    step.
    """
    env_config = EnvConfig(game="ms_pacman", max_episode_frames=600)
    env = RecordedAtari(env_config, LANES)
    collector = make(
        env, env_config, replace(CONFIG, n_step=1), ExploreConfig(exploration="shared", epsilon=1.0)
    )
    played = [collector.collect() for _ in range(7)]
    env.close()
    episodes = [episode for _, ended in played for episode in ended]
    slow = []
    for life in env.lives:
        score, steps = 0.0, 0
        for t, row in enumerate(life):
            score, steps = score + row.reward, steps + (not row.over)
            if row.terminated or row.truncated:
                slow.append((t, score, steps))
                score, steps = 0.0, 0
    assert sorted((e.score, e.steps) for e in episodes) == sorted(
        (score, steps) for _, score, steps in slow
    )
    assert len(episodes) >= 4 and max(e.score for e in episodes) >= 100
    return_ET = np.concatenate([chunk.return_ET for chunk, _ in played], axis=1)
    assert set(np.unique(return_ET).tolist()) <= {-1.0, 0.0, 1.0} and (return_ET == 1).any()


@pytest.mark.parametrize(
    ("rule", "expected"), [("clip", [-0.5, 1]), ("sign", [-1, 1]), ("none", [-0.5, 9])]
)
def test_reward_rules(rule, expected):
    """Rewards −½ and 9 in two lanes."""

    class Paying(Endless):
        def step(self, action_E):
            return super().step(action_E)._replace(reward_E=np.array([-0.5, 9], np.float32))

    config = replace(CONFIG, reward_clip=rule, n_step=1, chunk_rows=3)
    collector = make(Paying(LANES), EnvConfig(stack=1), config)
    chunk, _ = collector.collect()
    assert chunk.return_ET[:, 1].tolist() == expected


# --- ε, seeds, the lanes' own view ----------------------------------------------------------------


def test_every_lane_has_its_own_place_on_the_runs_ladder():
    config = replace(CONFIG, collectors=3)
    found = []
    for index in range(3):
        env = Endless(LANES)
        net = QNetwork(SMALL, 2, 1, (36, 36))
        collector = Collector(env, net, EnvConfig(stack=1), config, ExploreConfig(), index=index)
        found += collector.epsilon_E.tolist()
    np.testing.assert_allclose(found, [0.4 ** (1 + 7 * i / 5) for i in range(6)])


def test_epsilon_anneals_with_the_steps_of_the_whole_run():
    """Two collectors of 2 lanes: one chunk of 64 rows here stands for 256 steps of the run."""
    config = replace(CONFIG, collectors=2)
    net = QNetwork(SMALL, 2, 1, (36, 36))
    explore = ExploreConfig(exploration="shared", epsilon=0.2, anneal_steps=512)
    collector = Collector(Endless(LANES), net, EnvConfig(stack=1), config, explore)
    assert collector.epsilon_E.tolist() == [1.0] * LANES
    collector.collect()
    np.testing.assert_allclose(collector.epsilon_E, 0.6)
    collector.collect()
    np.testing.assert_allclose(collector.epsilon_E, 0.2)


def test_collectors_of_one_run_play_different_games():
    frames = []
    for index in range(2):
        env = AtariLanes(PONG, LANES, num_threads=1)
        torch.manual_seed(0)
        net = QNetwork(SMALL, env.num_actions)
        config = replace(CONFIG, collectors=2)
        collector = Collector(env, net, PONG, config, ExploreConfig(), index=index, seed=3)
        frames.append(collector.collect()[0])
        env.close()
    assert not np.array_equal(frames[0].action_ET, frames[1].action_ET)
    assert not np.array_equal(frames[0].frame_ETHW, frames[1].frame_ETHW)
    assert frames[0].incarnation != frames[1].incarnation


def test_waiting_lanes_do_nothing_and_teach_nothing():
    env_config = replace(PONG, stack_start="wait")
    env = RecordedAtari(env_config, LANES)
    collector = make(env, env_config, explore=ExploreConfig(exploration="shared", epsilon=1.0))
    chunks = [collector.collect()[0] for _ in range(3)]
    env.close()
    valid_ET = np.concatenate([chunk.valid_ET for chunk in chunks], axis=1)[:, 3:]
    rows = [
        (lane, t, life[t]) for lane, life in enumerate(env.lives) for t in range(valid_ET.shape[1])
    ]
    waiting = [(lane, t, row) for lane, t, row in rows if row.age < 3]
    assert len(waiting) >= 3 * 2 * LANES
    assert all(row.action == 0 and not valid_ET[lane, t] for lane, t, row in waiting)
    assert all(valid_ET[lane, t] == (not row.over) for lane, t, row in rows if row.age >= 3)


def test_lanes_by_hand():
    """Two lanes of 1x1 frames: the second begins a new episode at the third frame."""
    frame = lambda *values: np.array(values, np.uint8).reshape(2, 1, 1)  # noqa: E731
    for rule, second in (("blank", [0, 0, 0, 33]), ("repeat", [33, 33, 33, 33])):
        lanes = Lanes(frame(1, 11), EnvConfig(stack=4, stack_start=rule), past_actions=3)  # type: ignore[arg-type]
        lanes.push(frame(2, 22), np.array([5, 6]), np.array([False, False]))
        lanes.push(frame(3, 33), np.array([7, 8]), np.array([False, True]))
        assert lanes.stack_ESHW[0].ravel().tolist() == ([0] if rule == "blank" else [1]) + [1, 2, 3]
        assert lanes.stack_ESHW[1].ravel().tolist() == second
        assert lanes.past_EK.tolist() == [[7, 5, -1], [-1, -1, -1]]
        assert lanes.age_E.tolist() == [2, 0]


class Rich(Endless):
    """Endless with rewards near the end of float32's range."""

    def step(self, action_E: np.ndarray) -> Step:
        return super().step(action_E)._replace(reward_E=np.full(self.num_lanes, 3e38, np.float32))


def test_collect_refuses_rewards_that_float32_cannot_learn_from():
    with pytest.raises(
        RunFault, match=r"a reward of 3e\+38, more than the 1e\+18.*--reward-clip clip"
    ):
        make(Rich(LANES), config=replace(CONFIG, reward_clip="none")).collect()
    make(Rich(LANES), config=replace(CONFIG, reward_clip="clip")).collect()
