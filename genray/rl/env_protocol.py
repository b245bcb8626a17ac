"""Defines the protocol of vectorised environments: several games, its lanes, in lockstep.

Shapes: E lanes, H height, W width.
"""

from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np


class Step(NamedTuple):
    """The result of one step of all lanes."""

    frame_EHW: np.ndarray  # uint8
    reward_E: np.ndarray  # float32: the game's own reward, never clipped
    terminated_E: np.ndarray  # bool: the game's rules ended the episode; no reward can follow
    truncated_E: np.ndarray  # bool: a limit ended the episode; its final frame is bootstrapped from
    life_lost_E: np.ndarray  # bool: a life was lost and the episode continues


class FrameVectorEnv(Protocol):
    """E lanes of one game, stepped together. A lane restarts one step late (see
    `genray.rl.env`).

    An environment whose observations are not grey frames has one more attribute, `observation`
    (`genray.rl.observation.Observation`). Its frames are packed records of shape (1, bytes).
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
