"""What travels from a collector to a replay shard, and from shards to the learner: plain arrays,
each with its shape.

Shapes: E lanes, T rows (or frames of a block), B batch, S stack, H height, W width, K past actions.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """T consecutive rows of E lanes, and the transitions that they completed.

    A *row* is a frame and the action chosen on it. A transition that starts at row t is complete
    n rows later, when its n-step return is known: so the transitions of a chunk start n rows
    *before* its frames do, and no frame is ever sent twice. 64 rows of 8 lanes are 64·8·7,056 =
    3.6 MB.
    """

    source: int
    """Index of the collector."""
    incarnation: int
    """Random number of this life of the collector: rows of different lives never join."""
    first_row: int
    """The row number, in this incarnation, of `frame_ETHW[:, 0]`; a jump tells the shard that
    rows were lost.
    """
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
class Draw:
    """Transitions drawn from one shard, or from all of them joined: everything but their frames."""

    past_BK: np.ndarray  # int16, newest first, −1: none yet
    next_past_BK: np.ndarray  # int16
    action_B: np.ndarray  # uint8
    return_B: np.ndarray  # float32
    discount_B: np.ndarray  # float32
    # int64: where to send the new priority; tells an overwritten slot from its successor
    key_B: np.ndarray
    probability_B: np.ndarray  # float64: P(i) of the draw

    @property
    def size(self) -> int:
        return len(self.action_B)

    def rows(self, index) -> Self:
        """A part of it: views for a slice."""
        return type(self)(**{name: array[index] for name, array in vars(self).items()})

    def copy_draw(self, out: "Draw") -> None:
        """Write everything but what belongs to the frames into `out`."""
        for name in Draw.__dataclass_fields__:
            getattr(out, name)[:] = getattr(self, name)


@dataclass(frozen=True, kw_only=True)
class Sample(Draw):
    """Transitions with both observations put together: what the learner learns from."""

    obs_BSHW: np.ndarray  # uint8, oldest frame first
    next_obs_BSHW: np.ndarray  # uint8, k rows later

    @classmethod
    def empty(cls, count: int, stack: int, frame_shape: tuple[int, int], past_actions: int) -> Self:
        """Room for `count` transitions, to be filled again and again: fresh memory costs more
        than what goes into it.
        """
        return cls(
            obs_BSHW=np.empty((count, stack, *frame_shape), np.uint8),
            next_obs_BSHW=np.empty((count, stack, *frame_shape), np.uint8),
            **empty_draw(count, past_actions),
        )


@dataclass(frozen=True, kw_only=True)
class BlockSample(Draw):
    """Transitions as blocks of consecutive frames, T = S + n: 7 frames where both observations
    have 8, 5 where n is 1.

    The observation is frames 0 … S − 1 of a block, the next one frames k … k + S − 1. Frames
    before the episode's first follow the start rule; those after row k may belong to the next
    episode, and mean nothing.
    """

    block_BTHW: np.ndarray  # uint8, oldest frame first
    horizon_B: np.ndarray  # uint8: k, 1 … n

    @classmethod
    def empty(
        cls, count: int, frames: int, frame_shape: tuple[int, int], past_actions: int
    ) -> Self:
        """Room for `count` blocks of `frames` frames, to be filled again and again."""
        return cls(
            block_BTHW=np.empty((count, frames, *frame_shape), np.uint8),
            horizon_B=np.empty(count, np.uint8),
            **empty_draw(count, past_actions),
        )

    def stacks(self, stack: int) -> Sample:
        """The same transitions as a Sample, whose observations are views; so are the next ones,
        as a rule.

        A next observation with discount 0 means nothing: after a termination it is a view of the
        wrong frames. If a truncation shortened a horizon, all next observations are copied.
        """
        n = self.block_BTHW.shape[1] - stack
        short_B = (self.horizon_B < n) & (self.discount_B != 0)
        if short_B.any():
            frame_BS = self.horizon_B[:, None].astype(np.int64) + np.arange(stack)
            next_obs_BSHW = self.block_BTHW[np.arange(self.size)[:, None], frame_BS]
        else:
            next_obs_BSHW = self.block_BTHW[:, n:]
        draw = {
            name: array
            for name, array in vars(self).items()
            if name not in ("block_BTHW", "horizon_B")
        }
        return Sample(obs_BSHW=self.block_BTHW[:, :stack], next_obs_BSHW=next_obs_BSHW, **draw)


@dataclass(frozen=True, kw_only=True)
class PlacedSample(Draw):
    """Transitions with the places of their frames, for a learner that reads the shard's memory
    itself.
    """

    leaf_B: np.ndarray  # int64: lane · rows + slot
    age_B: np.ndarray  # uint8: steps since the episode's first frame, at most 255
    horizon_B: np.ndarray  # uint8: rows to the next observation
    next_age_B: np.ndarray  # uint8


@dataclass(frozen=True, kw_only=True)
class SlicedSample(Draw):
    """Transitions with their frames as they travel: each of those that the two observations need
    once, LZ4 or as it is.
    """

    data_N: np.ndarray  # uint8: frames one after the other, a transition's oldest first
    start_B: np.ndarray  # int64: where a transition's bytes begin
    length_BT: np.ndarray  # int32: bytes of each frame, H·W: as it is; 0: no more frames
    age_B: np.ndarray  # uint8: steps since the episode's first frame, at most 255
    horizon_B: np.ndarray  # uint8: rows to the next observation
    next_age_B: np.ndarray  # uint8

    def rows(self, index) -> Self:
        parts = {
            name: array if name == "data_N" else array[index] for name, array in vars(self).items()
        }
        return type(self)(**parts)

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in vars(self).values())


def empty_draw(count: int, past_actions: int) -> dict[str, np.ndarray]:
    """Room for the fields of a Draw."""
    return {
        "past_BK": np.empty((count, past_actions), np.int16),
        "next_past_BK": np.empty((count, past_actions), np.int16),
        "action_B": np.empty(count, np.uint8),
        "return_B": np.empty(count, np.float32),
        "discount_B": np.empty(count, np.float32),
        "key_B": np.empty(count, np.int64),
        "probability_B": np.empty(count, np.float64),
    }
