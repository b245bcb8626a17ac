"""Defines the presets of Rainbow and of later agents. docs/concepts/sample_efficient.md lists the
departures from each paper.

An agent of these papers plays one game at a time, so `collectors` and `envs_per_collector` are 1;
updates per agent step are `samples_per_insert` / `batch_size`.
"""

from dataclasses import replace

from genray.rl.collect import CollectConfig
from genray.rl.config import DQNConfig, RunConfig
from genray.rl.env import EnvConfig
from genray.rl.exploration import ExploreConfig
from genray.rl.learner import LearnerConfig
from genray.rl.networks import NetworkConfig
from genray.rl.replay import ReplayConfig

ATARI_100K = RunConfig(steps=100_000, evaluate_every=50_000, checkpoint_every=50_000, keep=1)
# 108,000 frames are 27,000 agent steps, the limit of Atari-100k.
BREAKOUT = EnvConfig(game="breakout", life_loss="terminal", max_episode_frames=108_000)


def rainbow() -> DQNConfig:
    """Rainbow, with the sizes of the paper: a GPU, and 50 million agent steps.

    [Hessel 2018, https://arxiv.org/abs/1710.02298] Replay: 1,000,000 x 7,077 bytes = 7.1 GB. One
    update of 32 per 4 steps is 8 samples per insert. The target network is copied every 32,000
    frames = 8,000 steps = 2,000 updates.
    """
    return DQNConfig(
        env=BREAKOUT,
        network=NetworkConfig(head="c51", noisy=0.5),
        replay=ReplayConfig(
            capacity=1_000_000,
            min_size=20_000,
            samples_per_insert=8.0,
            alpha=0.5,
            beta_anneal_updates=12_500_000,
        ),
        learner=LearnerConfig(
            learning_rate=6.25e-5, target_period_updates=2_000, max_grad_norm=10.0
        ),
        # Noisy layers explore, so ε is 0.
        explore=ExploreConfig(exploration="shared", epsilon=0.0),
        collect=CollectConfig(collectors=1, envs_per_collector=1, chunk_rows=16, n_step=3),
        run=RunConfig(steps=50_000_000, evaluate_every=2_500_000, checkpoint_every=2_500_000),
    )


def der() -> DQNConfig:
    """Data-efficient Rainbow: 100,000 agent steps of one game, an update of 32 per step.

    [van Hasselt 2019, https://arxiv.org/abs/1906.05243] Replay: 100,000 x 7,077 bytes = 708 MB.
    """
    base = rainbow()
    return replace(
        base,
        network=NetworkConfig(encoder="der", head="c51", noisy=0.1, hidden=256),
        replay=replace(
            base.replay,
            capacity=100_000,
            min_size=1_600,
            samples_per_insert=32.0,
            beta_anneal_updates=100_000,
        ),
        learner=replace(base.learner, learning_rate=1e-4),
        collect=replace(base.collect, chunk_rows=4, n_step=20),
        run=ATARI_100K,
    )


def drq_eps() -> DQNConfig:
    """DrQ(ε): DQN with augmentation, 100,000 agent steps of one game, an update of 32 per step.

    [Kostrikov 2020, https://arxiv.org/abs/2004.13649; Agarwal 2021,
    https://arxiv.org/abs/2108.13264] Replay: 100,000 x 7,077 bytes = 708 MB. The target network is
    copied after every update.
    """
    return DQNConfig(
        env=BREAKOUT,
        replay=ReplayConfig(
            capacity=100_000, min_size=1_600, samples_per_insert=32.0, prioritized=False
        ),
        learner=LearnerConfig(target_period_updates=1, max_grad_norm=10.0, shift=4, intensity=0.05),
        explore=ExploreConfig(
            exploration="shared", epsilon=0.01, random_steps=1_600, anneal_steps=5_000
        ),
        collect=CollectConfig(collectors=1, envs_per_collector=1, chunk_rows=4, n_step=10),
        run=ATARI_100K,
    )


def bbf() -> DQNConfig:
    """BBF, with the sizes of the paper: 100,000 agent steps of one game, for a GPU.

    [Schwarzer 2023, https://arxiv.org/abs/2305.19452] 2 updates of 32 per step: 196,000 updates,
    with a reset every 20,000. Replay: 100,000 x 7,082 bytes = 708 MB.
    """
    return DQNConfig(
        env=BREAKOUT,
        network=NetworkConfig(
            encoder="impala", impala_width=4.0, head="c51", hidden=2_048, shared_hidden=True
        ),
        replay=ReplayConfig(
            capacity=100_000,
            min_size=2_000,
            samples_per_insert=64.0,
            alpha=0.5,
            beta=0.5,
            beta_end=0.5,
        ),
        learner=LearnerConfig(
            optimizer="adamw",
            weight_decay=0.1,
            learning_rate=1e-4,
            max_grad_norm=10.0,
            target_tau=0.005,
            acting_network="target",
            shift=4,
            intensity=0.05,
            reset_every=20_000,
            reset_keep=0.5,
            prediction_steps=5,
            prediction_weight=5.0,
        ),
        explore=ExploreConfig(
            exploration="shared", epsilon=0.0, random_steps=2_000, anneal_steps=2_000
        ),
        collect=CollectConfig(
            collectors=1,
            envs_per_collector=1,
            chunk_rows=4,
            n_step=10,
            n_step_end=3,
            gamma=0.97,
            gamma_end=0.997,
        ),
        run=replace(ATARI_100K, evaluate_epsilon=0.0),
    )


