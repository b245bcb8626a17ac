"""Adapts Gymnasium's environments to the protocol of `genray.rl.env`.

Shapes: E lanes, P bytes of a packed record, A actions.
"""

import contextlib
import enum
import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv

from genray.errors import ConfigError, RunFault
from genray.rl.env_checks import brief, traceback_note
from genray.rl.env_names import Registered
from genray.rl.env_protocol import Step
from genray.rl.env_same_step import HiddenStarts
from genray.rl.env_spaces import (
    MASK,
    Actions,
    CheckedObservations,
    arrays_of,
    describe,
    find,
    mask_field,
)
from genray.rl.observation import Observation

WHOLE = ("config", "env_config")
"""Names of a parameter that gets all options as one dictionary, as RLlib passes them."""


class Kind(enum.Enum):
    """What a factory makes."""

    OWN = enum.auto()  # lanes by genray's own protocol
    ONE = enum.auto()  # one environment of Gymnasium
    MANY = enum.auto()  # a VectorEnv of Gymnasium


def kind_of(factory: Callable[..., Any], options: dict[str, Any]) -> Kind:
    """Return what `factory` makes, by its class or its parameters.

    A function with a parameter `num_lanes` makes lanes, one with `num_envs` a VectorEnv. A function
    that can be called with `options` alone makes one environment.
    """
    if isinstance(factory, Registered):
        return Kind.ONE
    if isinstance(factory, type) and issubclass(factory, VectorEnv | gymnasium.Env):
        return Kind.MANY if issubclass(factory, VectorEnv) else Kind.ONE
    try:
        signature = inspect.signature(factory)
    except (TypeError, ValueError):
        return Kind.OWN
    parameters = signature.parameters
    if "num_lanes" in parameters:
        return Kind.OWN
    if "num_envs" in parameters:
        return Kind.MANY
    if takes_any_keyword(factory):
        return Kind.OWN
    try:
        signature.bind(**({} if takes_whole(factory, options) else options))
    except TypeError:
        return Kind.ONE if takes_whole(factory, options) else Kind.OWN
    return Kind.ONE


def takes_any_keyword(factory: Callable[..., Any]) -> bool:
    """Whether `factory` has a parameter **NAME."""
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):
        return False
    return any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters)


def takes_whole(factory: Callable[..., Any], options: dict[str, Any]) -> bool:
    """Whether `factory` gets its options as one dictionary: its only required parameter, or its
    first one, is called `config` or `env_config`, and no option has this name.
    """
    try:
        parameters = list(inspect.signature(factory).parameters)
    except (TypeError, ValueError):
        return False
    return bool(parameters) and parameters[0] in WHOLE and parameters[0] not in options


def gym_lanes(
    name: str,
    factory: Callable[..., Any],
    kind: Kind,
    options: dict[str, Any],
    num_lanes: int,
    render_mode: str | None = None,
) -> "GymLanes":
    """Make `num_lanes` lanes of an environment of Gymnasium.

    `name`: the value of --env, for messages. `render_mode`: passed on if the environment knows it.
    Raises ConfigError when the environment cannot be made, or its spaces are not supported.
    """
    draws = render_mode is not None and _has_parameter(factory, "render_mode")
    rendered = {"render_mode": render_mode} if draws else {}

    def make(**more: Any) -> Any:
        if takes_whole(factory, options):
            return factory(options, **more)
        return factory(**options, **more)

    try:
        if kind is Kind.MANY:
            vector = make(num_envs=num_lanes, **rendered)
        else:
            vector = SyncVectorEnv(
                [partial(_one, name, partial(make, **rendered))] * num_lanes,
                autoreset_mode=AutoresetMode.NEXT_STEP,
            )
    except ConfigError:
        raise
    except Exception as error:
        given = f" with {options}" if options else ""
        raise ConfigError(
            f"--env {name}: making it{given} failed: {brief(error)}; --env-config gives its "
            f"arguments as JSON{traceback_note(error)}"
        ) from error
    try:
        return GymLanes(name, vector, num_lanes)
    except ConfigError:
        if isinstance(vector, VectorEnv):
            with contextlib.suppress(Exception):
                vector.close()
            vector.unwrapped.closed = True  # or Gymnasium would close it again when it is freed
        raise


def _has_parameter(factory: Callable[..., Any], name: str) -> bool:
    if isinstance(factory, Registered):
        return True
    try:
        parameters = inspect.signature(factory).parameters
    except (TypeError, ValueError):
        return False
    return name in parameters


def _one(name: str, make: Callable[[], Any]) -> gymnasium.Env:
    env = make()
    if not isinstance(env, gymnasium.Env):
        raise ConfigError(
            f"--env {name}: gives {type(env).__name__}, not a gymnasium.Env; a function with the "
            "parameter num_lanes may return genray's own protocol (see genray/rl/env.py)"
        )
    return CheckedObservations(env)


