"""Tests Gymnasium's environments behind the project's protocol: names, actions and refusals."""

import sys
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv

from genray.errors import ConfigError, RunFault
from genray.rl import presets
from genray.rl.catch import Catch
from genray.rl.engine import probe_env
from genray.rl.env import EnvConfig, SavesState, check_env, load_factory, make_env
from genray.rl.env_gym import GymLanes
from genray.rl.observation import observation_of
from tests.helpers.walks import Masked, Walk, make, seen

HERE = __name__


# --- names ----------------------------------------------------------------------------------------


class WithConfig(Walk):
    """Gets its arguments as RLlib's environments do."""

    def __init__(self, config: dict[str, Any]):
        super().__init__(**config)


def walk(length: int = 3) -> gymnasium.Env:
    return Walk(length)


def any_walk(**options: Any) -> gymnasium.Env:
    return Walk(**options)


def walks(num_envs: int, length: int = 3, mode: str = "NextStep") -> VectorEnv:
    return SyncVectorEnv([partial(Walk, length)] * num_envs, autoreset_mode=AutoresetMode(mode))


def catch_of(num_lanes: int, twice: bool = False) -> Catch:
    return Catch(num_lanes * (1 + twice))


@pytest.mark.parametrize("name", ["Walk", "WithConfig", "walk", "walks"])
def test_an_environment_is_made_from_every_kind_of_name(name: str):
    env = make(f"{HERE}:{name}", 2, '{"length": 2}')
    assert env.num_lanes == 2 and env.num_actions == 3 and env.frame_shape == (1, 8)
    assert seen(env, env.reset(0)) == [0, 0]
    ends = [env.step(np.zeros(2, int)).terminated_E.tolist() for _ in range(5)]
    assert ends == [[False] * 2, [True] * 2, [False] * 2, [False] * 2, [True] * 2]
    check_env(env, name)
    env.close()


def test_a_registered_name_and_the_project_s_own_protocol_take_options():
    assert probe_env(EnvConfig(env="CartPole-v1")).frame_shape == (1, 16)
    lake = make("FrozenLake-v1", config='{"map_name": "8x8"}')
    assert observation_of(lake).fields[0].classes == ((0, 64),)  # type: ignore[union-attr]
    twice = make(f"{HERE}:catch_of", 2, '{"twice": true}')
    assert twice.num_lanes == 4 and isinstance(twice, SavesState)
    assert make(f"{HERE}:any_walk").num_actions == 3, "num_lanes is no argument of Walk"


def test_envpool_is_seeded_when_its_lanes_are_made(monkeypatch):
    """A stand-in for the package, which ignores the seed of a reset as EnvPool does."""

    class Pool(SyncVectorEnv):
        def __init__(self, name: str, num_envs: int, seed: int, length: int):
            assert name == "Walk-v3"
            super().__init__([partial(Walk, length + seed)] * num_envs)

        def reset(self, *, seed=None, options=None):
            assert seed is None, "EnvPool warns about it"
            return super().reset()

    monkeypatch.setitem(sys.modules, "envpool", SimpleNamespace(make_gymnasium=Pool))
    env = make("envpool:Walk-v3", 2, '{"length": 2}')
    for seed in (0, 3):
        env.reset(seed)
        ends = [env.step(np.zeros(2, int)).terminated_E.all() for _ in range(7)]
        assert ends.index(True) == 1 + seed
    env.close()
    monkeypatch.setitem(sys.modules, "envpool", None)
    with pytest.raises(ConfigError, match="--env envpool:Walk-v3: .*; pip install envpool"):
        make("envpool:Walk-v3")


