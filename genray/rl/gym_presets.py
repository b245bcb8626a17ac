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
    """CartPole-v1: 36,000 agent steps, an update of 256 per 8 steps.

    4,350 updates. Replay: 36,000 x (16 + 21) bytes = 1.3 MB. The policy is an average of the
    weights, because single ones differ much from update to update, and the best one of twelve, in
    30 games each, is kept, because later ones may be worse. n = 10, because the pole falls many
    steps after the action that made it fall, and γ = 0.995, because a cart that drifts leaves its
    track hundreds of steps later. Rewards are scaled by 1/10: returns then reach 20 instead of 200,
    which the Huber loss, whose gradient is at most 1, learns sooner.
    """
    return DQNConfig(
        env=EnvConfig(env="CartPole-v1"),
        network=NetworkConfig(hidden=256, dueling=False, normalise=True),
        replay=ReplayConfig(
            capacity=36_000, min_size=1_000, samples_per_insert=32.0, beta_anneal_updates=4_350
        ),
        learner=LearnerConfig(
            batch_size=256,
            learning_rate=2e-3,
            learning_rate_end=2e-4,
            learning_rate_fall=(2_250, 4_350),
            optimizer_epsilon=1e-8,
            target_period_updates=50,
            average_updates=500,
        ),
        explore=ExploreConfig(exploration="shared", epsilon=0.1, anneal_steps=8_000),
        collect=CollectConfig(
            collectors=1,
            envs_per_collector=8,
            chunk_rows=8,
            n_step=10,
            gamma=0.995,
            reward_clip="none",
            reward_scale=0.1,
        ),
        run=RunConfig(
            steps=36_000,
            evaluate_every=3_000,
            checkpoint_every=0,
            saved_policy="best",
            evaluate_episodes=90,
            evaluate_epsilon=0.0,
        ),
    )


def acrobot() -> DQNConfig:
    """Acrobot-v1: 60,000 agent steps."""
    base = cartpole()
    return replace(
        base,
        env=EnvConfig(env="Acrobot-v1"),
        network=replace(base.network, hidden=128, normalise=False),
        replay=replace(base.replay, capacity=60_000, beta_anneal_updates=7_300),
        learner=replace(base.learner, learning_rate_fall=(4_000, 7_300)),
        collect=replace(base.collect, gamma=0.99),
        run=replace(base.run, steps=60_000, evaluate_every=4_000),
    )


def lunar_lander() -> DQNConfig:
    """LunarLander-v3, which needs the package Box2D: 200,000 agent steps. Rewards reach ±100, and a
    flight takes several hundred steps, so γ is 0.995, as for CartPole.
    """
    base = cartpole()
    return replace(
        base,
        env=EnvConfig(env="LunarLander-v3"),
        replay=replace(base.replay, capacity=100_000, beta_anneal_updates=25_000),
        learner=replace(base.learner, learning_rate=1e-3, learning_rate_fall=(10_000, 25_000)),
        explore=replace(base.explore, anneal_steps=20_000),
        run=replace(base.run, steps=200_000, evaluate_every=20_000, evaluate_episodes=30),
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
        collect=replace(base.collect, gamma=0.99, reward_scale=1.0),
        run=replace(base.run, evaluate_episodes=30),
    )


def doorkey() -> DQNConfig:
    """MiniGrid-DoorKey-5x5-v0 of the package minigrid: 150,000 agent steps.

    The goal needs a key and a door, so random play reaches it in one of twenty games or fewer: ε
    falls over 60,000 steps, and the replay keeps everything.
    """
    base = minigrid()
    return replace(
        base,
        env=replace(base.env, env_config='{"name": "MiniGrid-DoorKey-5x5-v0"}'),
        replay=replace(base.replay, capacity=150_000, beta_anneal_updates=18_600),
        learner=replace(base.learner, learning_rate_fall=(8_000, 18_600)),
        explore=replace(base.explore, anneal_steps=60_000),
        run=replace(base.run, steps=150_000, evaluate_every=10_000),
    )


def minatar() -> DQNConfig:
    """MinAtar's Breakout, of the package MinAtar: 500,000 frames of 10x10 pixels. Another game:
    --env-config '{"game": "asterix"}'.

    Three 3x3 convolutions of 16 channels and a fully connected layer; the paper has one such
    convolution. [Young 2019, https://arxiv.org/abs/1903.03176]
    """
    base = cartpole()
    return replace(
        base,
        env=EnvConfig(env="genray.rl.gym_envs:minatar", stack=1),
        network=NetworkConfig(channels=(16, 16, 16), hidden=128),
        replay=replace(base.replay, capacity=100_000, min_size=5_000, beta_anneal_updates=60_000),
        learner=replace(base.learner, learning_rate=5e-4, learning_rate_fall=(30_000, 60_000)),
        explore=replace(base.explore, anneal_steps=50_000),
        collect=replace(base.collect, n_step=3, gamma=0.99, reward_scale=1.0),
        run=replace(base.run, steps=500_000, evaluate_every=50_000, evaluate_episodes=30),
    )
