"""Checks users' environments: once before a run, and at every reset and step.

Shapes: E lanes, H height, W width.
"""

import hashlib
import os
import sys
import tempfile
import traceback
from numbers import Integral
from typing import Any

import numpy as np

from genray.errors import ConfigError, RunFault
from genray.rl.env_protocol import FrameVectorEnv, Step
from genray.rl.observation import observation_of


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
            print(
                f"warning: {self._name}: its close failed: {brief(error)}{traceback_note(error)}",
                file=sys.stderr,
            )

    @property
    def _frames(self) -> tuple[int, ...]:
        return (self.own.num_lanes, *self.own.frame_shape)

    def _call(self, method: str, argument: Any) -> Any:
        try:
            return getattr(self.own, method)(argument)
        except RunFault as fault:  # what genray's own code found in the environment's results
            raise RunFault(f"{self._name}: {fault}") from fault.__cause__
        except Exception as error:
            frames = traceback.extract_tb(error.__traceback__)[1:]
            own = [frame for frame in frames if "site-packages" not in frame.filename] or frames
            where = f" ({own[-1].filename}:{own[-1].lineno})" if own else ""
            raise RunFault(
                f"{self._name}: its {method} failed: {brief(error)}{where}{traceback_note(error)}"
            ) from error

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
        raise broken(name, f"frame_shape is {shape!r}, not (height, width)")
    if not isinstance(env.num_actions, Integral) or not 1 <= int(env.num_actions) <= 256:
        raise broken(name, f"num_actions is {env.num_actions!r}, not a number in 1..256")
    observation = observation_of(env)
    try:
        first = env.reset(0)
        legal_EA = observation.legal(first) if observation else None
        action_E = np.zeros(env.num_lanes, np.int64) if legal_EA is None else legal_EA.argmax(1)
        step = Step(*env.step(action_E))
    except RunFault as fault:
        raise ConfigError(f"--env {name}: {fault}") from fault
    except Exception as error:
        raise broken(
            name, f"its first step failed: {brief(error)}{traceback_note(error)}"
        ) from error
    frames = (env.num_lanes, *shape)
    problem = problem_of("reset", first, "uint8", frames) or problem_of_step(step, frames)
    if problem:
        raise broken(name, problem)


def broken(name: str, what: str) -> ConfigError:
    """Return the error for an environment that breaks the protocol; `what` says how."""
    return ConfigError(
        f"--env {name}: {what}; genray/rl/env.py says what it must do, genray/rl/catch.py is an "
        "example"
    )


def brief(error: BaseException) -> str:
    """Return the class and the first line of an error."""
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"


def traceback_note(error: BaseException) -> str:
    """Write the traceback of an error of a user's environment to a file of this machine's temporary
    directory; return "; traceback: FILE", or "" if the file cannot be written.

    Equal tracebacks have one file. A file of another user is not used.
    """
    text = "".join(traceback.format_exception(error)).encode()
    digest = hashlib.sha256(text).hexdigest()[:12]
    path = os.path.join(tempfile.gettempdir(), f"genray-environment-{digest}.txt")
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
        with open(os.open(path, flags, 0o600), "wb") as file:
            file.write(text)
    except OSError:
        return ""
    return f"; traceback: {path}"