def btr() -> DQNConfig:
    """BTR, with the sizes of the paper: 50 million agent steps on a GPU.

    [Clark 2024, https://arxiv.org/abs/2411.03820] 64 games and one update of 256 per 64 steps are 4
    samples per insert. Replay: 1,048,576 x 7,077 bytes = 7.4 GB. ε falls from 1 to 0.01 over 2
    million steps. The target network is copied every 500 updates.
    """
    return DQNConfig(
        env=replace(BREAKOUT, sticky_actions=0.25, life_loss="ignore"),
        network=NetworkConfig(
            encoder="impala",
            impala_width=2.0,
            pooling="max",
            spectral_norm=True,
            head="iqn",
            quantiles=8,
            noisy=0.5,
        ),
        replay=ReplayConfig(
            capacity=2**20,
            min_size=200_000,
            samples_per_insert=4.0,
            alpha=0.2,
            beta=0.4,
            beta_end=0.4,
        ),
        learner=LearnerConfig(
            batch_size=256,
            double=False,
            munchausen=0.9,
            optimizer_epsilon=0.005 / 256,
            target_period_updates=500,
            max_grad_norm=10.0,
        ),
        explore=ExploreConfig(exploration="shared", epsilon=0.01, anneal_steps=2_000_000),
        collect=CollectConfig(
            collectors=4, envs_per_collector=16, chunk_rows=16, n_step=3, gamma=0.997
        ),
        run=RunConfig(steps=50_000_000, evaluate_every=2_000_000, checkpoint_every=2_000_000),
    )


def rainbow_lite() -> DQNConfig:
    """A Rainbow for ten minutes of one core, and any game.

    [Hessel 2018, https://arxiv.org/abs/1710.02298] Eight games at a time, one update of 32 per 4
    steps: 150,000·8/32 = 37,000 updates, which a slow core does not reach in ten minutes. Replay:
    150,000 x 7,077 bytes = 1.1 GB. Departures: a narrow network with layer norm, n = 5, ε instead
    of noisy layers, augmentation, a learning rate that falls, and the policy is the average of the
    weights over 1,000 updates.
    """
    return DQNConfig(
        env=EnvConfig(game="breakout", max_episode_frames=18_000, life_loss="terminal"),
        network=NetworkConfig(channels=(16, 32, 32), hidden=256, layer_norm=True, head="c51"),
        replay=ReplayConfig(
            capacity=150_000,
            min_size=2_000,
            samples_per_insert=8.0,
            alpha=0.5,
            beta=0.5,
            beta_end=0.5,
        ),
        learner=LearnerConfig(
            learning_rate=5e-4,
            learning_rate_end=1e-4,
            learning_rate_fall=(10_000, 20_000),
            optimizer_epsilon=1e-8,
            target_period_updates=500,
            max_grad_norm=10.0,
            average_updates=1_000,
            shift=4,
            intensity=0.05,
        ),
        explore=ExploreConfig(
            exploration="shared", epsilon=0.01, random_steps=1_000, anneal_steps=15_000
        ),
        collect=CollectConfig(collectors=1, envs_per_collector=8, chunk_rows=16, n_step=5),
        run=RunConfig(steps=150_000, evaluate_every=50_000, checkpoint_every=50_000, keep=1),
    )


def bbf_lite() -> DQNConfig:
    """A BBF for one core: 20,000 agent steps of one game.

    [Schwarzer 2023, https://arxiv.org/abs/2305.19452] One game at a time, three networks that act
    by their mean Q-values, and one update of 32 for each network per agent step: 20,000 − 300 =
    19,700 updates. Replay: 20,000 x 7,082 bytes = 142 MB. Departures for the sake of time: the DER
    encoder instead of IMPALA x 4, a hidden layer of 512 instead of 2,048, one update per step
    instead of two, no self-prediction, and no resets. Further departures: the ensemble, the median
    frame is subtracted, rewards are √(r/100) instead of clipped ones, γ ends at 0.995, ε is 1 for
    700 steps and falls to 0.01 within 700 more, random actions are held, and the learning rate
    falls.
    """
    return DQNConfig(
        env=EnvConfig(game="road_runner", max_episode_frames=18_000, life_loss="terminal"),
        network=NetworkConfig(
            encoder="der",
            head="c51",
            hidden=512,
            shared_hidden=True,
            median_frame=True,
            input_gain=4.0,
            ensemble=3,
        ),
        replay=ReplayConfig(
            capacity=20_000,
            min_size=300,
            samples_per_insert=96.0,  # 96 / batches of 96 = 1 update per step
            alpha=0.5,
            beta=0.5,
            beta_end=0.5,
        ),
        learner=LearnerConfig(
            batch_size=96,  # 32 for each network
            optimizer="adamw",
            weight_decay=0.1,
            learning_rate=3e-4,
            learning_rate_end=9e-5,
            learning_rate_fall=(10_000, 20_000),
            max_grad_norm=10.0,
            target_tau=0.005,
            acting_network="target",
            shift=4,
            intensity=0.05,
        ),
        explore=ExploreConfig(
            exploration="shared",
            epsilon=0.01,
            random_steps=700,
            anneal_steps=700,
            persistence=1.25,
            max_held_steps=60,
            max_held_steps_end=10,
        ),
        collect=CollectConfig(
            collectors=1,
            envs_per_collector=1,
            chunk_rows=4,
            n_step=10,
            n_step_end=3,
            gamma=0.97,
            gamma_end=0.995,
            reward_clip="sqrt",
            reward_scale=0.01,
        ),
        run=RunConfig(steps=20_000, evaluate_every=10_000, checkpoint_every=10_000, keep=1),
    )
