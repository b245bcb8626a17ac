"""Environments: many lanes of uint8 frames in lockstep, and what it means when an episode ends.

Shapes: E lanes, H height, W width.

The protocol is small, so that any environment fits behind it (`--env module:factory`):

* `factory(num_lanes=E)` returns an object with the attributes and methods of `FrameVectorEnv`.
* Episodes restart by themselves *one step late* ("next-step" autoreset, gymnasium's name): the
  step that ends an episode returns its final frame; the following step ignores its action and
  returns the next episode's first frame with reward 0. So every frame is seen exactly once, and
  a truncated episode's final frame is there to bootstrap from.
"""

import importlib
import sys
import traceback
from dataclasses import dataclass
from numbers import Integral
from typing import Any, Literal, NamedTuple, Protocol, cast, runtime_checkable

import numpy as np

from genray.errors import ConfigError, RunFault, require
from genray.rl.games import resolve_game


@dataclass(frozen=True, kw_only=True)
class EnvConfig:
    """Which game, under which protocol."""

    game: str = "pong"
    """An Atari game: `breakout`, `Breakout` or `ALE/Breakout-v5`."""
    env: str = ""
    """`module:factory` of an own environment (see genray/rl/env.py); then --game is not used."""
    sticky_actions: float = 0.0
    """Probability that the emulator repeats the previous action each frame: 0 in DQN and Ape-X,
    0.25 in Machado 2018.
    """
    life_loss: Literal["ignore", "terminal"] = "ignore"
    """terminal: losing a life ends the return (discount 0) without resetting the game, DQN's
    training convention.
    """
    max_episode_frames: int = 108_000
    """Emulator frames (30 minutes at 60 Hz) after which an episode is truncated; truncation
    bootstraps.
    """
    noop_max: int = 30
    """Up to this many no-op actions at random before each episode."""
    frame_skip: int = 4
    """Emulator frames an agent step; the last two are max-pooled."""
    full_action_space: bool = False
    """All 18 joystick actions instead of the game's own minimal set."""
    stack: int = 4
    """Frames in one observation."""
    stack_start: Literal["blank", "repeat", "wait"] = "blank"
    """φ's rule for an episode's first stack−1 steps: blank frames (the default, as ALE's own
    vector environment has it), copies of the first frame, or wait: no-ops, unlearned from, until
    the stack is full.
    """

    def validate(self) -> None:
        require(
            0 <= self.sticky_actions < 1,
            f"--sticky-actions {self.sticky_actions}: must lie in [0, 1), e.g. 0.25",
        )
        require(
            self.max_episode_frames > 0,
            f"--max-episode-frames {self.max_episode_frames}: must be > 0, e.g. 108000",
        )
        require(self.noop_max >= 0, f"--noop-max {self.noop_max}: must be ≥ 0, e.g. 30")
        require(self.frame_skip >= 1, f"--frame-skip {self.frame_skip}: must be ≥ 1, e.g. 4")
        require(1 <= self.stack <= 16, f"--stack {self.stack}: must lie in 1..16, e.g. 4")
        if self.env:
            load_factory(self.env)
        else:
            resolve_game(self.game)

    @property
    def title(self) -> str:
        return self.env or resolve_game(self.game)


class Step(NamedTuple):
    """What one step of all lanes returned."""

    frame_EHW: np.ndarray  # uint8
    reward_E: np.ndarray  # float32, the game's own, never clipped
    terminated_E: np.ndarray  # bool: the episode is over and its value is 0
    truncated_E: np.ndarray  # bool: the episode was cut; its final frame still has a value
    life_lost_E: np.ndarray  # bool: a life was lost and the episode goes on


class FrameVectorEnv(Protocol):
    """E lanes of one game, stepped together, restarting by themselves one step late (see the
    module's text).
    """

    num_lanes: int
    num_actions: int
    frame_shape: tuple[int, int]

    def reset(self, seed: int) -> np.ndarray:
        """Begin new episodes in all lanes; uint8 [E, H, W]."""

    def step(self, action_E: np.ndarray) -> Step:
        """Act in all lanes; `action_E` int [E] in [0, num_actions)."""

    def close(self) -> None: ...


