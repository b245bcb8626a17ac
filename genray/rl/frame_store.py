"""Stores a shard's frames, uncompressed or compressed. Both kinds of store return the same frames,
bit for bit.

Shapes: L lanes, C rows per lane, E lanes of a source (a collector), T new rows, or frames of a
sliced transition, B batch, S stack, P pixels.
"""

from collections import deque
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

import numpy as np

from genray.errors import RunFault
from genray.rl import kernels
from genray.rl.chunk import Sample, SlicedSample
from genray.rl.replay_config import ShardLayout

ROWS_A_LOAD = 64


def pieces(head: int, count: int, rows: int) -> list[tuple[slice, slice]]:
    """Return where the rows `head` … head + count − 1 are in a ring buffer of `rows` slots, as
    [(slice of the slots, slice of the `count` rows)].

    The list has two entries if the rows wrap around the buffer's end; it is empty if `count` is 0.
    """
    start = head % rows
    first = min(count, rows - start)
    both = [
        (slice(start, start + first), slice(0, first)),
        (slice(0, count - first), slice(first, count)),
    ]
    return [(ring, part) for ring, part in both if part.stop > part.start]


class Slices(NamedTuple):
    """The frames of sampled transitions, to be sent over a network; see chunk.SlicedSample."""

    data_N: np.ndarray
    start_B: np.ndarray
    length_BT: np.ndarray


class Places(NamedTuple):
    """The positions of sampled transitions in a store."""

    leaf_B: np.ndarray  # int64: lane · C + slot
    age_B: np.ndarray  # uint8: steps since the episode's first frame, at most 255
    horizon_B: np.ndarray  # uint8: rows to the next observation
    next_age_B: np.ndarray  # uint8


class FrameStore(Protocol):
    """L ring buffers of C frames each."""

    @property
    def nbytes(self) -> int: ...

    def write(self, lanes: slice, head: int, frame_ETP: np.ndarray) -> None:
        """Write rows `head` … head + T − 1 of some lanes over the rows that are C rows older."""

    def stacks(
        self, places: Places, repeat: bool, obs_BSP: np.ndarray, next_obs_BSP: np.ndarray
    ) -> None:
        """Copy both observations, oldest frame first. If `repeat`, frames before an episode's start
        are copies of its first frame; otherwise they are blank. The frames that `obs_BSP` has more
        than `next_obs_BSP` get the rows after the transition's row.
        """

    def slices(self, places: Places, history: int, horizon: int, packed: bool) -> Slices:
        """Return the frames of both observations, each frame of a transition once: at most
        `history` + 1 + `horizon` frames per transition.

        `packed`: compress the frames. Lz4Frames returns compressed frames in any case.
        """

    def save(self, path: Path, used: int) -> None:
        """Write the first `used` slots of each lane as an .npy file, uint8 [L, used, P]."""


class RawFrames:
    """Stores frames uncompressed. The frames of a stack are contiguous in memory.

    Args:
        lanes, rows: L and C.
        pixels: bytes per frame, H·W.
    """

    def __init__(self, lanes: int, rows: int, pixels: int):
        self.frame_LCP = np.zeros((lanes, rows, pixels), np.uint8)

    @property
    def nbytes(self) -> int:
        return self.frame_LCP.nbytes

    def write(self, lanes: slice, head: int, frame_ETP: np.ndarray) -> None:
        for ring, part in pieces(head, frame_ETP.shape[1], self.frame_LCP.shape[1]):
            self.frame_LCP[lanes, ring] = frame_ETP[:, part]

    def stacks(
        self, places: Places, repeat: bool, obs_BSP: np.ndarray, next_obs_BSP: np.ndarray
    ) -> None:
        kernels.gather_stacks(self.frame_LCP, *places, repeat, obs_BSP, next_obs_BSP)

    def slices(self, places: Places, history: int, horizon: int, packed: bool) -> Slices:
        from genray.rl import lz4_kernels

        leaf_B, age_B = places.leaf_B, places.age_B
        start_B, length_BT = _slice_table(len(leaf_B), history + 1 + horizon)
        frames, pixels = length_BT.size, self.frame_LCP.shape[2]
        data_N = np.empty(
            lz4_kernels.compress_bound(frames, pixels) if packed else frames * pixels, np.uint8
        )
        total = lz4_kernels.slice_rows(
            self.frame_LCP,
            leaf_B,
            age_B,
            places.horizon_B,
            history,
            packed,
            start_B,
            length_BT,
            data_N,
        )
        assert total >= 0, "compress_bound is LZ4's own bound"
        return Slices(data_N[:total], start_B, length_BT)

    def save(self, path: Path, used: int) -> None:
        np.save(path, self.frame_LCP[:, :used])


