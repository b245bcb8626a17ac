"""Defines the environment protocol, Atari by this protocol, and checks of users' environments.

An environment plays several games, its lanes, in lockstep. A lane returns uint8 frames, and begins
its next episode by itself.

Shapes: E lanes, H height, W width.

The protocol is small, so that any environment can implement it (`--env module:factory`):

* `factory(num_lanes=E)` returns an object with the attributes and methods of `FrameVectorEnv`.
* A lane restarts *one step late* (gymnasium calls this "next-step" autoreset). The step that ends
  an episode returns the episode's final frame. The following step ignores the lane's action and
  returns the next episode's first frame with reward 0. So every frame occurs exactly once, and
  a truncated episode's final frame is available for the bootstrap.
"""

import importlib
import os
import sys
import traceback
from dataclasses import dataclass
from numbers import Integral
from typing import Any, Literal, NamedTuple, Protocol, cast, runtime_checkable

import numpy as np

from genray.bounds import bounded, check_bounds
from genray.errors import ConfigError, RunFault
from genray.rl.games import resolve_game


@dataclass(frozen=True, kw_only=True)
class EnvConfig:
    """The game and the rules by which it is played."""

    game: str = "pong"
    """An Atari game: `breakout`, `Breakout` or `ALE/Breakout-v5`."""
    env: str = ""
    """`module:factory` of a user's environment (see genray/rl/env.py); --game is then ignored."""
    sticky_actions: float = bounded(0.0, min=0, below=1, example=0.25)
    """Probability, in each frame, that the emulator repeats the previous action: 0 in DQN and
    Ape-X, 0.25 in Machado 2018.
    """
    life_loss: Literal["ignore", "terminal"] = "ignore"
    """terminal: a lost life ends the return (discount 0) but not the game, as in DQN's training;
    ignore: a lost life has no effect.
    """
    max_episode_frames: int = bounded(108_000, above=0, example=108000)
    """Emulator frames after which an episode is truncated (108,000: 30 minutes at 60 Hz)."""
    noop_max: int = bounded(30, min=0, example=30)
    """Each episode begins with a random number of no-op actions, at most this many."""
    frame_skip: int = bounded(4, min=1, example=4)
    """Emulator frames per agent step. The observed frame is the maximum of the last two."""
    full_action_space: bool = False
    """Use all 18 joystick actions instead of the game's own minimal set."""
    stack: int = bounded(4, min=1, max=16, example=4)
    """Frames in one observation."""
    stack_start: Literal["blank", "repeat", "wait"] = "blank"
    """What the first stack−1 observations of an episode contain before its first frame: blank:
    blank frames (as in ALE's own vector environment); repeat: copies of the first frame; wait: the
    agent does no-ops, which are excluded from learning, until the stack is full.
    """

    def validate(self) -> None:
        """Raise ConfigError for an unknown game or an invalid option."""
        check_bounds(self)
        if self.env:
            load_factory(self.env)
        else:
            resolve_game(self.game)

    @property
    def title(self) -> str:
        """The game in ALE's spelling, or `module:factory` of a user's environment."""
        return self.env or resolve_game(self.game)


class Step(NamedTuple):
    """The result of one step of all lanes."""

    frame_EHW: np.ndarray  # uint8
    reward_E: np.ndarray  # float32: the game's own reward, never clipped
    terminated_E: np.ndarray  # bool: the game's rules ended the episode; no reward can follow
    truncated_E: np.ndarray  # bool: a limit ended the episode; its final frame is bootstrapped from
    life_lost_E: np.ndarray  # bool: a life was lost and the episode continues


class FrameVectorEnv(Protocol):
    """E lanes of one game, stepped together. A lane restarts one step late (see the module's
    docstring).
    """

    num_lanes: int
    num_actions: int
    frame_shape: tuple[int, int]

    def reset(self, seed: int) -> np.ndarray:
        """Begin new episodes in all lanes; return the first frames, uint8 [E, H, W]."""

    def step(self, action_E: np.ndarray) -> Step:
        """Act in all lanes; `action_E` is int [E] in [0, num_actions)."""

    def close(self) -> None: ...


@runtime_checkable
class SavesState(Protocol):
    """An environment whose state can be saved. A resumed run then continues the episodes bit for
    bit.
    """

    def state(self) -> dict[str, Any]:
        """Return the whole state as JSON values."""

    def restore(self, state: dict[str, Any]) -> np.ndarray:
        """Continue from `state`; returns the current frames [E, H, W]."""


