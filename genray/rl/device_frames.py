"""Frames in the memory of the learner's device: each goes there once, and batches are put
together where they are needed.

A batch of 512 is 29 MB with its frames, 40 KB without; a transition is drawn 8 times as a rule,
its frame is part of 8 observations. Shards keep their own frames as ever: this is a copy, filled
as transitions are drawn.

Shapes: L lanes, C rows a lane, N = L·C frames, B batch, S stack, P pixels.
"""

import numpy as np
import torch

from genray.errors import ResourceError
from genray.rl.chunk import PlacedSample
from genray.rl.frame_store import pieces
from genray.rl.replay_config import ShardLayout
from genray.rl.transfer import AnySample, DeviceSample, empty_sample


class DeviceFrames:
    """A copy of one shard's ring.

    Its row is the shard's row: whoever draws makes sure that what was drawn has not been
    overwritten there since, and what has not is right here, too.
    """

    def __init__(self, layout: ShardLayout, frame_LCP: np.ndarray, device: torch.device):
        """`frame_LCP`: the shard's own frames, read as they are needed. Raises ResourceError
        when they do not fit.
        """
        lanes, rows, pixels = frame_LCP.shape
        self._layout, self._source_LCP, self._device = layout, frame_LCP, device
        self._blank = lanes * rows  # one frame more, which nothing is ever written to
        try:
            self._frame_NP = torch.zeros(
                (lanes * rows + 1, pixels), dtype=torch.uint8, device=device
            )
        except torch.OutOfMemoryError as error:
            free = torch.cuda.mem_get_info(device)[0]
            raise ResourceError(
                f"--frames-on device: a shard's frames need {lanes * rows * pixels / 1e9:.1f} GB, "
                f"{free / 1e9:.1f} GB are "
                "free there; use --frames-on host, or a smaller --capacity"
            ) from error
        # rows of each lane, ever, of which a copy has been made
        self._copied_L = np.zeros(lanes, np.int64)
        self._back_S = np.arange(layout.stack - 1, -1, -1)

    @property
    def nbytes(self) -> int:
        return self._frame_NP.nbytes

    def gather(self, placed: PlacedSample, out: DeviceSample) -> None:
        """Fill `out`. The device may still be at it when this returns."""
        layout, rows = self._layout, self._layout.rows
        row_B, lane_B = np.divmod(placed.key_B, layout.lanes)
        needed_L = self._copied_L.copy()
        np.maximum.at(needed_L, lane_B, row_B + placed.horizon_B + 1)
        self._copy(needed_L)
        first_B, slot_B = lane_B * rows, row_B % rows
        index = self._send(
            np.stack(
                [
                    self._stacks(first_B, slot_B, placed.age_B),
                    self._stacks(first_B, slot_B + placed.horizon_B, placed.next_age_B),
                ]
            )
        )
        for obs_BSHW, index_N in zip((out.obs_BSHW, out.next_obs_BSHW), index):
            torch.index_select(self._frame_NP, 0, index_N, out=obs_BSHW.view(len(index_N), -1))
        placed.copy_draw(out)

    def _stacks(self, first_B: np.ndarray, slot_B: np.ndarray, age_B: np.ndarray) -> np.ndarray:
        """Where the frames of the observations at `slot_B` lie, oldest first; int64 [B·S]."""
        # before the episode's first frame comes that one again
        back_BS = np.minimum(self._back_S, age_B[:, None])
        index_BS = first_B[:, None] + (slot_B[:, None] - back_BS) % self._layout.rows
        if self._layout.stack_start != "repeat":
            index_BS[self._back_S > age_B[:, None]] = self._blank
        return index_BS.ravel()

    def _copy(self, needed_L: np.ndarray) -> None:
        """Bring the rows of each lane up to `needed_L` here. What was drawn had been written: so
        had all rows before it.
        """
        rows = self._layout.rows
        for lane in np.flatnonzero(needed_L > self._copied_L):
            first = max(int(self._copied_L[lane]), int(needed_L[lane]) - rows)
            for ring, _ in pieces(first, int(needed_L[lane]) - first, rows):
                here = slice(lane * rows + ring.start, lane * rows + ring.stop)
                # A copy first, because another process may be writing there.
                self._frame_NP[here] = self._send(self._source_LCP[lane, ring].copy())
        self._copied_L = needed_L

    def _send(self, array: np.ndarray) -> torch.Tensor:
        """To the device, behind the work that it has: from pinned memory, or this would wait
        until it is done.
        """
        tensor = torch.from_numpy(array)
        if self._device.type == "cuda":
            tensor = tensor.pin_memory()
        return tensor.to(self._device, non_blocking=True)


def room(count: int, layout: ShardLayout, device: torch.device, frames_on: str) -> AnySample:
    """Room for a batch to be put together on the host, for `device`, or on it."""
    if frames_on == "device":
        return DeviceSample.empty(count, layout, device)
    return empty_sample(count, layout, device)
