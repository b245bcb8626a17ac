"""Copies replay frames to the learner's device, each frame once, and assembles batches there.

A batch of 512 transitions has 29 MB with its frames and 40 KB without. By default a transition is
sampled 8 times, and a frame is part of 8 observations (4 current, 4 next), so sending assembled
batches would send most frames many times. The shards keep their own frames. A frame is copied when
a sampled transition first needs it.

Shapes: L lanes, C rows per lane, N = L·C frames, B batch, S stack, P pixels.
"""

import numpy as np
import torch

from genray.errors import ResourceError
from genray.rl.chunk import PlacedSample
from genray.rl.frame_store import pieces
from genray.rl.replay_config import ShardLayout
from genray.rl.transfer import AnySample, DeviceSample, empty_sample


class DeviceFrames:
    """A copy of one shard's ring buffers of frames, which is filled as frames are needed.

    The copy uses the shard's row numbers. The caller checks that the shard has not overwritten a
    transition since it was sampled; if it has not, the copies of the transition's frames are valid
    as well.

    Args:
        layout: the shapes of the shard.
        frame_LCP: the shard's own frames, in memory that this process can read.
        device: the device of the copy. Raises ResourceError when the copy does not fit into the
            device's memory.
    """

    def __init__(self, layout: ShardLayout, frame_LCP: np.ndarray, device: torch.device):
        lanes, rows, pixels = frame_LCP.shape
        self._layout, self._source_LCP, self._device = layout, frame_LCP, device
        self._blank = lanes * rows  # an additional frame, which stays zero
        try:
            self._frame_NP = torch.zeros(
                (lanes * rows + 1, pixels), dtype=torch.uint8, device=device
            )
        except torch.OutOfMemoryError as error:
            free = torch.cuda.mem_get_info(device)[0]
            raise ResourceError(
                f"--frames-on device: a shard's frames need {lanes * rows * pixels / 1e9:.1f} GB, "
                f"{free / 1e9:.1f} GB are "
                "free on the device; use --frames-on host, or a smaller --capacity"
            ) from error
        # For each lane, the number of the next row to copy, counted since the shard began.
        self._copied_L = np.zeros(lanes, np.int64)
        self._back_S = np.arange(layout.stack - 1, -1, -1)

    @property
    def nbytes(self) -> int:
        """Bytes of the copy on the device."""
        return self._frame_NP.nbytes

    def gather(self, placed: PlacedSample, out: DeviceSample) -> None:
        """Fill `out` with the transitions of `placed` and their observations.

        The device may still be copying when this returns.
        """
        layout, rows = self._layout, self._layout.rows
        row_B, lane_B = np.divmod(placed.key_B, layout.lanes)
        needed_L = self._copied_L.copy()
        # The newest row that a sampled transition needs is its next observation, or its last later
        # row.
        np.maximum.at(needed_L, lane_B, row_B + np.maximum(placed.horizon_B, layout.later) + 1)
        self._copy(needed_L)
        first_B, slot_B = lane_B * rows, row_B % rows
        obs_BS = self._stacks(first_B, slot_B, placed.age_B)
        next_BS = self._stacks(first_B, slot_B + placed.horizon_B, placed.next_age_B)
        if layout.later:
            after_BJ = (slot_B[:, None] + np.arange(1, layout.later + 1)) % rows
            obs_BS = np.concatenate([obs_BS, first_B[:, None] + after_BJ], axis=1)
        index = self._send(np.concatenate([obs_BS.ravel(), next_BS.ravel()]))
        observations = (out.obs_BSHW, out.next_obs_BSHW)
        for obs_BSHW, index_N in zip(observations, index.split([obs_BS.size, next_BS.size])):
            torch.index_select(self._frame_NP, 0, index_N, out=obs_BSHW.view(len(index_N), -1))
        placed.copy_draw(out)

    def _stacks(self, first_B: np.ndarray, slot_B: np.ndarray, age_B: np.ndarray) -> np.ndarray:
        """Return the frame numbers of the observations at `slot_B`, oldest first; int64 [B, S]."""
        # Before an episode's start, the rule "repeat" uses copies of the episode's first frame.
        back_BS = np.minimum(self._back_S, age_B[:, None])
        index_BS = first_B[:, None] + (slot_B[:, None] - back_BS) % self._layout.rows
        if self._layout.stack_start != "repeat":
            index_BS[self._back_S > age_B[:, None]] = self._blank
        return index_BS

    def _copy(self, needed_L: np.ndarray) -> None:
        """Copy the rows of each lane before row `needed_L` that have not been copied yet.

        The shard has written all these rows, because it writes a lane's rows in order. Rows that
        the ring buffer has already overwritten are skipped.
        """
        rows = self._layout.rows
        for lane in np.flatnonzero(needed_L > self._copied_L):
            first = max(int(self._copied_L[lane]), int(needed_L[lane]) - rows)
            for ring, _ in pieces(first, int(needed_L[lane]) - first, rows):
                here = slice(lane * rows + ring.start, lane * rows + ring.stop)
                # Copied, because frames of another process are mapped read-only, and
                # `torch.from_numpy` warns about read-only arrays.
                self._frame_NP[here] = self._send(self._source_LCP[lane, ring].copy())
        self._copied_L = needed_L

    def _send(self, array: np.ndarray) -> torch.Tensor:
        """Queue a copy of an array to the device. Without pinned memory, this call would wait until
        the device has finished all queued work.
        """
        tensor = torch.from_numpy(array)
        if self._device.type == "cuda":
            tensor = tensor.pin_memory()
        return tensor.to(self._device, non_blocking=True)


def empty_batch(count: int, layout: ShardLayout, device: torch.device, frames_on: str) -> AnySample:
    """Return an uninitialized batch, with observations on `device` if `frames_on` is "device", else
    in host memory.
    """
    if frames_on == "device":
        return DeviceSample.empty(count, layout, device)
    return empty_sample(count, layout, device)
