"""Moves batches to the learner's device. For a GPU, the next batch is copied while the GPU works on
the current one; on a CPU, nothing is copied.

Shapes: B batch, S stack, H height, W width, K past actions.
"""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from genray.rl.chunk import Draw, Sample, empty_draw
from genray.rl.replay_config import ShardLayout


@dataclass(frozen=True, kw_only=True)
class DeviceSample(Draw):
    """A Sample whose observations are on the learner's device."""

    obs_BSHW: Tensor  # uint8, oldest frame first, then later frames as in Sample
    next_obs_BSHW: Tensor  # uint8, `horizon` rows later

    @classmethod
    def empty(cls, count: int, layout: ShardLayout, device: torch.device) -> Self:
        """Return an uninitialized sample of `count` transitions on `device`."""
        obs_BSHW, next_obs_BSHW = (
            torch.empty((count, frames, *layout.frame_shape), dtype=torch.uint8, device=device)
            for frames in (layout.stack + layout.later, layout.stack)
        )
        draw = empty_draw(count, layout.past_actions, layout.later, layout.sequence)
        return cls(obs_BSHW=obs_BSHW, next_obs_BSHW=next_obs_BSHW, **draw)

    def fill(self, sample: Sample) -> None:
        """Copy all fields of `sample` from host memory; return when they are copied."""
        self.obs_BSHW.copy_(torch.from_numpy(sample.obs_BSHW))
        self.next_obs_BSHW.copy_(torch.from_numpy(sample.next_obs_BSHW))
        sample.copy_draw(self)


AnySample = Sample | DeviceSample


class DeviceBatch(NamedTuple):
    """The tensors of a batch that an update needs, on the learner's device; dtypes as in Sample."""

    obs_BSHW: Tensor  # uint8, because copying float32 to a GPU would take four times as long
    next_obs_BSHW: Tensor
    past_BK: Tensor
    next_past_BK: Tensor
    action_B: Tensor
    return_B: Tensor
    discount_B: Tensor
    probability_B: Tensor
    later_BJ: Tensor
    steps_BTF: Tensor
    state_BS: Tensor


def empty_sample(count: int, layout: ShardLayout, device: torch.device) -> Sample:
    """Return an uninitialized batch in host memory, to be sent to `device`. For a GPU its
    observations are in pinned memory, which the GPU can copy while this process does other work.

    PyTorch keeps freed pinned memory for reuse, so only the first few batches pin new memory.
    """
    out = Sample.empty(
        count, layout.stack, layout.frame_shape, layout.past_actions, layout.later, layout.sequence
    )
    if device.type != "cuda":
        return out
    obs_BSHW, next_obs_BSHW = (
        torch.empty(each.shape, dtype=torch.uint8, pin_memory=True).numpy()
        for each in (out.obs_BSHW, out.next_obs_BSHW)
    )
    return replace(out, obs_BSHW=obs_BSHW, next_obs_BSHW=next_obs_BSHW)


class _Sent(NamedTuple):
    """A batch whose copy to the device has begun, and may be complete."""

    batch: AnySample
    tensors: DeviceBatch
    arrived: torch.cuda.Event | None
    """Occurs when the copy is complete; None if it was complete when `_send` returned."""


class Transfers:
    """Moves batches to a device one after the other. The next batch can be sent while the device
    works on the current one.

    Without copies, which is the default on a CPU, the tensors share the batch's memory.

    Args:
        device: the learner's device.
        copies: whether batches are copied; None: on every device but a CPU.
    """

    def __init__(self, device: torch.device, *, copies: bool | None = None):
        self._device = device
        self._copies = device.type != "cpu" if copies is None else copies
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._ahead: _Sent | None = None
        # Batches are kept here until their copies are complete, so that their memory is not reused
        # while a copy reads it.
        self._held: list[_Sent] = []

    def start(self, batch: AnySample) -> None:
        """Begin to send the next batch while the device works on the current one."""
        if self._copies:
            self._ahead = self._send(batch)

    def take(self, batch: AnySample) -> DeviceBatch:
        """Return the tensors of `batch` on the device, for work that is submitted from now on."""
        ahead, self._ahead = self._ahead, None
        sent = ahead if ahead and ahead.batch is batch else self._send(batch)
        if sent.arrived:
            current = torch.cuda.current_stream(self._device)
            current.wait_event(sent.arrived)
            # The tensors were allocated on the stream of copies. Their memory must not be reused
            # before the current stream has finished with them.
            for tensor in sent.tensors:
                tensor.record_stream(current)
        return sent.tensors

    def _send(self, batch: AnySample) -> _Sent:
        with self._beside():
            tensors = DeviceBatch(
                *(self._tensor(getattr(batch, name)) for name in DeviceBatch._fields)
            )
            sent = _Sent(batch, tensors, self._mark())
        self._held = [each for each in self._held if each.arrived and not each.arrived.query()]
        if sent.arrived:
            self._held.append(sent)
        return sent

    def _tensor(self, values: np.ndarray | Tensor) -> Tensor:
        if isinstance(values, Tensor):
            return values
        tensor = torch.from_numpy(values)
        return tensor.to(self._device, non_blocking=True, copy=True) if self._copies else tensor

    def _beside(self) -> AbstractContextManager[object]:
        return torch.cuda.stream(self._stream) if self._stream else nullcontext()

    def _mark(self) -> torch.cuda.Event | None:
        """Return an event that occurs when everything sent so far has arrived."""
        return self._stream.record_event() if self._stream else None
