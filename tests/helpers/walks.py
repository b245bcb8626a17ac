"""Small environments of Gymnasium that count their steps, and ways to make and read them."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from genray.rl.env import EnvConfig, make_env
from genray.rl.observation import observation_of


class Walk(gymnasium.Env):
    """Counts its steps, and ends after `length` of them. An observation is [episode, step]."""

    observation_space: gymnasium.Space = spaces.Box(0, 1000, (2,), np.float32)
    action_space: gymnasium.Space = spaces.Discrete(3, start=5)

    def __init__(self, length: int = 3, truncates: bool = False):
        self._length, self._truncates, self._episode = length, truncates, 0
        self.actions: list[Any] = []

    def reset(self, *, seed=None, options=None):
        self._episode = self._episode + 1 if seed is None else 0
        self._step = 0
        return self._observe(), self._info()

    def step(self, action):
        self._step += 1
        self.actions.append(action)
        over = self._step == self._length
        return (
            self._observe(), float(self._step), over and not self._truncates,
            over and self._truncates, self._info(),
        )  # fmt: skip

    def _observe(self) -> Any:
        return np.array([self._episode, self._step], np.float32)

    def _info(self) -> dict[str, Any]:
        return {}


def make(name: str, lanes: int = 1, config: str = "") -> Any:
    return make_env(EnvConfig(env=name, env_config=config), lanes)


def seen(env: Any, frame_EHW: np.ndarray) -> Any:
    """Return the first lane's observation as a list."""
    return observation_of(env).unpack(frame_EHW[:, 0])[""][0].tolist()  # type: ignore[union-attr]


class Masked(Walk):
    """Allows the action of the step's number; nothing after its last step."""

    def _info(self) -> dict[str, Any]:
        return {"action_mask": (np.arange(3) == self._step).astype(np.int8)}
