"""Defines named configurations. A preset is a function; command-line options change its result."""

import difflib
from collections.abc import Callable
from dataclasses import replace

from genray.errors import ConfigError
from genray.rl.collect import CollectConfig
from genray.rl.config import DQNConfig, RunConfig
from genray.rl.efficient_presets import (
    bbf,
    bbf_lite,
    btr,
    der,
    drq_eps,
    rainbow,
    rainbow_lite,
)
from genray.rl.env import EnvConfig
from genray.rl.exploration import ExploreConfig
from genray.rl.gym_presets import acrobot, cartpole, doorkey, lunar_lander, minatar, minigrid
from genray.rl.learner import LearnerConfig
from genray.rl.networks import NetworkConfig
from genray.rl.recurrent_presets import blind_catch, r2d2, r2d2_lite
from genray.rl.replay import ReplayConfig


def dqn() -> DQNConfig:
    """A small Ape-X for one machine, with every option at its default."""
    return DQNConfig()


def road_runner_quick() -> DQNConfig:
    """The demo: Road Runner in about five minutes on two cores.

    45,000 agent steps = 180,000 emulator frames = 50 minutes of play. 8 samples per insert make
    about 44,000·8/32 = 11,000 updates of 32. Replay: 50,000 x 7,077 bytes = 354 MB. The network is
    narrow, because a core then makes 3 times as many updates.
    """
    return DQNConfig(
        # Games last 5 minutes at most, and a lost life ends the return, as in Mnih 2015.
        env=EnvConfig(game="road_runner", max_episode_frames=18_000, life_loss="terminal"),
        # With layer norm, every seed tried scored clearly more than the best constant action.
        network=NetworkConfig(channels=(16, 32, 32), hidden=256, layer_norm=True),
        replay=ReplayConfig(
            capacity=50_000,
            shards=2,
            min_size=1_000,
            samples_per_insert=8.0,
            alpha=0.5,
            beta_anneal_updates=11_000,
        ),
        # With layer norm, training is stable at twice the learning rate of `road_runner`.
        learner=LearnerConfig(
            precision="auto",
            learning_rate=5e-4,
            optimizer_epsilon=1e-8,
            target_period_updates=500,
            max_grad_norm=10.0,
            average_updates=1_000,
        ),
        # Rewards are rare at first: 11 in 12,000 random steps, and 2 to 3 times as many if random
        # actions are held for long. Later, long holds lose games.
        explore=ExploreConfig(
            epsilon=0.4,
            anneal_steps=8_000,
            persistence=1.25,
            max_held_steps=60,
            max_held_steps_end=10,
        ),
        collect=CollectConfig(collectors=2, envs_per_collector=4, chunk_rows=16, n_step=10),
        run=RunConfig(
            steps=45_000,
            evaluate_every=15_000,
            checkpoint_every=15_000,
            keep=1,
            evaluate_episodes=30,
        ),
    )


def road_runner() -> DQNConfig:
    """Road Runner without layer norm, with n = 5, half the learning rate of `road_runner_quick`,
    and 72,000 agent steps instead of 45,000.

    Scores higher after about 15,000 updates, but differs more between seeds after 10,000.
    """
    quick = road_runner_quick()
    return replace(
        quick,
        network=replace(quick.network, layer_norm=False),
        learner=replace(quick.learner, learning_rate=2.5e-4),
        explore=ExploreConfig(epsilon=0.4, anneal_steps=8_000, persistence=2.0),
        collect=replace(quick.collect, n_step=5),
        run=replace(quick.run, steps=72_000, evaluate_every=24_000, checkpoint_every=24_000),
    )


def pong_quick() -> DQNConfig:
    """Pong on one machine with a GPU and 8 or more cores: 4 million agent steps, the default
    network, and batches of 512.

    8 samples per insert make 4,000,000·8/512 = about 62,000 updates. Replay: 500,000 x 7,077 bytes
    = 3.5 GB.
    """
    return DQNConfig(
        env=EnvConfig(game="pong"),
        replay=ReplayConfig(
            capacity=500_000,
            shards=2,
            min_size=20_000,
            samples_per_insert=8.0,
            beta_anneal_updates=60_000,
        ),
        learner=LearnerConfig(batch_size=512, learning_rate=2.5e-4, target_period_updates=500),
        explore=ExploreConfig(anneal_steps=200_000),
        collect=CollectConfig(collectors=8, envs_per_collector=8),
        run=RunConfig(steps=4_000_000, evaluate_every=500_000, checkpoint_every=500_000),
    )


