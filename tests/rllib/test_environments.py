"""Tests `ApexDQNConfig.environment` with Gymnasium's names, classes, and names of Tune's registry:
a vector, an image, and a masked environment.
"""

import json
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from ray import tune
from ray.tune.registry import register_env
from ray.tune.schedulers import ASHAScheduler

from genray.errors import ConfigError
from genray.rl.catch import Catch
from genray.rl.engine import probe_env
from genray.rl.env import make_env
from genray.rllib import ApexDQN, ApexDQNConfig
from tests.helpers.rllib import SMALL

VECTOR = SMALL | {"channels": (4, 4, 4), "hidden": 16}


class Picture(gymnasium.Env):
    """One bright column of three; the action that names it is worth 1. Episodes have 4 steps."""

    observation_space = spaces.Box(0, 255, (5, 9, 3), np.uint8)
    action_space = spaces.Discrete(3)

    def __init__(self, config: dict[str, Any]):
        self._length = config.get("length", 4)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._age = 0
        return self._draw(), {}

    def step(self, action):
        reward = float(action == self._bright)
        self._age += 1
        return self._draw(), reward, self._age == self._length, False, {}

    def _draw(self) -> np.ndarray:
        self._bright = int(self.np_random.integers(3))
        picture = np.zeros((5, 9, 3), np.uint8)
        picture[:, 3 * self._bright : 3 * self._bright + 3] = 255
        return picture


class Gaps(gymnasium.Env):
    """Only one action is legal at a time; another one raises."""

    observation_space = spaces.Discrete(3)
    action_space = spaces.Discrete(3, start=1)

    def __init__(self, length: int = 6):
        self._length = length

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._age = 0
        return self._next()

    def step(self, action):
        assert action == 1 + self._legal, "an illegal action"
        self._age += 1
        obs, info = self._next()
        return obs, 1.0, False, self._age == self._length, info

    def _next(self) -> tuple[int, dict[str, Any]]:
        self._legal = int(self.np_random.integers(3))
        return 0, {"action_mask": np.eye(3, dtype=np.int8)[self._legal]}


@pytest.fixture(autouse=True)
def gaps() -> None:
    """Register the name for each test: Tune forgets its names when a Ray ends."""
    register_env("gaps", lambda config: Gaps(config.get("length", 6)))


def shape_of(config: ApexDQNConfig) -> tuple[int, tuple[int, int]]:
    config.validate()
    return probe_env(config.to_dqn().env)[:2]


def test_environment_takes_names_and_classes():
    assert shape_of(ApexDQNConfig().environment("CartPole-v1")) == (2, (1, 16))
    assert shape_of(ApexDQNConfig().environment(Picture)) == (3, (1, 5 * 9 * 3))
    assert shape_of(ApexDQNConfig().environment(Gaps)) == (3, (1, 4)), "one class and three masks"
    assert shape_of(ApexDQNConfig().environment("gaps")) == (3, (1, 4))
    assert shape_of(ApexDQNConfig().environment(Catch)) == (3, (84, 84)), "genray's own protocol"


@pytest.mark.parametrize(("env", "length"), [(Picture, 2), (Gaps, 2), ("gaps", 2)])
def test_env_config_reaches_the_environment_and_genray_s_own_options_genray(env: Any, length: int):
    config = ApexDQNConfig().environment(env, env_config={"length": length, "stack": 1})
    dqn = config.to_dqn().env
    assert dqn.stack == 1 and dqn.env_options == {"length": length}
    lanes = make_env(dqn, 1)
    frame, over = lanes.reset(0), []
    for _ in range(3):
        legal_EA = lanes.observation.legal(frame)  # type: ignore[attr-defined]
        step = lanes.step(np.zeros(1, int) if legal_EA is None else legal_EA.argmax(1))
        frame = step.frame_EHW
        over.append(bool(step.terminated_E[0] | step.truncated_E[0]))
    assert over == [False, True, False]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda config: config.environment("CartPool-v1"), "no such Atari game"),
        (lambda config: config.environment(3), "environment(3): name an Atari game"),
        (
            lambda config: config.environment(Picture, env_config={"length": len}),
            "not JSON serializable; give JSON values, or put the object into a function and",
        ),
        (lambda config: config.environment("pong", env_config={"length": 3}), "length"),
    ],
)
def test_a_wrong_environment_has_one_line(change, message: str):
    with pytest.raises(ConfigError) as error:
        change(ApexDQNConfig()).validate()
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.ray
@pytest.mark.parametrize("env", [Picture, "gaps"], ids=str)
def test_apex_dqn_trains_on_images_and_masks(env: Any, two_cpus):
    config = ApexDQNConfig().environment(env).update_from_dict(VECTOR).debugging(seed=1)
    config.reporting(min_sample_timesteps_per_iteration=300).evaluation(evaluation_duration=4)
    algo = config.env_runners(num_env_runners=1).build_algo()
    try:
        result = algo.train()
        assert result["updates"] > 0 and result["num_env_steps_sampled_lifetime"] >= 300
        assert algo.evaluate()["env_runners"]["num_episodes"] == 4
        if env == "gaps":
            assert result["env_runners"]["episode_return_mean"] == 6.0, "every action was legal"
    finally:
        algo.stop()


@pytest.mark.ray
@pytest.mark.timeout(600)  # ten actors are started
def test_tune_run_searches_on_cartpole_with_a_stock_scheduler(two_cpus, tmp_path: Path):
    analysis = tune.run(
        ApexDQN,
        config={
            "env": "CartPole-v1", **VECTOR, "num_env_runners": 1,
            "lstm_units": tune.grid_search([0, 8]), "sequence_length": 8, "sequence_overlap": 4,
            "burn_in": 4, "min_size": 30, "min_sample_timesteps_per_iteration": 300,
        },
        stop={"training_iteration": 2},
        # all trials are equal by this metric, so none is stopped early
        scheduler=ASHAScheduler(metric="training_iteration", mode="max", grace_period=1, max_t=2),
        checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=True),
        storage_path=str(tmp_path), verbose=0,
    )  # fmt: skip
    assert [trial.status for trial in analysis.trials] == ["TERMINATED"] * 2
    assert all(trial.last_result["updates"] > 0 for trial in analysis.trials)
    assert {trial.config["lstm_units"] for trial in analysis.trials} == {0, 8}
    for trial in analysis.trials:
        assert trial.last_result["num_env_steps_sampled_lifetime"] >= 600
        assert trial.placement_group_factory.required_resources["CPU"] == pytest.approx(2.0)
        engine = Path(trial.checkpoint.path) / "engine"
        [shard] = json.loads((engine / "state.json").read_text())["shards"]
        assert shard["counts"]["size"] > 50 and (engine / "replay-0").is_dir()
