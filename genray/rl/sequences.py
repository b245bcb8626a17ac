"""Sequences of rows, from which recurrent networks learn: options, layout and storage of a shard.

A sequence is a range of consecutive rows of one lane, in the ring that stores the rows anyway:

    rows      | burn_in: no gradient | length: learned from | n_step: targets only |
    starts at a multiple of `period` rows, where the state of the network is stored

Every `period` = length − overlap rows another sequence starts, so frames are stored once although
sequences overlap. A sequence may contain the end of an episode and the start of the next one. The
row of an episode's last frame is not learned from (its horizon is 0), and the state of the network
is zero where the age is 0. [Kapturowski 2019, https://openreview.net/forum?id=r1lyTjAqYX]

Shapes: L lanes, C rows per lane, P = C / period, B batch, T rows of a sequence, F columns of a row,
S numbers of a state.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from genray.bounds import bounded, check_bounds
from genray.errors import require

if TYPE_CHECKING:
    from genray.rl.chunk import Chunk, Draw

ACTION, LAST_ACTION, LAST_REWARD, RETURN, DISCOUNT, HORIZON, AGE = range(COLUMNS := 7)
"""The columns of a row in `Draw.steps_BTF`. LAST_ACTION is −1 and LAST_REWARD is 0 at an episode's
start. HORIZON is 0 in rows that are not learned from.
"""
MOST_ROWS = 255  # a block of later rows is counted in uint8


@dataclass(frozen=True, kw_only=True)
class SequenceConfig:
    """The sequences from which a recurrent network learns; without --lstm-units they are unused."""

    sequence_length: int = bounded(80, min=1, max=200, example=80)
    """Steps of a sequence that are learned from. They follow the --burn-in steps."""
    sequence_overlap: int = bounded(40, min=0, example=40)
    """Steps that a sequence has in common with the next one. Every length − overlap steps, a
    sequence starts and the state of the LSTM is stored.
    """
    burn_in: int = bounded(40, min=0, example=40)
    """Steps before those that are learned from, over which only the state is computed."""
    priority_eta: float = bounded(0.9, min=0, max=1, example=0.9)
    """η in the priority of a sequence, η · max |δ| + (1 − η) · mean |δ|."""
    stored_state: bool = True
    """A sequence starts with the state that the collector had; off: with zeros. Off only for
    comparisons.
    """

    def validate(self) -> None:
        """Raise ConfigError for an invalid option."""
        check_bounds(self)
        length = self.sequence_length
        require(
            self.sequence_overlap < length,
            f"--sequence-overlap {self.sequence_overlap}: must be less than --sequence-length "
            f"{length}, e.g. {length // 2}",
        )
        require(
            self.burn_in <= length,
            f"--burn-in {self.burn_in}: longer than --sequence-length {length}; use at most "
            f"{length}",
        )

    @property
    def period(self) -> int:
        """Rows between the starts of two sequences."""
        return self.sequence_length - self.sequence_overlap

    def check(self, n_step: int, chunk_rows: int) -> None:
        """Raise ConfigError if the sequences do not suit the returns or the chunks."""
        rows = self.burn_in + self.sequence_length + n_step
        require(
            rows <= MOST_ROWS,
            f"--sequence-length {self.sequence_length}: {rows} rows with --burn-in and --n-step; "
            f"use at most {MOST_ROWS} together",
        )
        require(
            chunk_rows % self.period == 0,
            f"--chunk-rows {chunk_rows}: a sequence starts every {self.period} steps (length − "
            f"overlap); use a multiple of {self.period}",
        )

    def layout(self, n_step: int, state_size: int, repeats: bool) -> SequenceLayout:
        """Return the layout of the sequences of a network whose state has `state_size` numbers."""
        return SequenceLayout(
            burn_in=self.burn_in,
            length=self.sequence_length,
            n_step=n_step,
            period=self.period,
            eta=self.priority_eta,
            state_size=state_size,
            stored_state=self.stored_state,
            repeats=repeats,
        )


@dataclass(frozen=True, kw_only=True)
class SequenceLayout:
    """The shape of the sequences of a run."""

    burn_in: int
    length: int
    n_step: int
    period: int
    eta: float
    state_size: int
    stored_state: bool
    repeats: bool
    """Whether frames before an episode's first one are copies of it; otherwise they are blank."""

    @property
    def rows(self) -> int:
        """T, the rows of a sequence."""
        return self.burn_in + self.length + self.n_step

    @property
    def learned(self) -> slice:
        """The rows that are learned from."""
        return slice(self.burn_in, self.burn_in + self.length)


