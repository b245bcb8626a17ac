"""Defines the batches that travel from collectors to shards and from shards to the learner: plain
arrays with fixed shapes.

Overview::

    record          made by                     read by                why it exists
    Chunk           Collector                   ReplayShard.add        each frame travels once
    Draw            ReplayShard                 all below              a batch's fields but frames
    Sample          ReplayShard.sample, Feed    Learner                both observations assembled
    PlacedSample    ReplayShard.sample_places   Feed, LocalAgent       reader on the shard's node
    SlicedSample    ReplayShard.sample_slices   Feed                   frames sent over a network
    DeviceSample    Feed, LocalAgent            Learner                frames are on the GPU already
    DeviceBatch     Transfers                   Learner                tensors of one update

Sample, PlacedSample, SlicedSample and DeviceSample extend Draw. DeviceSample and DeviceBatch are
defined in rl/transfer.py, because replay shards run without PyTorch. Inside a shard, rl/frame_store
returns the frames' part of a PlacedSample (Places) and of a SlicedSample (Slices).

Shapes: E lanes, T rows, B batch, S stack, H height, W width, K past actions.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """T consecutive rows of E lanes, and the transitions that these rows completed.

    A *row* is a frame and the action chosen on it. A transition that starts at row t is complete
    n rows later, when its n-step return is known. The transitions of a chunk therefore start n
    rows *before* its frames, and no frame is sent twice. 64 rows of 8 lanes are 64·8·7,056 =
    3.6 MB.
    """

    source: int
    """Index of the collector."""
    incarnation: int
    """Random number of a start of the collector; rows of different incarnations are not joined."""
    first_row: int
    """The row number, in this incarnation, of `frame_ETHW[:, 0]`; a gap shows the shard that rows
    were lost.
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
    horizon_ET: np.ndarray  # uint8: k, the rows from a transition to its next observation
    delta_ET: np.ndarray  # float32: |δ| by the collector's own weights
    valid_ET: np.ndarray  # bool: a real transition (not a reset, not from before this incarnation)

    @property
    def num_rows(self) -> int:
        """T, the number of rows of each lane."""
        return self.frame_ETHW.shape[1]

    @property
    def num_transitions(self) -> int:
        """Number of transitions that the chunk completed."""
        return int(self.valid_ET.sum())

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return sum(value.nbytes for value in vars(self).values() if isinstance(value, np.ndarray))


@dataclass(frozen=True, kw_only=True)
class Draw:
    """Transitions sampled from one shard or from all shards, without their frames."""

    past_BK: np.ndarray  # int16, newest first, −1: no action yet
    next_past_BK: np.ndarray  # int16
    action_B: np.ndarray  # uint8
    return_B: np.ndarray  # float32
    discount_B: np.ndarray  # float32
    # int64: identifies the transition when its new priority is sent back, even if the slot has
    # been overwritten since
    key_B: np.ndarray
    probability_B: np.ndarray  # float64: P(i), the probability of sampling the transition

    @property
    def size(self) -> int:
        """B, the number of transitions."""
        return len(self.action_B)

    def rows(self, index) -> Self:
        """Return the rows that `index` selects; a slice gives views."""
        return type(self)(**{name: array[index] for name, array in vars(self).items()})

    def copy_draw(self, out: "Draw") -> None:
        """Copy all fields into `out`, except the fields that describe frames."""
        for name in Draw.__dataclass_fields__:
            getattr(out, name)[:] = getattr(self, name)


@dataclass(frozen=True, kw_only=True)
class Sample(Draw):
    """Transitions with both observations assembled: the learner's input."""

    obs_BSHW: np.ndarray  # uint8, oldest frame first
    next_obs_BSHW: np.ndarray  # uint8, k rows later

    @classmethod
    def empty(cls, count: int, stack: int, frame_shape: tuple[int, int], past_actions: int) -> Self:
        """Return an uninitialized sample of `count` transitions, to be filled repeatedly:
        allocating memory takes longer than filling it.
        """
        return cls(
            obs_BSHW=np.empty((count, stack, *frame_shape), np.uint8),
            next_obs_BSHW=np.empty((count, stack, *frame_shape), np.uint8),
            **empty_draw(count, past_actions),
        )


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
    """Transitions with their frames for transport: each needed frame once, LZ4-compressed or
    uncompressed.
    """

    data_N: np.ndarray  # uint8: frames one after the other, a transition's oldest first
    start_B: np.ndarray  # int64: where a transition's bytes begin
    length_BT: np.ndarray  # int32: bytes of each frame; H·W: uncompressed, 0: no more frames
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
        """Bytes of all arrays."""
        return sum(array.nbytes for array in vars(self).values())


def empty_draw(count: int, past_actions: int) -> dict[str, np.ndarray]:
    """Return uninitialized arrays for the fields of a Draw."""
    return {
        "past_BK": np.empty((count, past_actions), np.int16),
        "next_past_BK": np.empty((count, past_actions), np.int16),
        "action_B": np.empty(count, np.uint8),
        "return_B": np.empty(count, np.float32),
        "discount_B": np.empty(count, np.float32),
        "key_B": np.empty(count, np.int64),
        "probability_B": np.empty(count, np.float64),
    }
