"""Defines the records of arrays that collectors send to shards, and shards to the learner.

Overview::

    record          made by                     read by             contents
    Chunk           Collector                   ReplayShard.add     new rows, each frame once
    Draw            (base class)                –                   transitions without frames
    Sample          ReplayShard.sample, Feed    Learner             both observations assembled
    PlacedSample    ReplayShard.sample_places   Feed, LocalAgent    positions of frames in the shard
    SlicedSample    ReplayShard.sample_slices   Feed                frames to send over a network
    DeviceSample    Feed, LocalAgent            Learner             observations on the GPU
    DeviceBatch     Transfers                   Learner             tensors of one update

Sample, PlacedSample, SlicedSample and DeviceSample extend Draw. DeviceSample and DeviceBatch are
defined in rl/transfer.py, because replay shards run without PyTorch. The fields of PlacedSample and
SlicedSample that describe frames come from Places and Slices of rl/frame_store.py.

A *leaf* is the index of a transition in its shard's sum tree: lane · rows per lane + slot. A *slot*
is the position of a row in the ring buffer of its lane. δ is the TD error.

Shapes: E lanes, T rows, B batch, S stack, H height, W width, K past actions, J later
steps (for self-prediction and sequences; usually 0). For sequences (rl/sequences.py; usually 0): T
rows of a sequence, F columns of a row, S numbers of a state, P starts of sequences in a chunk.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np

from genray.rl.sequences import COLUMNS, HORIZON, SequenceLayout

GOES_ON, ENDS, DIES = 0, 1, 2
"""How an episode continues after a row: it goes on; it ends, and its next observation is
bootstrapped from; it terminates, or a life is lost that counts as the end.
"""


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """T consecutive rows of E lanes, and the T transitions of each lane that these rows complete.

    A *row* is a frame and the action chosen on it. A transition that starts at row t is complete
    n rows later, when its n-step return is known. The transitions of a chunk therefore start n
    rows *before* its frames, and no frame is sent twice. The frames of 64 rows of 8 lanes have
    64·8·7,056 bytes = 3.6 MB.
    """

    source: int
    """Index of the collector."""
    incarnation: int
    """Random number that the collector chose when it started. A shard does not join rows of
    different incarnations.
    """
    first_row: int
    """Number of the row `frame_ETHW[:, 0]`, counted in this incarnation. A gap in these numbers
    shows the shard that rows were lost.
    """
    weight_version: int
    """Version of the weights that chose the actions."""

    # Rows first_row … first_row + T − 1
    frame_ETHW: np.ndarray  # uint8
    action_ET: np.ndarray  # uint8
    age_ET: np.ndarray  # uint8: steps since the episode's first frame, at most 255

    # Transitions that start at rows first_row − n … first_row − n + T − 1
    return_ET: np.ndarray  # float32: n-step return of rewards after --reward-clip
    discount_ET: np.ndarray  # float32: γ^k, 0 after a termination
    horizon_ET: np.ndarray  # uint8: k, the rows from a transition to its next observation
    delta_ET: np.ndarray  # float32: |δ|, computed with the collector's own weights
    # bool; False for rows before this incarnation, for restarts, and for no-ops while a stack fills
    valid_ET: np.ndarray

    # Rows first_row … first_row + T − 1, only if n or γ is annealed
    reward_ET: np.ndarray | None = None  # float32: the reward of the row's action
    end_ET: np.ndarray | None = None  # uint8: GOES_ON, ENDS or DIES

    # Rows first_row … first_row + T − 1, only for a recurrent network
    last_reward_ET: np.ndarray | None = None  # float32: the game's own reward before the row
    state_EPS: np.ndarray | None = None  # float32: the state before every `period`-th row

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

    past_BK: np.ndarray  # int16: past actions, newest first; −1: no action yet
    next_past_BK: np.ndarray  # int16
    action_B: np.ndarray  # uint8
    return_B: np.ndarray  # float32
    discount_B: np.ndarray  # float32
    # int64: identifies the transition when its new priority is sent back. A row that overwrites it
    # has another key.
    key_B: np.ndarray
    probability_B: np.ndarray  # float64: P(i); from one shard: P(i | shard)
    # int16: the actions of the transition's row and of the rows after it; −1 once the episode has
    # ended, so that action j is ≥ 0 only if row j + 1 belongs to the same episode
    later_BJ: np.ndarray
    # Of sequences, whose rows are this one and the J after it: float32, columns as in sequences.py
    steps_BTF: np.ndarray
    state_BS: np.ndarray  # float32: the state of the network before the first row

    @property
    def size(self) -> int:
        """B, the number of transitions."""
        return len(self.action_B)

    @property
    def learned_rows(self) -> int:
        """Rows whose errors the loss averages: B transitions, or the known rows of sequences."""
        if not self.steps_BTF.shape[1]:
            return self.size
        return int(np.count_nonzero(self.steps_BTF[..., HORIZON]))

    def rows(self, index) -> Self:
        """Return the transitions that `index` selects; a slice gives views."""
        return type(self)(**{name: array[index] for name, array in vars(self).items()})

    def copy_draw(self, out: "Draw") -> None:
        """Copy all fields into `out`, except the fields that describe frames."""
        for name in Draw.__dataclass_fields__:
            getattr(out, name)[:] = getattr(self, name)


@dataclass(frozen=True, kw_only=True)
class Sample(Draw):
    """Transitions with both observations assembled: the learner's input.

    With J later steps, `obs_BSHW` has S + J frames: those of the observation, then those of the J
    rows after it.
    """

    obs_BSHW: np.ndarray  # uint8, oldest frame first
    next_obs_BSHW: np.ndarray  # uint8, `horizon` rows later

    @classmethod
    def empty(
        cls,
        count: int,
        stack: int,
        frame_shape: tuple[int, int],
        past_actions: int,
        later: int = 0,
        sequence: SequenceLayout | None = None,
    ) -> Self:
        """Return an uninitialized sample of `count` transitions. It should be filled many times,
        because allocating memory takes longer than filling it.
        """
        return cls(
            obs_BSHW=np.empty((count, stack + later, *frame_shape), np.uint8),
            next_obs_BSHW=np.empty((count, stack, *frame_shape), np.uint8),
            **empty_draw(count, past_actions, later, sequence),
        )


@dataclass(frozen=True, kw_only=True)
class PlacedSample(Draw):
    """Transitions with the positions of their frames in the shard, for a reader that copies the
    frames from the shard's memory.
    """

    leaf_B: np.ndarray  # int64: lane · rows + slot
    age_B: np.ndarray  # uint8: steps since the episode's first frame, at most 255
    horizon_B: np.ndarray  # uint8: rows to the next observation
    next_age_B: np.ndarray  # uint8


@dataclass(frozen=True, kw_only=True)
class SlicedSample(Draw):
    """Transitions with the bytes of their frames, to be sent over a network.

    A frame that both observations of a transition contain is included once. Each frame is
    LZ4-compressed or uncompressed. T is the largest number of frames of a transition.
    """

    data_N: np.ndarray  # uint8: the bytes of all frames; of a transition, oldest frame first
    start_B: np.ndarray  # int64: index in `data_N` of a transition's first byte
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


def empty_draw(
    count: int, past_actions: int, later: int = 0, sequence: SequenceLayout | None = None
) -> dict[str, np.ndarray]:
    """Return uninitialized arrays for the fields of a Draw. `sequence`: None for transitions."""
    rows, state_size = (sequence.rows, sequence.state_size) if sequence else (0, 0)
    return {
        "steps_BTF": np.empty((count, rows, COLUMNS), np.float32),
        "state_BS": np.empty((count, state_size), np.float32),
        "past_BK": np.empty((count, past_actions), np.int16),
        "next_past_BK": np.empty((count, past_actions), np.int16),
        "action_B": np.empty(count, np.uint8),
        "return_B": np.empty(count, np.float32),
        "discount_B": np.empty(count, np.float32),
        "key_B": np.empty(count, np.int64),
        "probability_B": np.empty(count, np.float64),
        "later_BJ": np.empty((count, later), np.int16),
    }
