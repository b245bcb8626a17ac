"""Defines the presets of Gymnasium's small environments.

The networks are small, so one process on one core makes hundreds of updates in a second.
"""

from dataclasses import replace

from genray.rl.collect import CollectConfig
from genray.rl.config import DQNConfig, RunConfig
from genray.rl.env import EnvConfig
from genray.rl.exploration import ExploreConfig
from genray.rl.learner import LearnerConfig
from genray.rl.networks import NetworkConfig
from genray.rl.replay import ReplayConfig


def cartpole() -> DQNConfig:
    """CartPole-v1: 30,000 agent steps, an update of 256 per 8 steps.

    3,600 updates. Replay: 30,000 x (16 + 21) bytes = 1.1 MB. The policy is an average of the
    weights, because single ones differ much from update to update. n = 10, because the pole falls
    many steps after the action that made it fall.
    """
    return DQNConfig(
        env=EnvConfig(env="CartPole-v1"),
        network=NetworkConfig(hidden=128, dueling=False, normalise=True),
        replay=ReplayConfig(
            capacity=30_000, min_size=1_000, samples_per_insert=32.0, beta_anneal_updates=3_600
        ),
        learner=LearnerConfig(
            batch_size=256,
            learning_rate=2e-3,
            learning_rate_end=2e-4,
            learning_rate_fall=(1_000, 3_000),
            optimizer_epsilon=1e-8,
            target_period_updates=50,
            average_updates=500,
        ),
        explore=ExploreConfig(exploration="shared", epsilon=0.1, anneal_steps=10_000),
        collect=CollectConfig(
            collectors=1, envs_per_collector=8, chunk_rows=8, n_step=10, reward_clip="none"
        ),
        run=RunConfig(
            steps=30_000,
            evaluate_every=0,
            checkpoint_every=0,
            evaluate_episodes=30,
            evaluate_epsilon=0.0,
        ),
    )


def acrobot() -> DQNConfig:
    """Acrobot-v1: 30,000 agent steps, as `cartpole`."""
    base = cartpole()
    return replace(base, env=EnvConfig(env="Acrobot-v1"))


def lunar_lander() -> DQNConfig:
    """LunarLander-v3, which needs the package Box2D: 300,000 agent steps.

    Rewards reach ±100, so they are scaled by 1/10.
    """
    base = cartpole()
    return replace(
        base,
        env=EnvConfig(env="LunarLander-v3"),
        network=replace(base.network, hidden=256),
        replay=replace(base.replay, capacity=100_000, beta_anneal_updates=37_000),
        learner=replace(base.learner, learning_rate=5e-4, max_grad_norm=10.0),
        explore=replace(base.explore, epsilon=0.05, anneal_steps=50_000),
        collect=replace(base.collect, reward_scale=0.1),
        run=replace(base.run, steps=300_000),
    )


def minigrid() -> DQNConfig:
    """MiniGrid-Empty-5x5-v0 of the package minigrid; another one: --env-config '{"name": "NAME"}'.

    Cells are numbers from 0 to 10, of which the images' space says 0 to 255: the gain is 255 / 10.
    """
    base = cartpole()
    return replace(
        base,
        env=EnvConfig(env="genray.rl.gym_envs:minigrid", stack=1),
        network=NetworkConfig(channels=(16, 32, 32), hidden=128, input_gain=25.0),
    )


def minatar() -> DQNConfig:
    """MinAtar's Breakout, of the package MinAtar: 500,000 frames of 10x10 pixels. Another game:
    --env minatar:MinAtar/Asterix-v1.

    The network is the one of the paper, a convolution and a fully connected layer, with more
    channels. [Young 2019, https://arxiv.org/abs/1903.03176]
    """
    base = cartpole()
    return replace(
        base,
        env=EnvConfig(env="minatar:MinAtar/Breakout-v1", stack=1),
        network=NetworkConfig(channels=(16, 16, 16), hidden=128),
        replay=replace(base.replay, capacity=100_000, min_size=5_000, beta_anneal_updates=60_000),
        learner=replace(base.learner, learning_rate=2.5e-4, target_period_updates=500),
        explore=replace(base.explore, epsilon=0.1, anneal_steps=100_000),
        run=replace(base.run, steps=500_000),
    )
