"""Tests when the episodes of Gymnasium's environments restart, and their action masks."""

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv, VectorWrapper

from genray.errors import ConfigError, RunFault
from genray.rl.env_gym import GymLanes
from genray.rl.observation import observation_of
from tests.helpers.walks import Masked, Walk, make

HERE = __name__


# --- restarts -------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["NextStep", "SameStep", "Disabled"])
@pytest.mark.parametrize("truncates", [False, True])
def test_every_observation_occurs_once_in_each_autoreset_mode(mode: str, truncates: bool):
    vector = SyncVectorEnv(
        [partial(Walk, 2, truncates), partial(Walk, 3, truncates)],
        autoreset_mode=AutoresetMode(mode),
    )
    env = GymLanes("walk", vector, 2)
    frame, lanes, ends = env.reset(7), [], []
    for _ in range(7):
        lanes.append(env.observation.unpack(frame[:, 0])[""].tolist())
        step = env.step(np.zeros(2, int))
        frame = step.frame_EHW
        ends.append((step.truncated_E if truncates else step.terminated_E).tolist())
        assert not (step.terminated_E if truncates else step.truncated_E).any()
    short = [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2], [2, 0]]
    long = [[0, 0], [0, 1], [0, 2], [0, 3], [1, 0], [1, 1], [1, 2]]
    assert [each[0] for each in lanes] == short and [each[1] for each in lanes] == long
    assert [each[0] for each in ends] == [False, True, False] * 2 + [False]
    assert [each[1] for each in ends] == [False, False, True, False, False, False, True]


class Foreign(VectorEnv):
    """No environment of Gymnasium's own, which says nothing useful about its restarts."""

    metadata: ClassVar = {"autoreset_mode": AutoresetMode.DISABLED}

    def __init__(self, num_envs: int):
        self.num_envs = num_envs
        self.single_observation_space, self.single_action_space = (
            Walk.observation_space, Walk.action_space,
        )  # fmt: skip


class Silent(Foreign):
    metadata: ClassVar = {}


@pytest.mark.parametrize(("name", "mode"), [("Foreign", "Disabled"), ("Silent", "None")])
def test_a_vector_environment_that_does_not_restart_episodes_is_refused(name: str, mode: str):
    with pytest.raises(ConfigError, match=f"mode is {mode}, .*autoreset_mode=AutoresetMode.NEXT"):
        make(f"{HERE}:{name}")


# --- restarts within a step -----------------------------------------------------------------------


class Batched(VectorWrapper):
    """Gives last observations as one array for all lanes, as environments on a GPU do."""

    def step(self, actions):
        *results, info = super().step(actions)
        if "final_obs" in info:
            rows = [np.zeros(2) if row is None else row for row in info["final_obs"]]
            info["final_obs"] = np.stack(rows)
        return *results, info


def foreign(*envs: Callable[[], gymnasium.Env], wrapper: Any = VectorWrapper) -> Any:
    """Make lanes of a vector environment that restarts within a step; return (lanes, its own)."""
    vector = SyncVectorEnv(list(envs), autoreset_mode=AutoresetMode.SAME_STEP)
    return GymLanes("foreign", wrapper(vector), len(envs)), vector


@pytest.mark.parametrize("wrapper", [VectorWrapper, Batched])
@pytest.mark.parametrize("truncates", [False, True])
def test_last_observations_of_same_step_restarts_are_shown(truncates: bool, wrapper: Any):
    """An episode after the first one begins with the observation after a hidden random action."""
    env, vector = foreign(partial(Walk, 2, truncates), partial(Walk, 4, truncates), wrapper=wrapper)
    frame, lanes, rewards, ends = env.reset(7), [], [], []
    for _ in range(8):
        lanes.append(env.observation.unpack(frame[:, 0])[""].tolist())
        step = env.step(np.array([0, 2]))
        frame = step.frame_EHW
        rewards.append(step.reward_E.tolist())
        ends.append((step.truncated_E if truncates else step.terminated_E).tolist())
        assert not (step.terminated_E if truncates else step.truncated_E).any()
    short = [[0, 0], [0, 1], [0, 2], [1, 1], [1, 2], [2, 1], [2, 2], [3, 1]]
    long = [[0, 0], [0, 1], [0, 2], [0, 3], [0, 4], [1, 1], [1, 2], [1, 3]]
    assert [each[0] for each in lanes] == short and [each[1] for each in lanes] == long
    assert [each[0] for each in rewards] == [1, 2, 0, 2, 0, 2, 0, 2]
    assert [each[0] for each in ends] == [False, True] * 4
    # Lane 1 acts with action 2 of the space, which starts at 5, but for the hidden action.
    actions = [int(action) for action in vector.envs[1].actions]
    assert actions[:4] == [7] * 4 and actions[4] in (5, 6, 7) and actions[5:] == [7] * 3