class AtariLanes:
    """Plays Atari in ALE's C++ vector environment with DQN's preprocessing: grey frames of 84x84
    pixels, frame skip, and the maximum of the last two frames.

    Frames are returned without stacking. Collectors stack them, and the replay stores each frame
    once.

    Args:
        config: the game and the rules by which it is played.
        num_lanes: E.
        num_threads: threads of the emulators; 0 lets ALE choose.
        color: for display; True returns the game's own picture instead, RGB [E, 210, 160, 3].
        max_pool: whether a picture is the maximum of the last two frames, or the last frame alone.
    """

    def __init__(
        self,
        config: EnvConfig,
        num_lanes: int,
        num_threads: int = 0,
        *,
        color: bool = False,
        max_pool: bool = True,
    ):
        from ale_py.vector_env import AtariVectorEnv

        self._env = AtariVectorEnv(
            resolve_game(config.game),
            num_lanes,
            num_threads=num_threads,
            max_num_frames_per_episode=config.max_episode_frames,
            repeat_action_probability=config.sticky_actions,
            full_action_space=config.full_action_space,
            frameskip=config.frame_skip,
            maxpool=max_pool,
            noop_max=config.noop_max,
            stack_num=1,
            reward_clipping=False,  # clipped rewards would not add up to the game's score
            # True would end the episode at each lost life; `step` finds lost lives from `lives`.
            episodic_life=False,
            img_height=210 if color else 84,
            img_width=160 if color else 84,
            grayscale=not color,
        )
        self.num_lanes = num_lanes
        self.num_actions = int(cast(Any, self._env.single_action_space).n)
        self.frame_shape = (84, 84)
        self._lives_E = np.zeros(num_lanes, np.int64)

    def reset(self, seed: int) -> np.ndarray:
        obs: Any
        obs, info = self._env.reset(seed=seed)
        self._lives_E = info["lives"].copy()
        return obs[:, 0].copy()

    def step(self, action_E: np.ndarray) -> Step:
        obs, reward_E, terminated_E, truncated_E, info = self._env.step(
            np.asarray(action_E, np.int64)
        )
        # `lives` increases when a new episode begins, so a decrease is always a lost life.
        life_lost_E = (info["lives"] < self._lives_E) & ~terminated_E
        self._lives_E = info["lives"].copy()
        # ALE's arrays are views; without copies, they would keep ALE's observation buffer alive.
        return Step(
            obs[:, 0].copy(),
            reward_E.astype(np.float32),
            terminated_E.copy(),
            truncated_E.copy(),
            life_lost_E,
        )

    def close(self) -> None:
        self._env.close()


OWN_MODULES = "GENRAY_OWN_MODULES"
"""Environment variable of Ray's workers: the directory in which the command was started."""


def load_factory(name: str) -> Any:
    """Import and return the callable that `module:factory` names.

    A worker also finds modules in the directory in which the command was started. The directory
    comes last on the import path, so that no file there replaces an installed module.

    Raises ConfigError for another form of name, and when the callable cannot be imported.
    """
    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute:
        raise ConfigError(f"--env {name}: write module:factory, e.g. genray.rl.catch:Catch")
    own = os.environ.get(OWN_MODULES)
    if own and own not in sys.path:
        sys.path.append(own)
    try:
        factory = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"--env {name}: {error}; write module:factory, e.g. genray.rl.catch:Catch"
        ) from error
    if not callable(factory):
        raise ConfigError(
            f"--env {name}: {attribute} cannot be called; it must make an environment"
        )
    return factory


def make_env(config: EnvConfig, num_lanes: int, num_threads: int = 0) -> FrameVectorEnv:
    """Make the environment that `config` names, with `num_lanes` lanes.

    `num_threads`: threads of ALE's emulators; 0 lets ALE choose. Raises ConfigError for an unknown
    game, and when a user's environment cannot be made or lacks an attribute.
    """
    if not config.env:
        return AtariLanes(config, num_lanes, num_threads)
    factory = load_factory(config.env)
    try:
        env = factory(num_lanes=num_lanes)
    except Exception as error:
        raise _breaks(
            config.env, f"making it with num_lanes={num_lanes} failed: {_words(error)}"
        ) from error
    for name in ("num_lanes", "num_actions", "frame_shape", "reset", "step", "close"):
        if not hasattr(env, name):
            raise ConfigError(
                f"--env {config.env}: the environment lacks `{name}` (see "
                "genray.rl.env.FrameVectorEnv)"
            )
    checked = CheckedSavingEnv if isinstance(env, SavesState) else CheckedEnv
    return cast(FrameVectorEnv, checked(env, config.env))


