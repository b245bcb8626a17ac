"""A small run on Catch with every switch of sample-efficient DQN on."""

from dataclasses import replace

from genray.rl import DQNConfig, presets
from genray.rl.env import EnvConfig
from genray.rl.learner import LearnerConfig
from genray.rl.networks import NetworkConfig

_LITE = presets.bbf_lite()
TINY_BBF: DQNConfig = replace(
    _LITE,
    env=EnvConfig(env="genray.rl.catch:Catch"),
    network=replace(_LITE.network, hidden=16, atoms=11, ensemble=1),
    replay=replace(_LITE.replay, capacity=400, min_size=40, samples_per_insert=16.0),
    learner=replace(
        _LITE.learner,
        batch_size=8,
        learning_rate_fall=(20, 200),
        reset_every=30,
        prediction_steps=2,
        average_updates=0,
    ),
    explore=replace(_LITE.explore, random_steps=30, anneal_steps=70),
    collect=replace(_LITE.collect, envs_per_collector=2, anneal_returns_updates=25),
    run=replace(
        _LITE.run, steps=160, evaluate_every=0, checkpoint_every=0, evaluate_episodes=2,
        device="cpu", seed=5,
    ),
)  # fmt: skip
TINY_BTR: DQNConfig = replace(
    TINY_BBF,
    network=NetworkConfig(
        encoder="impala",
        impala_width=0.25,
        pooling="max",
        spectral_norm=True,
        head="iqn",
        quantiles=4,
        ensemble=2,
        noisy=0.5,
        value_rescaling=True,
        hidden=16,
    ),
    replay=replace(TINY_BBF.replay, samples_per_insert=8.0),
    learner=LearnerConfig(
        batch_size=8, double=False, munchausen=0.9, target_period_updates=20, average_updates=5
    ),
)