@pytest.mark.parametrize(
    ("name", "config", "reason"),
    [
        (
            "CartPool-v1",
            "",
            "not registered with Gymnasium; did you mean CartPole-v1.*package:Name",
        ),
        ("math:Zq-v9", "", "math:Zq-v9: not registered.*e.g. CartPole-v1"),
        ("CartPole", "", "write module:factory.*or a registered name of Gymnasium"),
        ("CartPole-v1", '{"length": 3}', "making it with .*'length'.*--env-config gives"),
        ("CartPole-v1", "length=3", "--env-config length=3: not JSON"),
        ("CartPole-v1", "[3]", r"--env-config \[3\]: not a JSON object"),
        ("", '{"length": 3}', "needs --env; the options of an Atari game"),
    ],
)
def test_a_wrong_name_or_argument_has_one_clear_line(name: str, config: str, reason: str):
    env = EnvConfig(env=name, env_config=config)
    with pytest.raises(ConfigError, match=reason) as refused:
        env.validate()
        make_env(env, 1)
    assert "\n" not in str(refused.value)


# --- actions --------------------------------------------------------------------------------------


def of_space(space: gymnasium.Space) -> Callable[[], gymnasium.Env]:
    def make() -> gymnasium.Env:
        env = Walk(length=1000)
        env.action_space = space
        return env

    return make


@pytest.mark.parametrize(
    ("space", "first", "last"),
    [
        (spaces.Discrete(4), 0, 3),
        (spaces.Discrete(3, start=-1), -1, 1),
        (spaces.MultiDiscrete([2, 3]), [0, 0], [1, 2]),
        (spaces.MultiDiscrete([[2], [3]], start=[[1], [5]]), [[1], [5]], [[2], [7]]),
        (spaces.MultiBinary(3), [0, 0, 0], [1, 1, 1]),
    ],
)
def test_every_action_of_a_space_has_one_number(space: gymnasium.Space, first: Any, last: Any):
    vector = SyncVectorEnv([of_space(space)])
    env = GymLanes("walk", vector, 1)
    env.reset(0)
    for number in range(env.num_actions):
        env.step(np.array([number]))
    actions = vector.envs[0].actions
    assert np.array_equal(actions[0], first) and np.array_equal(actions[-1], last)
    assert all(space.contains(action) for action in actions)
    assert len({np.asarray(action).tobytes() for action in actions}) == env.num_actions


@pytest.mark.parametrize(
    ("space", "reason"),
    [
        (spaces.Box(-1, 1, (2,)), r"its actions are continuous \(Box.*such as SAC \(genray has"),
        (spaces.MultiDiscrete([20, 20]), "has 400 actions; at most 256"),
        (spaces.Tuple([spaces.Discrete(2)]), "Discrete, MultiDiscrete and MultiBinary are supp"),
    ],
)
def test_an_action_space_that_dqn_cannot_choose_from_is_refused(space, reason: str):
    with pytest.raises(ConfigError, match=f"--env walk: .*{reason}"):
        GymLanes("walk", SyncVectorEnv([of_space(space)]), 1)


# --- breaches -------------------------------------------------------------------------------------


class NothingLegal(Masked):
    def _info(self) -> dict[str, Any]:
        return {"action_mask": np.full(3, self._step != 1)}


class ShortMask(Masked):
    def _info(self) -> dict[str, Any]:
        return {"action_mask": np.ones(2)}


class SometimesMask(Masked):
    def _info(self) -> dict[str, Any]:
        return {} if self._step == 1 else {"action_mask": np.ones(3)}


class NaN(Walk):
    def _observe(self) -> Any:
        return np.array([0, np.nan if self._step else 0], np.float32)


class Grows(Walk):
    def _observe(self) -> Any:
        return np.zeros(2 + self._step, np.float32)


class Floats(Walk):
    observation_space = spaces.Box(0, 9, (2,), np.int32)

    def _observe(self) -> Any:
        return np.zeros(2, np.float64 if self._step else np.int32)


class OutOfSpace(Walk):
    observation_space = spaces.Discrete(2, start=1)

    def _observe(self) -> Any:
        return 1 if self._step == 0 else 3


