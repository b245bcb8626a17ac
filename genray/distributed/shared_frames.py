"""A shard's frames in memory that another process of the same node may read: the learner then
gathers for itself.

The memory is a memfd: no name in a file system that could be left behind, no limit but the
machine's memory (/dev/shm has a size of its own, in containers a small one), and gone with the
last process that has it open. Another process of the same user opens it through /proc; on
another node, or in a container of its own, it finds nothing there, or not the token.

Shapes: L lanes, C rows a lane, T rows that come, B batch, S stack, P pixels.
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

TOKEN_BYTES = 64  # as many as the lanes' counts behind it need to begin at a cache line


@dataclass(frozen=True, kw_only=True)
class Address:
    """Where a shard's frames can be had."""

    path: str
    token: bytes
    layout: ShardLayout


def _views(memory: mmap.mmap, layout: ShardLayout) -> tuple[np.ndarray, np.ndarray]:
    """(rows ever claimed in each lane, int64 [L]; frames, uint8 [L, C, P])."""
    pixels = layout.frame_shape[0] * layout.frame_shape[1]
    claimed_L = np.frombuffer(memory, np.int64, layout.lanes, TOKEN_BYTES)
    frame_N = np.frombuffer(
        memory, np.uint8, layout.lanes * layout.rows * pixels, _header_bytes(layout)
    )
    return claimed_L, frame_N.reshape(layout.lanes, layout.rows, pixels)


def _ask_for_huge_pages(memory: mmap.mmap) -> None:
    """A batch reads from hundreds of random places: with pages of 4 KiB each costs a dozen
    misses of the TLB.

    The kernel may decline (its setting `shmem_enabled`); it is asked for nothing more than speed.
    """
    with contextlib.suppress(OSError, AttributeError):
        memory.madvise(mmap.MADV_HUGEPAGE)


def _header_bytes(layout: ShardLayout) -> int:
    return -(-(TOKEN_BYTES + 8 * layout.lanes) // mmap.PAGESIZE) * mmap.PAGESIZE


class SharedFrames(RawFrames):
    """RawFrames in a memfd. Before rows are written over, `claimed_L` says so: who reads
    afterwards looks there.
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
        self._claimed_L[lanes] = head + frame_ETP.shape[1]
        super().write(lanes, head, frame_ETP)


class AttachedFrames:
    """Another process's SharedFrames, to read from."""

    def __init__(self, memory: mmap.mmap, layout: ShardLayout):
        self.layout = layout
        self._claimed_L, self.frame_LCP = _views(memory, layout)

    @classmethod
    def attach(cls, address: Address) -> "AttachedFrames | None":
        """None when the memory cannot be had from here: another node, another user, a process
        that is gone.
        """
        try:
            file = os.open(address.path, os.O_RDONLY)
        except OSError:
            return None
        try:
            memory = mmap.mmap(file, 0, prot=mmap.PROT_READ)
            _ask_for_huge_pages(memory)
        except (OSError, ValueError):  # some other process's file, behind the same number
            return None
        finally:
            os.close(file)
        if memory[:TOKEN_BYTES] != address.token:
            return None
        return cls(memory, address.layout)

    def gather(self, placed: PlacedSample, out: Sample) -> np.ndarray:
        """Fill `out`; bool [B]: which transitions were still there, whole, after they had been
        copied.

        Between the draw and the copy the shard may have taken in new rows over the oldest ones.
        It claims rows before it writes them, so that whatever was damaged while it was copied is
        seen here.
        """
        layout, count = self.layout, placed.size
        places = Places(placed.leaf_B, placed.age_B, placed.horizon_B, placed.next_age_B)
        stacks = (count, layout.stack, self.frame_LCP.shape[2])
        obs_BSP, next_obs_BSP = out.obs_BSHW.reshape(stacks), out.next_obs_BSHW.reshape(stacks)
        kernels.gather_stacks(
            self.frame_LCP, *places, layout.stack_start == "repeat", obs_BSP, next_obs_BSP
        )
        placed.copy_draw(out)
        return self.still_there(placed)

    def still_there(self, placed: PlacedSample) -> np.ndarray:
        """bool [B]: what nobody has begun to write over; of what was copied before, what is
        whole.
        """
        row_B, lane_B = np.divmod(placed.key_B, self.layout.lanes)
        return row_B - self.layout.lookback >= self._claimed_L[lane_B] - self.layout.rows