def test_an_episode_that_ends_with_its_hidden_action_is_not_shown():
    env, _ = foreign(partial(Walk, 1), partial(Walk, 9))
    frames = [env.reset(0)]
    ends = []
    for _ in range(4):
        step = env.step(np.zeros(2, int))
        frames.append(step.frame_EHW)
        ends.append(step.terminated_E.tolist())
    shown = [env.observation.unpack(frame[:, 0])[""][0].tolist() for frame in frames]
    # Episode 1 has one step only, the hidden one: episode 2 begins with its first observation.
    assert shown == [[0, 0], [0, 1], [2, 0], [2, 1], [4, 0]]
    assert ends == [[True, False], [False, False]] * 2


class Turns(Walk):
    """Has two steps; its last observation has another mask than its first one."""

    def __init__(self) -> None:
        super().__init__(2)

    def _info(self) -> dict[str, Any]:
        return {"action_mask": np.arange(3) == (0, 2, 1)[self._step]}


@pytest.mark.parametrize(
    ("kind", "masks", "actions"),
    [
        ("Masked", [[0], [1], [2], [0, 1, 2], [1], [2], [0, 1, 2]], [0, 1, 2, 0, 1, 2]),
        ("MaskedKey", [[0], [1], [2], [0, 1, 2], [1], [2], [0, 1, 2]], [0, 1, 2, 0, 1, 2]),
        ("Turns", [[0], [2], [1], [2], [1], [2], [1]], [0, 2, 0, 2, 0, 2]),
    ],
)
def test_hidden_actions_are_legal_and_last_masks_belong_to_last_observations(
    kind: str, masks: list[list[int]], actions: list[int]
):
    env, vector = foreign(*[globals()[kind]] * 2)
    frame, found = env.reset(0), []
    for _ in range(6):
        legal_EA = env.observation.legal(frame)
        found.append(np.flatnonzero(legal_EA[1]).tolist())
        frame = env.step(legal_EA.argmax(1)).frame_EHW
    assert [*found, np.flatnonzero(env.observation.legal(frame)[1]).tolist()] == masks
    assert [int(action) - 5 for action in vector.envs[1].actions] == actions


def test_a_same_step_environment_without_last_observations_has_one_line():
    class Forgets(VectorWrapper):
        def step(self, actions):
            *results, info = super().step(actions)
            return *results, {key: info[key] for key in info if key != "final_obs"}

    env, _ = foreign(partial(Walk, 1), wrapper=Forgets)
    env.reset(0)
    with pytest.raises(RunFault, match='no "final_obs" at the end of an episode'):
        env.step(np.zeros(1, int))


def test_the_vector_form_of_cartpole_is_played():
    env = make(f"{HERE}:cartpoles", 3)
    assert env.reset(0).shape == (3, 1, 16)
    assert sum(env.step(np.ones(3, int)).terminated_E.sum() for _ in range(30)) >= 3
    env.close()


def cartpoles(num_envs: int) -> VectorEnv:
    return gymnasium.make_vec("CartPole-v1", num_envs, vectorization_mode="vector_entry_point")


# --- masks ----------------------------------------------------------------------------------------


class MaskedKey(Masked):
    observation_space = spaces.Dict(
        {"action_mask": spaces.Box(0, 1, (3,), np.int8), "board": spaces.MultiDiscrete([4, 4])}
    )

    def _observe(self) -> Any:
        return {**self._info(), "board": np.array([self._step, 0])}

    def _info(self) -> dict[str, Any]:
        return super()._info() if self._step >= 0 else {}


@pytest.mark.parametrize("name", ["Masked", "MaskedKey"])
def test_masks_come_from_info_or_from_the_observation(name: str):
    env = make(f"{HERE}:{name}", 2)
    observation = observation_of(env)
    assert observation is not None and observation.mask is not None
    frames = [env.reset(0), *(env.step(np.full(2, t % 4 % 3)).frame_EHW for t in range(4))]
    masks = [observation.legal(frame).argmax(1).tolist() for frame in frames]
    assert masks == [[0, 0], [1, 1], [2, 2], [0, 0], [0, 0]]
    # Nothing is legal after the last step, where nobody acts: the mask is replaced by a full one.
    assert observation.legal(frames[3]).all() and observation.legal(frames[4]).sum() == 2
