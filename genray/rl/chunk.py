"""What travels from a collector to a replay shard, and from shards to the learner: plain arrays, each with its shape.

Shapes: E lanes, T rows, B batch, S stack, H height, W width, K past actions.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """T consecutive rows of E lanes, and the transitions that they completed.

    A *row* is a frame and the action chosen on it. A transition that starts at row t is complete n rows later, when its
    n-step return is known: so the transitions of a chunk start n rows *before* its frames do, and no frame is ever sent
    twice. 64 rows of 8 lanes are 64·8·7,056 = 3.6 MB.
    """

    source: int
    """Index of the collector."""
    incarnation: int
    """Random number of this life of the collector: rows of different lives never join."""
    first_row: int
    """The row number, in this incarnation, of `frame_ETHW[:, 0]`; a jump tells the shard that rows were lost."""
    weight_version: int
    """Version of the weights that chose the actions."""

    # Rows first_row … first_row + T − 1
    frame_ETHW: np.ndarray  # uint8
    action_ET: np.ndarray  # uint8
    age_ET: np.ndarray  # uint8: steps since the episode's first frame, at most 255

    # Transitions that start at rows first_row − n … first_row − n + T − 1
    return_ET: np.ndarray  # float32: n-step return of clipped rewards
    discount_ET: np.ndarray  # float32: γ^k, 0 after a termination
    horizon_ET: np.ndarray  # uint8: k, where the next observation lies
    delta_ET: np.ndarray  # float32: |δ| by the collector's own weights
    valid_ET: np.ndarray  # bool: a real transition (not a reset, not from before this incarnation)

    @property
    def num_rows(self) -> int:
        return self.frame_ETHW.shape[1]

    @property
    def num_transitions(self) -> int:
        return int(self.valid_ET.sum())

    @property
    def nbytes(self) -> int:
        return sum(value.nbytes for value in vars(self).values() if isinstance(value, np.ndarray))


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Transitions drawn from one shard, or from all of them joined."""

    obs_BSHW: np.ndarray  # uint8, oldest frame first
    next_obs_BSHW: np.ndarray  # uint8, k rows later
    past_BK: np.ndarray  # int16, newest first, −1: none yet
    next_past_BK: np.ndarray  # int16
    action_B: np.ndarray  # uint8
    return_B: np.ndarray  # float32
    discount_B: np.ndarray  # float32
    key_B: np.ndarray  # int64: where to send the new priority; tells an overwritten slot from its successor
    probability_B: np.ndarray  # float64: P(i) of the draw

    @property
    def size(self) -> int:
        return len(self.action_B)

    def rows(self, index) -> "Sample":
        """A part of it: views for a slice."""
        return Sample(**{name: array[index] for name, array in vars(self).items()})

    def scaled(self, share: float) -> "Sample":
        """The same draws when this shard was chosen with probability `share`: P(i) = share · P(i | shard)."""
        return Sample(**{**vars(self), "probability_B": self.probability_B * share})

    @staticmethod
    def join(parts: list["Sample"]) -> "Sample":
        if len(parts) == 1:
            return parts[0]
        return Sample(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in vars(parts[0])})
