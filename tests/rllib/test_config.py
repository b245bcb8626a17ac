"""Tests how ApexDQNConfig maps RLlib's options to genray's. Needs no Ray."""

import numpy as np
import pytest
from ray.rllib.callbacks.callbacks import RLlibCallback

from genray.errors import ConfigError
from genray.rl.config import DQNConfig
from genray.rllib import ApexDQNConfig, TrainingOptions
from genray.rllib.options import ALIASES, FIELDS
from tests.helpers.rllib import small


@pytest.mark.parametrize(
    "name", ["ALE/Breakout-v5", "ale_py:ALE/Breakout-v5", "breakout", "Breakout"]
)
def test_config_environment_accepts_all_names_of_a_game(name: str):
    config = ApexDQNConfig().environment(name, env_config={"sticky_actions": 0.25})
    config.validate()
    assert config.to_dqn().env.title == "breakout"
    assert config.to_dqn().env.sticky_actions == 0.25


def test_config_environment_accepts_an_own_class():
    config = ApexDQNConfig().environment("genray.rl.catch:Catch")
    config.validate()
    assert config.to_dqn().env.env == "genray.rl.catch:Catch"


def test_config_defaults_are_those_of_genray():
    config = ApexDQNConfig().environment("pong").to_dqn()
    assert config.replay == DQNConfig().replay
    assert config.learner == DQNConfig().learner
    assert config.collect == DQNConfig().collect


def test_config_accepts_options_under_both_names():
    ours = (
        ApexDQNConfig()
        .environment("pong")
        .training(learning_rate=1e-3, batch_size=64, double=False, min_size=70)
    )
    theirs = (
        ApexDQNConfig()
        .environment("pong")
        .training(
            lr=1e-3,
            train_batch_size=64,
            double_q=False,
            num_steps_sampled_before_learning_starts=70,
        )
    )
    assert ours.to_dict() == theirs.to_dict()
    dqn = theirs.env_runners(num_env_runners=3, num_envs_per_env_runner=5).to_dqn()
    assert (dqn.learner.learning_rate, dqn.learner.batch_size, dqn.learner.double) == (
        1e-3,
        64,
        False,
    )
    assert (dqn.replay.min_size, dqn.collect.collectors, dqn.collect.envs_per_collector) == (
        70,
        3,
        5,
    )


def test_config_accepts_numpy_scalars():
    config = (
        ApexDQNConfig()
        .environment("pong")
        .training(train_batch_size=np.int64(64), n_step=np.int32(2))
    )
    config.training(capacity=np.int64(9_000)).debugging(seed=np.int64(3)).evaluation(
        evaluation_duration=np.int64(4)
    )
    config.env_runners(num_env_runners=np.int64(1), num_cpus_per_env_runner=np.float32(0.5))
    config.validate()
    dqn = config.to_dqn()
    assert (dqn.learner.batch_size, dqn.collect.n_step, dqn.replay.capacity, dqn.run.seed) == (
        64,
        2,
        9_000,
        3,
    )
    assert (dqn.run.evaluate_episodes, dqn.collect.collectors) == (4, 1)


def test_training_options_all_set_a_field():
    assert all(ALIASES.get(name, name) in FIELDS for name in TrainingOptions.__annotations__)
    taken = {ALIASES.get(name, name) for name in TrainingOptions.__annotations__}
    elsewhere = {
        "num_env_runners",
        "num_envs_per_env_runner",
        "num_learners",
        "seed",
        "evaluation_duration",
    }
    assert taken | elsewhere == set(FIELDS)


@pytest.mark.parametrize("through", [lambda config: config, lambda config: config.to_dict()])
def test_config_survives_conversion_to_a_dictionary(through):
    config = small("pong").training(optimizer="rmsprop", n_step=5, grad_clip=None)
    again = ApexDQNConfig().update_from_dict(through(config))
    again.validate()
    assert again.to_dqn() == config.to_dqn()
    assert again.to_dqn().learner.optimizer == "rmsprop"
    assert again.to_dqn().learner.max_grad_norm == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda config: config.environment("braekout"), "breakout"),
        (lambda config: config.environment("joust"), "two-player"),
        (lambda config: config.environment(None), "name an Atari game"),
        (lambda config: config.environment("pong", env_config={"frameskip": 4}), "frame_skip"),
        (lambda config: config.training(learning_rat=1e-3), "did you mean learning_rate"),
        (
            lambda config: config.training(replay_buffer_config={"capacity": 5}),
            "training(capacity=",
        ),
        (lambda config: config.training(target_network_update_freq=5), "target_period_updates"),
        (lambda config: config.training(gamma=1.5), "--gamma"),
        (lambda config: config.training(n_step="three"), "n_step: 'three' is not a int"),
        (
            lambda config: config.update_from_dict({"learning_rat": 1e-3}),
            "did you mean learning_rate",
        ),
        (lambda config: config.update_from_dict({"burn_in_len": 4}), "not a part of this Ape-X"),
        (lambda config: config.framework("tf2"), "PyTorch only"),
        (
            lambda config: config.rl_module(model_config={"fcnet_hiddens": [8]}),
            "training(channels=",
        ),
        (
            lambda config: config.update_from_dict({"model": {"fcnet_hiddens": [8]}}),
            "training(channels=",
        ),
        (lambda config: config.environment("pong", clip_rewards=True), "reward_clip"),
        (lambda config: config.evaluation(evaluation_num_env_runners=1), "own process"),
        (lambda config: config.evaluation(evaluation_duration="auto"), "evaluate_episodes"),
        (lambda config: config.api_stack(enable_rl_module_and_learner=False), "not supported"),
        (lambda config: config.learners(num_gpus_per_learner=2), "num_gpus_per_learner=2"),
        (lambda config: config.multi_agent(policies={"a", "b"}), "policies"),
        (lambda config: config.callbacks(on_episode_end=print), "on_episode_end"),
        (lambda config: config.callbacks(CountsEpisodes), "CountsEpisodes.on_episode_end"),
    ],
)
def test_config_refuses_unsupported_options_in_one_line(change, message: str):
    with pytest.raises(ConfigError) as error:
        change(ApexDQNConfig().environment("pong")).validate()
    assert message in str(error.value)
    assert "\n" not in str(error.value)


class CountsEpisodes(RLlibCallback):
    def on_episode_end(self, **kwargs):
        pass