def apex_breakout() -> DQNConfig:
    """Breakout with the replay, batch, optimizer and ladder of Ape-X (Horgan 2018, appendix C).

    Needs a GPU, many cores, and memory for the replay: 2,000,000 x 7,077 bytes = 14.2 GB over 4
    shards. There are 32 collectors x 8 lanes = 256 values of ε. Departure: a limit of 8 samples per
    insert. The paper's learner had no limit and drew about 0.8 samples per insert.
    """
    return DQNConfig(
        env=EnvConfig(game="breakout", life_loss="terminal"),
        replay=ReplayConfig(
            capacity=2_000_000, shards=4, min_size=50_000, samples_per_insert=8.0, beta_end=0.4
        ),
        learner=LearnerConfig(
            batch_size=512, optimizer="rmsprop", learning_rate=6.25e-5, optimizer_epsilon=1.5e-7
        ),
        collect=CollectConfig(collectors=32, envs_per_collector=8, chunk_rows=64),
        run=RunConfig(steps=50_000_000, evaluate_every=2_500_000, checkpoint_every=2_500_000),
    )


def dqn_nature() -> DQNConfig:
    """Breakout with DQN as published in 2015: uniform replay, one-step returns, neither double
    Q-learning nor a dueling network, and one annealed ε for all lanes.

    Replay: 1,000,000 x 7,077 bytes = 7.1 GB. 50 million agent steps with 8 samples per insert make
    about 12.5 million updates of 32.
    """
    return DQNConfig(
        env=EnvConfig(game="breakout", life_loss="terminal"),
        network=NetworkConfig(dueling=False),
        replay=ReplayConfig(
            capacity=1_000_000, prioritized=False, min_size=50_000, samples_per_insert=8.0
        ),
        learner=LearnerConfig(
            double=False,
            optimizer="rmsprop",
            learning_rate=2.5e-4,
            # The paper adds 0.01 to the squared gradient of a loss that is summed over 32
            # transitions. Here the loss is their mean, so its squared gradient is 32² times
            # smaller.
            optimizer_epsilon=0.01 / 32**2,
            target_period_updates=10_000,
        ),
        explore=ExploreConfig(exploration="shared", epsilon=0.1, anneal_steps=1_000_000),
        collect=CollectConfig(n_step=1),
        run=RunConfig(steps=50_000_000, evaluate_every=2_500_000, checkpoint_every=2_500_000),
    )


def catch() -> DQNConfig:
    """Catch, a very small game for tests, which is learned in a minute or two on one core."""
    return DQNConfig(
        env=EnvConfig(env="genray.rl.catch:Catch"),
        network=NetworkConfig(channels=(16, 32, 32), hidden=128),
        replay=ReplayConfig(
            capacity=20_000, min_size=500, samples_per_insert=8.0, beta_anneal_updates=6_000
        ),
        learner=LearnerConfig(learning_rate=5e-4, target_period_updates=200),
        explore=ExploreConfig(anneal_steps=4_000),
        collect=CollectConfig(collectors=2, envs_per_collector=4, chunk_rows=8),
        run=RunConfig(
            steps=24_000,
            evaluate_every=0,
            checkpoint_every=0,
            evaluate_episodes=128,
            evaluate_epsilon=0.0,
        ),
    )


PRESETS: dict[str, Callable[[], DQNConfig]] = {
    preset.__name__: preset
    for preset in (
        dqn,
        road_runner_quick,
        road_runner,
        pong_quick,
        apex_breakout,
        dqn_nature,
        rainbow,
        rainbow_lite,
        der,
        drq_eps,
        bbf,
        bbf_lite,
        btr,
        r2d2,
        r2d2_lite,
        catch,
        blind_catch,
        cartpole,
        acrobot,
        lunar_lander,
        minigrid,
        doorkey,
        minatar,
    )
}


def preset(name: str, game: str | None = None) -> DQNConfig:
    """Return the configuration of the preset `name`, with another game if `game` is given.

    Raises ConfigError, with the nearest names, for an unknown preset.
    """
    if name not in PRESETS:
        near = difflib.get_close_matches(name, PRESETS, n=3, cutoff=0.4) or list(PRESETS)
        raise ConfigError(f"--preset {name}: no such preset; did you mean {', '.join(near)}?")
    config = PRESETS[name]()
    return replace(config, env=replace(config.env, game=game, env="")) if game else config
