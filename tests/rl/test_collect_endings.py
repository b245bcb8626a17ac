"""Tests how collectors treat terminations, truncations and lost lives."""

from typing import Literal

import numpy as np
import pytest
import torch

from genray.rl.agent import LocalAgent
from genray.rl.collect import CollectConfig
from genray.rl.config import DQNConfig, RunConfig
from genray.rl.env import AtariLanes, EnvConfig, FrameVectorEnv, Step
from genray.rl.exploration import ExploreConfig
from genray.rl.learner import LearnerConfig
from genray.rl.networks import NetworkConfig
from genray.rl.replay import ReplayConfig
from tests.helpers.collectors import LANES, PONG, Endless, make
from tests.oracles import RecordedAtari


class TruncationAsTermination:
    """Reports the truncations of an environment as terminations, which removes the bootstrap."""

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
    """Assert that every transition bootstraps with γ^k, because Pong is truncated before it can
    terminate. Transitions near the end bootstrap from the last frame of the episode, and never from
    the frame of a reset.
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
        # The bootstrap belongs to the same episode, and the next row begins another one.
        assert age[lane, row + horizon[lane, column]] == age[lane, row] + horizon[lane, column]
        assert age[lane, row + horizon[lane, column] + 1] == 0


def test_collect_bootstraps_at_truncation():
    assert_truncations_bootstrap(AtariLanes(PONG, LANES, num_threads=1))
    # Without the bootstrap, the check fails.
    with pytest.raises(AssertionError):
        assert_truncations_bootstrap(
            TruncationAsTermination(AtariLanes(PONG, LANES, num_threads=1))
        )


class EndlessLost(Endless):
    """Endless, but with terminations instead of truncations."""

    def step(self, action_E: np.ndarray) -> Step:
        step = super().step(action_E)
        return step._replace(terminated_E=step.truncated_E, truncated_E=step.terminated_E)


def learned_value(env: str) -> float:
    """Return the mean Q after about 300 updates in one process."""
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


def test_collect_gives_a_truncated_task_its_endless_return():
    """The value is 1/(1 − 0.5) = 2, although no episode is longer than 4 steps. With terminations
    instead, it would be the mean of the targets of the four steps: Q = (1.75 + Q/8 + 1.75 + 1.5 +
    1)/4, i.e. 1.548.
    """
    assert learned_value("Endless") == pytest.approx(2.0, abs=0.05)
    assert learned_value("EndlessLost") == pytest.approx(1.548, abs=0.05)


def test_collect_ends_the_return_at_a_lost_life_only_if_configured():
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
        # After a lost life the game continues without a reset, and the stack spans the loss.
        assert all(env.lives[lane][t + 1].age == env.lives[lane][t].age + 1 for lane, t in lost)