class GymLanes:
    """Plays E environments of Gymnasium in lockstep. Observations are packed records.

    Implements `FrameVectorEnv`, with `observation`. `reset` and `step` raise RunFault for
    observations that do not suit their space, for numbers that are not finite, and for a mask that
    forbids every action.

    Args:
        name: the value of --env, for messages.
        vector: the environments. Raises ConfigError for spaces that are not supported, another
            number of environments, and an autoreset mode that cannot be used.
        num_lanes: E.
    """

    def __init__(self, name: str, vector: VectorEnv, num_lanes: int):
        if not isinstance(vector, VectorEnv):
            raise ConfigError(
                f"--env {name}: gives {type(vector).__name__}, not Gymnasium's VectorEnv"
            )
        if vector.num_envs != num_lanes:
            raise ConfigError(
                f"--env {name}: gives {vector.num_envs} environments, not num_envs={num_lanes}"
            )
        same_step = not _restarts_one_step_late(name, vector)
        self._env, self.num_lanes = vector, num_lanes
        self._actions = Actions(name, vector.single_action_space)
        self.num_actions = self._actions.count
        fields = describe(name, vector.single_observation_space, self.num_actions)
        self._mask_in_info = False
        if not any(field.kind == "mask" for field in fields):
            # Only a reset shows whether the environment gives masks beside its observations.
            try:
                self._mask_in_info = MASK in vector.reset(seed=0)[1]
            except RunFault as fault:
                raise ConfigError(f"--env {name}: {fault}") from fault
            except Exception as error:
                raise ConfigError(
                    f"--env {name}: its reset failed: {brief(error)}{traceback_note(error)}"
                ) from error
            if self._mask_in_info:
                fields.append(mask_field(self.num_actions))
        self.observation = Observation(fields=tuple(fields))
        self.frame_shape = self.observation.frame_shape
        self._starts: HiddenStarts | None = None
        if same_step:
            self._starts = HiddenStarts(
                num_lanes, self.num_actions, self.observation, self._mask_in_info
            )

    def reset(self, seed: int) -> np.ndarray:
        """Begin new episodes; the lanes have the seeds `seed` … `seed` + E − 1."""
        if self._starts:
            self._starts.reset(seed)
        obs, info = self._env.reset(seed=seed)
        return self._packed(obs, info, np.zeros(self.num_lanes, bool))

    def step(self, action_E: np.ndarray) -> Step:
        """Act in all lanes."""
        action_E = np.asarray(action_E, np.int64)
        if self._starts:
            action_E = self._starts.actions(action_E)
        obs, reward_E, terminated_E, truncated_E, info = self._env.step(self._actions.of(action_E))
        if self._starts:
            reward_E, terminated_E, truncated_E = self._starts.shown(
                reward_E, terminated_E, truncated_E
            )
        over_E = terminated_E | truncated_E
        record_E1P = self._packed(obs, info, over_E)
        if self._starts:
            self._starts.put_last(record_E1P, info, over_E)
        return Step(
            record_E1P,
            np.asarray(reward_E),
            np.array(terminated_E, bool),
            np.array(truncated_E, bool),
            np.zeros(self.num_lanes, bool),
        )

    def render(self) -> np.ndarray | None:
        """Return the picture of the first lane, uint8 RGB [H, W, 3]; None if the environment was
        made without a render mode or draws none.
        """
        pictures: Any = self._env.render()
        picture = pictures[0] if isinstance(pictures, tuple | list) and pictures else pictures
        return np.asarray(picture) if picture is not None else None

    def close(self) -> None:
        """Close the environments."""
        try:
            self._env.close()
        finally:
            self._env.unwrapped.closed = True  # or Gymnasium would close them again when freed

    def _packed(self, obs: Any, info: dict[str, Any], over_E: np.ndarray) -> np.ndarray:
        arrays = arrays_of(obs, self.observation, self.num_lanes)
        mask = self.observation.mask
        if mask is not None:
            given = info.get(MASK) if self._mask_in_info else find(obs, mask.name)
            arrays[mask.name] = self._mask(given, info, over_E)
        return self.observation.pack(arrays)

    def _mask(self, given: Any, info: dict[str, Any], over_E: np.ndarray) -> np.ndarray:
        """Return the masks, uint8 [E, A]. Nobody acts on the last observation of an episode, so a
        mask that forbids everything is replaced there.
        """
        if given is None or (self._mask_in_info and not np.all(info.get(f"_{MASK}", True))):
            raise RunFault(f'its info has no "{MASK}" now, but had one after the first reset')
        shape = (self.num_lanes, self.num_actions)
        try:
            mask_EA = np.stack([np.ravel(each) for each in given]) != 0
        except (TypeError, ValueError) as error:
            raise RunFault(f'its "{MASK}" is no array of {self.num_actions} numbers') from error
        if mask_EA.shape != shape:
            raise RunFault(
                f'its "{MASK}" has the shape {list(mask_EA.shape[1:])}, but there are '
                f"{self.num_actions} actions"
            )
        none_E = ~mask_EA.any(1)
        if (none_E & ~over_E).any():
            lane = int(np.flatnonzero(none_E & ~over_E)[0])
            raise RunFault(
                f'its "{MASK}" forbids every action in lane {lane}; at least one must be legal '
                "while the episode goes on"
            )
        mask_EA[none_E] = True
        return mask_EA.astype(np.uint8)


def _restarts_one_step_late(name: str, vector: VectorEnv) -> bool:
    """Return whether `vector` restarts episodes one step late, as the protocol says; False: within
    the step. Gymnasium's own SyncVectorEnv is set to it. Raises ConfigError for another mode.
    """
    inner = vector.unwrapped
    mode = getattr(inner, "autoreset_mode", None) or vector.metadata.get("autoreset_mode")
    with contextlib.suppress(ValueError):  # the mode's name is accepted, too
        mode = AutoresetMode(mode)
    if isinstance(inner, SyncVectorEnv) and vector is inner:
        inner.autoreset_mode = mode = AutoresetMode.NEXT_STEP
    if mode in (AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP):
        return mode == AutoresetMode.NEXT_STEP
    raise ConfigError(
        f"--env {name}: its autoreset mode is {getattr(mode, 'value', mode)}, so that nobody would "
        "restart its episodes; make it with autoreset_mode=AutoresetMode.NEXT_STEP, or say in "
        'metadata["autoreset_mode"] when it restarts them'
    )