class OldStep(Walk):
    def step(self, action):
        return super().step(action)[:4]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("NothingLegal", 'its "action_mask" forbids every action in lane 0; at least one'),
        ("SometimesMask", 'its info has no "action_mask" now'),
        ("NaN", "its observation in lane 0 contains nan, not a number"),
        ("Grows", r"its step returned an observation of float32 \[3\], but its space says float32"),
        ("Floats", r"its step returned an observation of float64 \[2\], but its space says int32"),
        ("OutOfSpace", "its observation has the value 3, outside its space"),
        ("OldStep", "its step must return .observation, reward, .* but returned 4 values"),
    ],
)
def test_a_breach_has_one_line_before_a_run_and_during_it(name: str, reason: str):
    env = make(f"{HERE}:{name}", 2)
    env.reset(0)
    with pytest.raises(RunFault, match=f"{name}: {reason}"):
        env.step(np.zeros(2, int))
    with pytest.raises(ConfigError, match=f"--env {HERE}:{name}: {reason}"):
        probe_env(EnvConfig(env=f"{HERE}:{name}"))


class Raises(Walk):
    where = "step"

    def step(self, action):
        return super().step(action) if self.where != "step" else self._raise()

    def reset(self, **options):
        return super().reset(**options) if self.where != "reset" else self._raise()

    def close(self):
        if self.where == "close":
            self._raise()

    def _raise(self) -> Any:
        raise KeyError("no such rung\nsecond line")


@pytest.mark.parametrize("where", ["reset", "step", "close"])
def test_an_error_of_the_environment_has_one_line_and_its_traceback_a_file(
    where: str, monkeypatch, tmp_path, capsys
):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    env = make(f"{HERE}:Raises", 2)
    monkeypatch.setattr(Raises, "where", where)
    if where == "close":
        env.close()
        line = capsys.readouterr().err.strip()
    else:
        if where == "step":
            env.reset(0)
        with pytest.raises(RunFault) as fault:
            env.reset(0) if where == "reset" else env.step(np.zeros(2, int))
        line = str(fault.value)
        env.close()
    assert f"Raises: its {where} failed: KeyError: 'no such rung" in line and "\n" not in line
    [report] = tmp_path.iterdir()
    assert line.endswith(f"; traceback: {report}")
    text = report.read_text()
    assert "in _raise" in text and "second line" in text and report.stat().st_mode & 0o077 == 0
    with pytest.raises(ConfigError, match="traceback: ") if where != "close" else nullcontext():
        probe_env(EnvConfig(env=f"{HERE}:Raises"))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"observation_space": spaces.Text(4)}, "its observation space is Text, which has no fix"),
        (
            {
                "observation_space": spaces.Dict(
                    a=spaces.Dict(b=spaces.Sequence(spaces.Discrete(2)))
                )
            },
            "its observation 'a.b' is Sequence",
        ),
        ({"observation_space": spaces.Graph(spaces.Discrete(2), None)}, "is Graph"),
        ({"observation_space": spaces.Discrete(5000)}, "5,000 classes.*at most 4,096"),
        (
            {"observation_space": spaces.Dict(action_mask=spaces.MultiBinary(2))},
            r'its "action_mask" is MultiBinary\(2\), but there are 3 actions',
        ),
    ],
)
def test_observation_spaces_without_a_fixed_size_are_refused(change: dict[str, Any], reason: str):
    class Changed(Walk):
        observation_space = change["observation_space"]

    with pytest.raises(ConfigError, match=f"--env walk: .*{reason}"):
        GymLanes("walk", SyncVectorEnv([Changed]), 1)


def test_a_mask_of_a_wrong_size_is_refused():
    with pytest.raises(RunFault, match=r'"action_mask" has the shape \[2\], but there are 3 act'):
        make(f"{HERE}:ShortMask").reset(0)


def test_a_factory_that_gives_no_environment_is_refused():
    with pytest.raises(ConfigError, match="gives dict, not a gymnasium.Env; a function with the"):
        make(f"{HERE}:no_environment")
    assert callable(load_factory(f"{HERE}:no_environment"))


def no_environment() -> dict[str, int]:
    return {}


@pytest.mark.parametrize("name", ["minigrid", "minatar"])
def test_presets_of_packages_work_or_name_the_package(name: str):
    config = presets.preset(name)
    config.validate()
    if find_spec(name) is None:
        with pytest.raises(ConfigError, match=f"^preset {name}: needs a package: pip install"):
            probe_env(config.env)
    else:
        assert observation_of(make_env(config.env, 1)).has_image  # type: ignore[union-attr]