class CheckedEnv:
    """Wraps a user's environment and checks every reset and step, so that the agent does not learn
    from wrong arrays.

    Other attributes are read from the environment `own`. `reset` and `step` raise RunFault for an
    exception of the environment, for arrays of a wrong type, shape or dtype, and for rewards that
    are not finite. The message names the method or the field. The checks take 5 µs per step.

    Args:
        own: the user's environment.
        name: the name for messages, `module:factory`.
    """

    def __init__(self, own: Any, name: str):
        self.own, self._name = own, name

    def __getattr__(self, attribute: str) -> Any:
        if attribute == "own":  # not set yet while an instance is unpickled
            raise AttributeError(attribute)
        return getattr(self.own, attribute)

    def reset(self, seed: int) -> np.ndarray:
        """Reset the environment and check its frames."""
        frame_EHW = self._call("reset", seed)
        self._refuse(problem_of("reset", frame_EHW, "uint8", self._frames))
        return frame_EHW

    def step(self, action_E: np.ndarray) -> Step:
        """Step the environment, check its arrays and convert rewards to float32."""
        returned = self._call("step", action_E)
        try:
            step = Step(*returned)
        except TypeError as error:
            raise RunFault(f"{self._name}: its step gave no Step: {error}") from error
        self._refuse(problem_of_step(step, self._frames))
        with np.errstate(over="ignore"):  # a float64 above float32's range becomes infinite
            reward_E = step.reward_E.astype(np.float32, copy=False)
        if not np.isfinite(reward_E).all():
            wrong = reward_E[~np.isfinite(reward_E)][0]
            raise RunFault(f"{self._name}: its step gave a reward of {wrong}, not a finite number")
        return step._replace(reward_E=reward_E)

    def close(self) -> None:
        """Close the environment. An error is only printed, because no more steps are needed."""
        try:
            self.own.close()
        except Exception as error:
            print(f"warning: {self._name}: its close failed: {_words(error)}", file=sys.stderr)

    @property
    def _frames(self) -> tuple[int, ...]:
        return (self.own.num_lanes, *self.own.frame_shape)

    def _call(self, method: str, argument: Any) -> Any:
        try:
            return getattr(self.own, method)(argument)
        except Exception as error:
            frames = traceback.extract_tb(error.__traceback__)[1:]
            own = [frame for frame in frames if "site-packages" not in frame.filename] or frames
            where = f" ({own[-1].filename}:{own[-1].lineno})" if own else ""
            raise RunFault(f"{self._name}: its {method} failed: {_words(error)}{where}") from error

    def _refuse(self, problem: str) -> None:
        if problem:
            raise RunFault(f"{self._name}: {problem}; genray/rl/env.py says what it must do")


class CheckedSavingEnv(CheckedEnv):
    """CheckedEnv around an environment that can save its state.

    The class defines the methods because, from Python 3.12 on, `isinstance(env, SavesState)` does
    not find attributes that `__getattr__` returns.
    """

    def state(self) -> dict[str, Any]:
        return self.own.state()

    def restore(self, state: dict[str, Any]) -> np.ndarray:
        return self.own.restore(state)


def problem_of(what: str, array: Any, kind: str, shape: tuple[int, ...]) -> str:
    """Return a description of what is wrong with an array that must have dtype `kind` and shape
    `shape`; "" if nothing is wrong.

    `what` names the array in the description. If `kind` is "float32", which only rewards are, any
    real dtype is accepted, because the caller converts rewards.
    """
    if not isinstance(array, np.ndarray):
        return f"{what} is {type(array).__name__}, not {kind} {list(shape)}"
    real = kind == "float32" and array.dtype.kind in "fiu"
    if array.shape == shape and (array.dtype == kind or real):
        return ""
    got = f"{array.dtype} {list(array.shape)}"
    return f"{what} is {got}, not {kind} {list(shape)}"


def problem_of_step(step: Step, frames: tuple[int, ...]) -> str:
    """Return a description of the first wrong array of a step; "" if no array is wrong.

    `frames`: the required shape of the frames, (E, H, W).
    """
    lanes = frames[:1]
    return (
        problem_of("step's frame_EHW", step.frame_EHW, "uint8", frames)
        or problem_of("step's reward_E", step.reward_E, "float32", lanes)
        or problem_of("step's terminated_E", step.terminated_E, "bool", lanes)
        or problem_of("step's truncated_E", step.truncated_E, "bool", lanes)
        or problem_of("step's life_lost_E", step.life_lost_E, "bool", lanes)
    )


def check_env(env: FrameVectorEnv, name: str) -> None:
    """Reset a user's environment, play one step, and check its attributes and arrays against the
    protocol.

    Raises ConfigError, which names the problem. Without this check, an environment that returns
    float frames or integer masks would be found only after the run's actors have started.
    """
    env = env.own if isinstance(env, CheckedEnv) else env
    shape = env.frame_shape
    if not (
        isinstance(shape, tuple)
        and len(shape) == 2
        and all(isinstance(side, Integral) for side in shape)
    ):
        raise _breaks(name, f"frame_shape is {shape!r}, not (height, width)")
    if not isinstance(env.num_actions, Integral) or not 1 <= int(env.num_actions) <= 256:
        raise _breaks(name, f"num_actions is {env.num_actions!r}, not a number in 1..256")
    try:
        first = env.reset(0)
        step = Step(*env.step(np.zeros(env.num_lanes, np.int64)))
    except Exception as error:
        raise _breaks(name, f"its first step failed: {_words(error)}") from error
    frames = (env.num_lanes, *shape)
    problem = problem_of("reset", first, "uint8", frames) or problem_of_step(step, frames)
    if problem:
        raise _breaks(name, problem)


def _breaks(name: str, what: str) -> ConfigError:
    return ConfigError(
        f"--env {name}: {what}; genray/rl/env.py says what it must do, genray/rl/catch.py is an "
        "example"
    )


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