class Lz4Frames:
    """Compresses each frame by itself and stores it. The frames of a chunk share one buffer, which
    is freed when all its rows have been overwritten.

    Args:
        lanes, rows: L and C.
        pixels: bytes per uncompressed frame, H·W.
    """

    def __init__(self, lanes: int, rows: int, pixels: int):
        from genray.rl import lz4_kernels  # imported only where frames are compressed

        self._lz4 = lz4_kernels
        self._rows, self._pixels = rows, pixels
        self._address_LC = np.zeros((lanes, rows), np.int64)
        self._length_LC = np.zeros((lanes, rows), np.int32)
        # first lane -> (rows, bytes), oldest first
        self._buffers: dict[int, deque[tuple[int, np.ndarray]]] = {}
        self._held: dict[int, int] = {}  # first lane -> rows in its buffers
        self._bytes = 0

    @property
    def nbytes(self) -> int:
        return self._address_LC.nbytes + self._length_LC.nbytes + self._bytes

    def write(self, lanes: slice, head: int, frame_ETP: np.ndarray) -> None:
        num_lanes, num_rows = frame_ETP.shape[:2]
        address_ET, length_ET = self._pack(
            lanes.start, frame_ETP.reshape(-1, self._pixels), num_rows
        )
        for ring, part in pieces(head, num_rows, self._rows):
            self._address_LC[lanes, ring] = address_ET.reshape(num_lanes, num_rows)[:, part]
            self._length_LC[lanes, ring] = length_ET.reshape(num_lanes, num_rows)[:, part]
        self._drop(lanes.start)

    def _pack(
        self, first_lane: int, frame_NP: np.ndarray, num_rows: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Compress frames into a new buffer for the source whose first lane is `first_lane`; return
        (addresses, lengths).
        """
        target = self._lz4.empty_target(len(frame_NP), self._pixels)
        length_N = np.empty(len(frame_NP), np.int32)
        total = self._lz4.compress(np.array(frame_NP, np.uint8, order="C"), target, length_N)
        assert total >= 0, "compress_bound is LZ4's own bound"
        buffer = target[:total].copy()
        self._buffers.setdefault(first_lane, deque()).append((num_rows, buffer))
        self._held[first_lane] = self._held.get(first_lane, 0) + num_rows
        self._bytes += buffer.nbytes
        return buffer.ctypes.data + np.concatenate([[0], np.cumsum(length_N[:-1])]), length_N

    def _drop(self, first_lane: int) -> None:
        """Free the buffers whose rows have all been overwritten."""
        buffers = self._buffers[first_lane]
        while self._held[first_lane] - buffers[0][0] >= self._rows:
            rows, buffer = buffers.popleft()
            self._held[first_lane] -= rows
            self._bytes -= buffer.nbytes

    def stacks(
        self, places: Places, repeat: bool, obs_BSP: np.ndarray, next_obs_BSP: np.ndarray
    ) -> None:
        self._check(
            self._lz4.gather_stacks(
                self._address_LC, self._length_LC, *places, repeat, obs_BSP, next_obs_BSP
            )
        )

    def slices(self, places: Places, history: int, horizon: int, packed: bool) -> Slices:
        leaf_B, age_B, length_LC = places.leaf_B, places.age_B, self._length_LC
        start_B, length_BT = _slice_table(len(leaf_B), history + 1 + horizon)
        total = self._lz4.slice_lengths(
            length_LC, leaf_B, age_B, places.horizon_B, history, start_B, length_BT
        )
        data_N = np.empty(total, np.uint8)
        self._lz4.copy_slices(self._address_LC, leaf_B, age_B, history, start_B, length_BT, data_N)
        return Slices(data_N, start_B, length_BT)

    def _check(self, fine: bool) -> None:
        if not fine:
            raise RunFault(
                "the replay's compressed frames are damaged by a fault of this machine's memory or "
                "of genray"
            )

    def save(self, path: Path, used: int) -> None:
        lanes = len(self._address_LC)
        header = {"descr": "|u1", "fortran_order": False, "shape": (lanes, used, self._pixels)}
        with path.open("wb") as file:
            np.lib.format.write_array_header_1_0(file, header)
            frame_CP = np.empty((used, self._pixels), np.uint8)
            # One lane at a time, because all lanes might not fit into memory uncompressed.
            for lane in range(lanes):
                self._check(
                    self._lz4.unpack_rows(self._address_LC[lane], self._length_LC[lane], frame_CP)
                )
                file.write(frame_CP.data)


def _slice_table(count: int, frames: int) -> tuple[np.ndarray, np.ndarray]:
    return np.empty(count, np.int64), np.empty((count, frames), np.int32)


def unpack(sliced: SlicedSample, layout: ShardLayout, out: Sample) -> None:
    """Write the frames of `sliced` into the observations of `out`, and copy the other fields.

    Raises RunFault when the bytes are damaged.
    """
    from genray.rl import lz4_kernels

    pixels = layout.frame_shape[0] * layout.frame_shape[1]
    obs_BSP, next_obs_BSP = (
        each.reshape(sliced.size, -1, pixels) for each in (out.obs_BSHW, out.next_obs_BSHW)
    )
    # Pass copies, and the address of the data, because arrays from Ray are read-only, and Numba
    # would compile the loop a second time for read-only arrays.
    small = [
        np.array(getattr(sliced, name))
        for name in ("start_B", "length_BT", "age_B", "horizon_B", "next_age_B")
    ]
    fine = lz4_kernels.unpack_slices(
        sliced.data_N.ctypes.data,
        len(sliced.data_N),
        *small,
        layout.stack_start == "repeat",
        obs_BSP,
        next_obs_BSP,
    )
    if not fine:
        raise RunFault(
            "frames from a replay shard are damaged by a fault of the network or of a machine's "
            "memory"
        )
    sliced.copy_draw(out)


def load_frames(store: FrameStore, path: Path, layout: ShardLayout, heads: dict[int, int]) -> None:
    """Read the frames of a file that `save` wrote into `store`, oldest first. Both kinds of store
    use the same file format. `heads`: rows ever written in each lane of a source.
    """
    stored_LCP = np.load(path, mmap_mode="r")
    each = layout.lanes_per_source
    for place, source in enumerate(layout.sources):
        lanes = slice(place * each, (place + 1) * each)
        for first in range(max(0, heads[source] - layout.rows), heads[source], ROWS_A_LOAD):
            rows = min(ROWS_A_LOAD, heads[source] - first)
            slot_T = np.arange(first, first + rows) % layout.rows
            store.write(lanes, first, stored_LCP[lanes, slot_T])


def make_store(kind: Literal["raw", "lz4"], lanes: int, rows: int, pixels: int) -> FrameStore:
    """Make an empty store of the given kind."""
    return (Lz4Frames if kind == "lz4" else RawFrames)(lanes, rows, pixels)
