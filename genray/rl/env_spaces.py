"""Translates Gymnasium's spaces: observations into fields of a record, and actions from numbers.

Shapes: E lanes, A actions.
"""

import contextlib
from collections.abc import Mapping
from math import prod
from typing import Any, Literal

import gymnasium
import numpy as np
from gymnasium import spaces

from genray.errors import ConfigError, RunFault
from genray.rl.observation import LARGEST_IMAGE_CHANNELS, Field, Observation

MASK = "action_mask"
"""Key of an observation or of `info` under which an environment says which actions are legal."""
MOST_ACTIONS = 256  # actions are stored as uint8
MOST_CLASSES = 4096
"""Largest number of one-hot inputs of one array of whole numbers."""
SMALLEST_IMAGE = 3
"""An array with a shorter side is a vector."""


class Actions:
    """Turns the numbers 0 … A − 1 into actions of a space.

    Args:
        name: the value of --env, for messages.
        space: Discrete, MultiDiscrete or MultiBinary. Raises ConfigError for another space, and for
            more than 256 actions.
    """

    def __init__(self, name: str, space: gymnasium.Space):
        self._sizes: np.ndarray | None
        self._start: Any
        if isinstance(space, spaces.Discrete):
            self._sizes, self._start = None, int(space.start)
            self.count = int(space.n)
        elif isinstance(space, spaces.MultiDiscrete):
            self._sizes, self._start = np.asarray(space.nvec), np.asarray(space.start)
            self.count = prod(int(size) for size in self._sizes.flat)
        elif isinstance(space, spaces.MultiBinary):
            self._sizes, self._start = np.full(space.shape, 2), 0
            self.count = 2**self._sizes.size
        elif isinstance(space, spaces.Box):
            raise ConfigError(
                f"--env {name}: its actions are continuous ({space}), which DQN cannot choose; use "
                "an algorithm such as SAC (genray has none), or an environment or wrapper with "
                "discrete actions, e.g. Discrete(5)"
            )
        else:
            raise ConfigError(
                f"--env {name}: its action space is {space}; Discrete, MultiDiscrete and "
                "MultiBinary are supported"
            )
        self._space = space
        if not 1 <= self.count <= MOST_ACTIONS:
            raise ConfigError(
                f"--env {name}: {space} has {self.count:,} actions; at most {MOST_ACTIONS} are "
                "supported"
            )

    def of(self, action_E: np.ndarray) -> np.ndarray:
        """Return the space's actions, [E] or [E, *shape], for numbers int [E]."""
        if self._sizes is None:
            return action_E + self._start
        place = np.unravel_index(action_E, self._sizes.ravel())
        action = np.stack(place, axis=1).reshape(len(action_E), *self._sizes.shape) + self._start
        return action.astype(self._space.dtype)


def describe(name: str, space: gymnasium.Space, num_actions: int) -> list[Field]:
    """Return the fields of a record for the observations of `space`.

    An array with three axes of which one has at most 16 channels, or with two axes of uint8, is an
    image. Dictionaries and tuples may be nested. The key "action_mask" is the mask.

    `name`: the value of --env, for messages. Raises ConfigError for a space that is not supported.
    """
    fields = _fields(name, space, "", num_actions)
    names = [field.name for field in fields]
    for each in names:
        if names.count(each) > 1:
            raise ConfigError(
                f"--env {name}: two of its observations have the name {each!r}; use other keys"
            )
    return sorted(fields, key=lambda field: field.kind == "mask")


def _fields(name: str, space: gymnasium.Space, path: str, num_actions: int) -> list[Field]:
    if isinstance(space, spaces.Dict | spaces.Tuple):
        named = space.spaces.items() if isinstance(space, spaces.Dict) else enumerate(space.spaces)
        fields = []
        for key, part in named:
            if key == MASK:
                if prod(part.shape or ()) != num_actions:
                    raise ConfigError(
                        f'--env {name}: its "{MASK}" is {part}, but there are {num_actions} actions'
                    )
                fields.append(mask_field(num_actions, f"{path}.{key}".lstrip(".")))
            else:
                fields += _fields(name, part, f"{path}.{key}".lstrip("."), num_actions)
        return fields
    if isinstance(space, spaces.Discrete):
        return [_classes(name, path, (), [(int(space.start), int(space.n))])]
    if isinstance(space, spaces.MultiDiscrete):
        pairs = zip(np.ravel(space.start).tolist(), np.ravel(space.nvec).tolist())
        return [_classes(name, path, space.shape, list(pairs))]
    if isinstance(space, spaces.MultiBinary):
        return [Field(name=path, kind="vector", shape=space.shape, dtype="int8")]
    if isinstance(space, spaces.Box) and np.dtype(space.dtype).kind in "fiub":
        return [_box(path, space)]
    where = f"its observation {path!r}" if path else "its observation space"
    raise ConfigError(
        f"--env {name}: {where} is {type(space).__name__}, which has no fixed size or no numbers; "
        "use a wrapper that gives Box, Discrete, MultiDiscrete, MultiBinary, or a Dict of them"
    )


def _classes(name: str, path: str, shape: tuple[int, ...], pairs: list[tuple[int, int]]) -> Field:
    count = sum(size for _, size in pairs)
    if count > MOST_CLASSES:
        raise ConfigError(
            f"--env {name}: an observation has {count:,} classes, which would be as many one-hot "
            f"inputs; at most {MOST_CLASSES:,} are supported; use a wrapper that gives numbers"
        )
    largest = max(size for _, size in pairs) - 1
    dtype = np.min_scalar_type(largest).name
    return Field(name=path, kind="classes", shape=shape, dtype=dtype, classes=tuple(pairs))


