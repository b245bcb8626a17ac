"""Tests how collectors treat terminations, truncations and lost lives."""

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
from tests.helpers.collectors import CONFIG, LANES, PONG, SMALL, Endless, make, shard_for



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
