"""Keeps a shard's frames in memory that a learner on the same node reads directly.

The memory is a memfd (see memfd_create(2)), a file in memory without a name, which cannot be left
behind. Its size is limited only by the machine's memory, while /dev/shm has its own limit, which is
small in containers. It is freed when no process has it open. Another process of the same user opens
it at a path in /proc. On another node, or in another container, this path does not exist, or is a
file that does not begin with the token.

Shapes: L lanes, C rows per lane, T new rows, B batch, S stack, P pixels.
"""

import contextlib
import mmap
import os
import secrets
from dataclasses import dataclass

import numpy as np

from genray.rl import kernels
from genray.rl.chunk import PlacedSample, Sample
from genray.rl.frame_store import Places, RawFrames
from genray.rl.replay_config import ShardLayout

TOKEN_BYTES = 64  # one cache line, so that the counts of the lanes begin at the next one


@dataclass(frozen=True, kw_only=True)
class Address:
    """Describes where another process of the node finds a shard's frames."""

    path: str
    token: bytes
    """Random bytes with which the memory begins."""
    layout: ShardLayout


def _views(memory: mmap.mmap, layout: ShardLayout) -> tuple[np.ndarray, np.ndarray]:
    """Return (number of rows ever claimed in each lane, int64 [L]; frames, uint8 [L, C, P])."""
    pixels = layout.frame_shape[0] * layout.frame_shape[1]
    claimed_L = np.frombuffer(memory, np.int64, layout.lanes, TOKEN_BYTES)
    frame_N = np.frombuffer(
        memory, np.uint8, layout.lanes * layout.rows * pixels, _header_bytes(layout)
    )
    return claimed_L, frame_N.reshape(layout.lanes, layout.rows, pixels)


def _ask_for_huge_pages(memory: mmap.mmap) -> None:
    """Ask the kernel for huge pages.

    A batch is read from hundreds of random positions. With pages of 4 KiB, each position costs a
    dozen TLB misses. The kernel may refuse (its setting `shmem_enabled`), which affects only speed.
    """
    with contextlib.suppress(OSError, AttributeError):
        memory.madvise(mmap.MADV_HUGEPAGE)


def _header_bytes(layout: ShardLayout) -> int:
    return -(-(TOKEN_BYTES + 8 * layout.lanes) // mmap.PAGESIZE) * mmap.PAGESIZE


class SharedFrames(RawFrames):
    """Stores frames as RawFrames does, but in memory that other processes can read.

    Rows are claimed, which means counted in the shared memory, before they are written. After a
    copy, a reader can therefore check whether the copied rows may have been overwritten meanwhile.

    Args:
        layout: the shapes of the frames, for which memory is allocated.
    """

    def __init__(self, layout: ShardLayout):
        pixels = layout.frame_shape[0] * layout.frame_shape[1]
        size = _header_bytes(layout) + layout.lanes * layout.rows * pixels
        self._file = os.memfd_create("genray-replay")
        os.ftruncate(self._file, size)
        self._memory = mmap.mmap(self._file, size)
        _ask_for_huge_pages(self._memory)
        token = secrets.token_bytes(TOKEN_BYTES)
        self._memory[:TOKEN_BYTES] = token
        self._claimed_L, self.frame_LCP = _views(self._memory, layout)
        self.address = Address(
            path=f"/proc/{os.getpid()}/fd/{self._file}", token=token, layout=layout
        )

    def write(self, lanes: slice, head: int, frame_ETP: np.ndarray) -> None:
        """Claim the rows, then write them."""
        self._claimed_L[lanes] = head + frame_ETP.shape[1]
        super().write(lanes, head, frame_ETP)


class AttachedFrames:
    """Reads the frames in the SharedFrames of another process.

    Args:
        memory: the shared memory.
        layout: the shapes of the shard.
    """

    def __init__(self, memory: mmap.mmap, layout: ShardLayout):
        self.layout = layout
        self._claimed_L, self.frame_LCP = _views(memory, layout)

    @classmethod
    def attach(cls, address: Address) -> "AttachedFrames | None":
        """Open the memory at `address`.

        Returns None if it cannot be opened, because the shard is on another node, belongs to
        another user, or is dead.
        """
        try:
            file = os.open(address.path, os.O_RDONLY)
        except OSError:
            return None
        try:
            memory = mmap.mmap(file, 0, prot=mmap.PROT_READ)
            _ask_for_huge_pages(memory)
        except (OSError, ValueError):  # the path is now another file, which cannot be mapped
            return None
        finally:
            os.close(file)
        if memory[:TOKEN_BYTES] != address.token:
            return None
        return cls(memory, address.layout)

    def gather(self, placed: PlacedSample, out: Sample) -> np.ndarray:
        """Fill `out`; return bool [B]: which transitions were certainly not overwritten before they
        were copied.

        Between sampling and copying, the shard may have overwritten the oldest rows. The shard
        claims rows before it writes them, so no damaged transition is missed.
        """
        layout, count = self.layout, placed.size
        places = Places(placed.leaf_B, placed.age_B, placed.horizon_B, placed.next_age_B)
        obs_BSP, next_obs_BSP = (
            each.reshape(count, -1, self.frame_LCP.shape[2])
            for each in (out.obs_BSHW, out.next_obs_BSHW)
        )
        kernels.gather_stacks(
            self.frame_LCP, *places, layout.stack_start == "repeat", obs_BSP, next_obs_BSP
        )
        placed.copy_draw(out)
        return self.not_overwritten(placed)

    def not_overwritten(self, placed: PlacedSample) -> np.ndarray:
        """Return bool [B]: which transitions the shard has certainly not begun to overwrite.

        If a transition's entry is True, all copies that were made before this call are correct.
        """
        row_B, lane_B = np.divmod(placed.key_B, self.layout.lanes)
        return row_B - self.layout.lookback >= self._claimed_L[lane_B] - self.layout.rows