@runtime_checkable
class SavesState(Protocol):
    """An environment that can also be checkpointed, so that resuming continues its episodes bit
    for bit.
    """

    def state(self) -> dict[str, Any]:
        """Everything, as JSON-able values."""

    def restore(self, state: dict[str, Any]) -> np.ndarray:
        """Continue from `state`; returns the current frames [E, H, W]."""


class AtariLanes:
    """Atari through ALE's C++ vector environment with DQN's preprocessing: grey, 84x84,
    max-pooled, frames skipped.

    Frames come singly (no stacks): collectors stack for themselves and the replay stores each
    frame once. `color=True` gives the game's own picture instead, RGB [E, 210, 160, 3], for
    people to look at.
    """

    def __init__(
        self, config: EnvConfig, num_lanes: int, num_threads: int = 0, *, color: bool = False
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
            noop_max=config.noop_max,
            stack_num=1,
            reward_clipping=False,  # clipping here would hide the true score
            # would reset the whole game at each life; `lives` below tells the same
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
        # `lives` goes up again when a new episode begins, so a fall is always a life lost.
        life_lost_E = (info["lives"] < self._lives_E) & ~terminated_E
        self._lives_E = info["lives"].copy()
        # Copied because ALE's arrays do not own their memory: a kept view would pin the whole
        # observation buffer.
        return Step(
            obs[:, 0].copy(),
            reward_E.astype(np.float32),
            terminated_E.copy(),
            truncated_E.copy(),
            life_lost_E,
        )

    def close(self) -> None:
        self._env.close()


def load_factory(name: str) -> Any:
    """The callable behind `module:factory`.

    Raises ConfigError naming what is missing.
    """
    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute:
        raise ConfigError(f"--env {name}: write module:factory, e.g. genray.rl.catch:Catch")
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
    """The environment that `config` names, with `num_lanes` lanes; `num_threads` 0 lets ALE
    choose.
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
    return cast(FrameVectorEnv, CheckedEnv(env, config.env))


class CheckedEnv:
    """An own environment whose every reset and step is checked, so that nothing wrong is learned
    from.

    Passes on all attributes of the environment `own`, `state` and `restore` among them where they
    exist. An exception of the environment, and arrays of a wrong type, shape, dtype or value, raise
    RunFault with one line that names the method and the field. The checks take 5 µs a step.
    """

    def __init__(self, own: Any, name: str):
        self.own, self._name = own, name

    def __getattr__(self, attribute: str) -> Any:
        if attribute == "own":  # while an instance is unpickled
            raise AttributeError(attribute)
        return getattr(self.own, attribute)

    def reset(self, seed: int) -> np.ndarray:
        frame_EHW = self._call("reset", seed)
        self._refuse(problem_of("reset", frame_EHW, "uint8", self._frames))
        return frame_EHW

    def step(self, action_E: np.ndarray) -> Step:
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
        """Close the environment; an error there is printed only, because the work is done."""
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


def problem_of(what: str, array: Any, kind: str, shape: tuple[int, ...]) -> str:
    """What is wrong with an array that must have dtype `kind` and `shape`; "" if nothing is.

    Rewards ("float32") may have any real dtype: the caller converts them.
    """
    if not isinstance(array, np.ndarray):
        return f"{what} is {type(array).__name__}, not {kind} {list(shape)}"
    real = kind == "float32" and array.dtype.kind in "fiu"
    if array.shape == shape and (array.dtype == kind or real):
        return ""
    got = f"{array.dtype} {list(array.shape)}"
    return f"{what} is {got}, not {kind} {list(shape)}"


def problem_of_step(step: Step, frames: tuple[int, ...]) -> str:
    """What is wrong with the arrays of a step of frames [E, H, W]; "" if nothing is."""
    lanes = frames[:1]
    return (
        problem_of("step's frame_EHW", step.frame_EHW, "uint8", frames)
        or problem_of("step's reward_E", step.reward_E, "float32", lanes)
        or problem_of("step's terminated_E", step.terminated_E, "bool", lanes)
        or problem_of("step's truncated_E", step.truncated_E, "bool", lanes)
        or problem_of("step's life_lost_E", step.life_lost_E, "bool", lanes)
    )


def check_env(env: FrameVectorEnv, name: str) -> None:
    """Play one step of an own environment, as far as it shows whether the protocol is kept.

    Raises ConfigError naming what is wrong. Without it a float frame or a mask of 0 and 1 would
    be learned from, wrongly.
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
