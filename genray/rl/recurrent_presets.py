"""Defines the presets with an LSTM (R2D2)."""

from genray.rl.collect import CollectConfig
from genray.rl.config import DQNConfig, RunConfig
from genray.rl.env import EnvConfig
from genray.rl.exploration import ExploreConfig
from genray.rl.learner import LearnerConfig
from genray.rl.networks import NetworkConfig
from genray.rl.replay import ReplayConfig
from genray.rl.sequences import SequenceConfig


def r2d2() -> DQNConfig:
    """Breakout with R2D2 as published (Kapturowski 2019, table 2). Needs a GPU and many cores.

    256 lanes. Replay: 4,000,000 x (7,077 + 8 + 4·1,024/40 bytes) = 28.7 GB. The paper's learner
    made 5 updates of 64·80 transitions for 256·260 steps: 0.4 samples per insert.
    """
    return DQNConfig(
        env=EnvConfig(game="breakout"),
        network=NetworkConfig(lstm_units=512, value_rescaling=True),
        replay=ReplayConfig(
            capacity=4_000_000, shards=4, min_size=50_000, samples_per_insert=0.4,
            alpha=0.9, beta=0.6, beta_end=0.6,
        ),
        learner=LearnerConfig(
            batch_size=64, loss="squared", learning_rate=1e-4, optimizer_epsilon=1e-3
        ),
        collect=CollectConfig(
            collectors=32, envs_per_collector=8, chunk_rows=40, gamma=0.997, n_step=5,
            reward_clip="none",
        ),
        sequences=SequenceConfig(),
        run=RunConfig(steps=100_000_000, evaluate_every=5_000_000, checkpoint_every=5_000_000),
    )  # fmt: skip


def r2d2_lite() -> DQNConfig:
    """Road Runner with a small R2D2 for two cores: sequences of 20 steps after a burn-in of 10.

    Replay: 50,000 x (7,077 + 8 + 4·256/10 bytes) = 359 MB. 8 samples per insert and batches of 8·20
    make about 60,000·8/160 = 3,000 updates. Departures from the paper, as in `road_runner_quick`: a
    stack of four frames, clipped rewards instead of rescaled values, lost lives that end the
    return, n = 10, layer norm, and a policy of averaged weights.
    """
    return DQNConfig(
        env=EnvConfig(game="road_runner", max_episode_frames=18_000, life_loss="terminal"),
        network=NetworkConfig(channels=(16, 32, 32), hidden=128, lstm_units=128, layer_norm=True),
        replay=ReplayConfig(
            capacity=50_000, min_size=1_000, samples_per_insert=8.0, alpha=0.5, beta=0.6,
            beta_end=0.6,
        ),
        learner=LearnerConfig(
            batch_size=8, learning_rate=5e-4, optimizer_epsilon=1e-8, target_period_updates=100,
            max_grad_norm=10.0, average_updates=300,
        ),
        explore=ExploreConfig(
            anneal_steps=8_000, persistence=1.25, max_held_steps=60, max_held_steps_end=10
        ),
        collect=CollectConfig(
            collectors=2, envs_per_collector=4, chunk_rows=20, gamma=0.997, n_step=10
        ),
        sequences=SequenceConfig(sequence_length=20, sequence_overlap=10, burn_in=10),
        run=RunConfig(steps=60_000, evaluate_every=20_000, checkpoint_every=20_000, keep=1),
    )  # fmt: skip


def blind_catch() -> DQNConfig:
    """BlindCatch, a very small game that needs memory: the ball is seen in the first frame only,
    and stays hidden for 11 steps.
    """
    return DQNConfig(
        env=EnvConfig(env="genray.rl.catch:BlindCatch", stack=1),
        # The encoder gives 64 features, one place of 64 channels; with 16, learning is far slower.
        network=NetworkConfig(channels=(8, 32, 64), hidden=64, lstm_units=64, layer_norm=True),
        replay=ReplayConfig(
            capacity=40_000, min_size=1_000, samples_per_insert=16.0, beta_anneal_updates=4_000
        ),
        learner=LearnerConfig(
            batch_size=16, learning_rate=1e-3, optimizer_epsilon=1e-8, target_period_updates=100
        ),
        # Returns of 10 steps are those of the policy only if few actions are random.
        explore=ExploreConfig(epsilon=0.1, anneal_steps=8_000),
        collect=CollectConfig(collectors=1, envs_per_collector=16, chunk_rows=8, n_step=10),
        sequences=SequenceConfig(sequence_length=16, sequence_overlap=8, burn_in=0),
        # Few updates are made, so collectors must get new weights after few of them.
        run=RunConfig(
            steps=60_000, evaluate_every=0, checkpoint_every=0, evaluate_episodes=128,
            evaluate_epsilon=0.0, publish_every=5,
        ),
    )  # fmt: skip