def _box(path: str, space: spaces.Box) -> Field:
    dtype = np.dtype(space.dtype).name
    channels = _channels(space)
    if channels is None:
        return Field(name=path, kind="vector", shape=space.shape, dtype=dtype)
    bounded = bool(np.isfinite(space.low).all() and np.isfinite(space.high).all())
    low, high = (float(space.low.min()), float(space.high.max())) if bounded else (0.0, 1.0)
    return Field(
        name=path, kind="image", shape=space.shape, dtype=dtype, channels=channels,
        low=low, high=high if high > low else low + 1.0,
    )  # fmt: skip


def _channels(space: spaces.Box) -> Literal["", "first", "last"] | None:
    """Return which axis of an image has the channels; None: the array is no image."""
    shape = space.shape
    if len(shape) == 2 and space.dtype == np.uint8 and min(shape) >= SMALLEST_IMAGE:
        return ""
    if len(shape) != 3:
        return None
    first = shape[0] < shape[2]  # the channels are fewer than the pixels of a side
    count, sides = (shape[0], shape[1:]) if first else (shape[2], shape[:2])
    if count > LARGEST_IMAGE_CHANNELS or min(sides) < SMALLEST_IMAGE:
        return None
    return "first" if first else "last"


def mask_field(num_actions: int, name: str = MASK) -> Field:
    """Return the field of a mask of legal actions."""
    return Field(name=name, kind="mask", shape=(num_actions,), dtype="uint8")


def find(obs: Any, path: str) -> Any:
    """Return the part of an observation to which the names `path`, joined with dots, lead."""
    if not path:
        return obs
    if isinstance(obs, tuple | list):
        key, _, rest = path.partition(".")
        return find(obs[int(key)], rest)
    if not isinstance(obs, Mapping):
        raise KeyError(path)
    # A key may contain dots itself.
    for key in obs:
        if path == str(key):
            return obs[key]
    for key in obs:
        if path.startswith(f"{key}."):
            with contextlib.suppress(KeyError):
                return find(obs[key], path[len(str(key)) + 1 :])
    raise KeyError(path)


def arrays_of(obs: Any, observation: Observation, num_lanes: int) -> dict[str, np.ndarray]:
    """Return the arrays of a batch of E observations by field, as they are stored.

    Raises RunFault for numbers that are not finite, and for whole numbers outside their space.
    """
    arrays = {}
    for field in observation.fields:
        if field.kind == "mask":
            continue
        array = np.asarray(find(obs, field.name))
        what = f"observation {field.name!r}" if field.name else "observation"
        if field.kind == "classes":
            start, size = np.array(field.classes).T
            array = array.reshape(num_lanes, -1) - start
            wrong = (array < 0) | (array >= size)
            if wrong.any():
                raise RunFault(
                    f"its {what} has the value {(array + start)[wrong][0]}, outside its space"
                )
        elif array.dtype.kind == "f" and not np.isfinite(array).all():
            lane = int(np.argwhere(~np.isfinite(array))[0][0])
            wrong_value = array[~np.isfinite(array)][0]
            raise RunFault(f"its {what} in lane {lane} contains {wrong_value}, not a number")
        arrays[field.name] = array
    return arrays


class CheckedObservations(gymnasium.Wrapper):
    """Raises RunFault when an observation has another shape or dtype than its space says.

    Gymnasium's vector environments would convert some of them without a message.
    """

    def __init__(self, env: gymnasium.Env):
        super().__init__(env)
        self._boxes = list(_boxes(env.observation_space, ()))

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        """Reset the environment and check its observation."""
        obs, info = self.env.reset(**options)
        self._check("reset", obs)
        return obs, info

    def step(self, action: Any) -> Any:
        """Step the environment and check its observation."""
        result = self.env.step(action)
        if not isinstance(result, tuple) or len(result) != 5:
            raise RunFault(
                "its step must return (observation, reward, terminated, truncated, info), but "
                f"returned {_form(result)}"
            )
        self._check("step", result[0])
        return result

    def _check(self, method: str, obs: Any) -> None:
        for path, space in self._boxes:
            part = obs
            try:
                for key in path:
                    part = part[key]
            except (KeyError, IndexError, TypeError) as error:
                raise RunFault(
                    f"its {method} returned no observation {'.'.join(map(str, path))!r}"
                ) from error
            if getattr(part, "shape", None) == space.shape and part.dtype == space.dtype:
                continue
            array = np.asarray(part)
            if array.shape != space.shape or not np.can_cast(array.dtype, space.dtype, "same_kind"):
                name = f" {'.'.join(map(str, path))!r}" if path else ""
                raise RunFault(
                    f"its {method} returned an observation{name} of {array.dtype} "
                    f"{list(array.shape)}, but its space says {space.dtype} {list(space.shape)}"
                )


def _boxes(space: gymnasium.Space, path: tuple[Any, ...]) -> Any:
    """Yield (path, space) of every array of a space."""
    if isinstance(space, spaces.Dict | spaces.Tuple):
        named = space.spaces.items() if isinstance(space, spaces.Dict) else enumerate(space.spaces)
        for key, part in named:
            yield from _boxes(part, (*path, key))
    elif isinstance(space, spaces.Box | spaces.MultiDiscrete | spaces.MultiBinary):
        yield path, space


def _form(result: Any) -> str:
    return f"{len(result)} values" if isinstance(result, tuple) else type(result).__name__