def sequence_priority(delta_BL: np.ndarray, learned_BL: np.ndarray, eta: float) -> np.ndarray:
    """Return η · max |δ| + (1 − η) · mean |δ| over the rows that are learned from, [B]; 0 for a
    sequence without such rows.
    """
    size_BL = np.where(learned_BL, np.abs(delta_BL), 0.0)
    mean_B = size_BL.sum(axis=1) / np.maximum(learned_BL.sum(axis=1), 1)
    return eta * size_BL.max(axis=1) + (1 - eta) * mean_B


class SequenceStore:
    """What a shard stores for sequences besides its rows: each row's first |δ| and the reward that
    led to it, and the state of the network at each start.

    Bytes for each row: 8 + 4 S / period (512 units, period 40: 110).

    Args:
        lanes, rows: L and C; C is a multiple of the period.
        layout: the shape of the sequences.
    """

    def __init__(self, lanes: int, rows: int, layout: SequenceLayout):
        self.layout, self._rows = layout, rows
        self.delta_LC = np.zeros((lanes, rows), np.float32)
        self.last_reward_LC = np.zeros((lanes, rows), np.float32)
        self.state_LPS = np.zeros((lanes, rows // layout.period, layout.state_size), np.float32)

    @property
    def nbytes(self) -> int:
        """Bytes of memory that the store takes."""
        return self.delta_LC.nbytes + self.last_reward_LC.nbytes + self.state_LPS.nbytes

    def write(self, lanes: slice, head: int, chunk: Chunk) -> None:
        """Write the rewards and states of a chunk whose first row is row `head` of its lanes."""
        assert chunk.last_reward_ET is not None and chunk.state_EPS is not None
        period, starts = self.layout.period, self.state_LPS.shape[1]
        row_T = np.arange(head, head + chunk.num_rows) % self._rows
        self.last_reward_LC[lanes, row_T] = chunk.last_reward_ET
        start_P = np.arange(head // period, (head + chunk.num_rows) // period) % starts
        self.state_LPS[lanes, start_P] = chunk.state_EPS

    def completed(self, head: int, num_rows: int, floor: int) -> np.ndarray:
        """Return the rows at which sequences start that are complete once rows `head` … head +
        num_rows − 1 are written, but were not before; int64. None starts before row `floor`.
        """
        last = head + num_rows - self.layout.rows
        first = max(last - num_rows + 1, floor)
        period = self.layout.period
        return np.arange(-(-first // period) * period, last + 1, period)

    def first_priorities(self, lanes: slice, start_N: np.ndarray, horizon_LC: np.ndarray):
        """Return the priorities of new sequences from the collector's own |δ|, float64 [E, N]."""
        burn_in, length, eta = self.layout.burn_in, self.layout.length, self.layout.eta
        slot_NL = (start_N[:, None] + burn_in + np.arange(length)) % self._rows
        delta_ENL, learned_ENL = self.delta_LC[lanes][:, slot_NL], horizon_LC[lanes][:, slot_NL] > 0
        flat = (-1, length)
        priority_M = sequence_priority(delta_ENL.reshape(flat), learned_ENL.reshape(flat), eta)
        return priority_M.astype(np.float64).reshape(delta_ENL.shape[:2])

    def fill(self, row_LC: np.ndarray, leaf_B: np.ndarray, out: Draw) -> None:
        """Write the rows and the first states of the sequences at the leaves into `out`."""
        from genray.rl.sequence_kernels import fill_sequences  # loads Numba

        layout = self.layout
        fill_sequences(
            row_LC, self.last_reward_LC, self.state_LPS, leaf_B, layout.burn_in, layout.length,
            layout.period, layout.stored_state, out.steps_BTF, out.state_BS,
        )  # fmt: skip

    _ARRAYS = ("delta_LC", "last_reward_LC", "state_LPS")

    def save(self, folder: Path, used: int) -> None:
        """Write the arrays of the first `used` rows into `folder`."""
        for name in self._ARRAYS:
            count = used // self.layout.period if name == "state_LPS" else used
            np.save(folder / f"{name}.npy", getattr(self, name)[:, :count])

    def load(self, folder: Path) -> None:
        """Read what `save` wrote."""
        for name in self._ARRAYS:
            stored = np.load(folder / f"{name}.npy")
            getattr(self, name)[:, : stored.shape[1]] = stored
