"""Moves batches to the learner's device: without a copy on a CPU, ahead of their use on a GPU.

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

    obs_BSHW: Tensor  # uint8, oldest frame first
    next_obs_BSHW: Tensor  # uint8, k rows later

    @classmethod
    def empty(cls, count: int, layout: ShardLayout, device: torch.device) -> Self:
        """Return an uninitialized sample of `count` transitions on `device`."""
        shape = (2, count, layout.stack, *layout.frame_shape)
        obs_BSHW, next_obs_BSHW = torch.empty(shape, dtype=torch.uint8, device=device)
        return cls(
            obs_BSHW=obs_BSHW, next_obs_BSHW=next_obs_BSHW, **empty_draw(count, layout.past_actions)
        )

    def fill(self, sample: Sample) -> None:
        """Copy everything from host memory, and wait for the copy."""
        self.obs_BSHW.copy_(torch.from_numpy(sample.obs_BSHW))
        self.next_obs_BSHW.copy_(torch.from_numpy(sample.next_obs_BSHW))
        sample.copy_draw(self)


AnySample = Sample | DeviceSample


class DeviceBatch(NamedTuple):
    """The tensors of a batch that an update needs, on the learner's device; dtypes as in Sample."""

    obs_BSHW: Tensor  # uint8: floats would be four times the bytes on the bus
    next_obs_BSHW: Tensor
    past_BK: Tensor
    next_past_BK: Tensor
    action_B: Tensor
    return_B: Tensor
    discount_B: Tensor
    probability_B: Tensor


def empty_sample(count: int, layout: ShardLayout, device: torch.device) -> Sample:
    """Return an uninitialized batch to send to `device`: for a GPU in pinned memory, from which a
    copy runs beside other work.

    PyTorch keeps freed pinned memory and reuses it, so that only the first few batches pin any.
    """
    out = Sample.empty(count, layout.stack, layout.frame_shape, layout.past_actions)
    if device.type != "cuda":
        return out
    shape = (count, layout.stack, *layout.frame_shape)
    obs_BSHW, next_obs_BSHW = (
        torch.empty(shape, dtype=torch.uint8, pin_memory=True).numpy() for _ in range(2)
    )
    return replace(out, obs_BSHW=obs_BSHW, next_obs_BSHW=next_obs_BSHW)


class _Sent(NamedTuple):
    """A batch that is being copied to the device, or has arrived."""

    batch: AnySample
    tensors: DeviceBatch
    arrived: torch.cuda.Event | None
    """None: the copy was complete when the call returned."""


class Transfers:
    """Moves batches to a device one after the other; sends the next one while the device works on
    the last.

    On a CPU the tensors share the batch's memory, and nothing is copied or sent ahead.

    Args:
        device: the learner's device.
        copies: whether batches are copied; None: on every device but a CPU.
    """

    def __init__(self, device: torch.device, *, copies: bool | None = None):
        self._device = device
        self._copies = device.type != "cpu" if copies is None else copies
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._ahead: _Sent | None = None
        # A copy reads the batch's memory until it is complete, so the memory must not be reused
        # before that.
        self._held: list[_Sent] = []

    def start(self, batch: AnySample) -> None:
        """Send the next batch, while the device works on the current one."""
        if self._copies:
            self._ahead = self._send(batch)

    def take(self, batch: AnySample) -> DeviceBatch:
        """Return `batch` on the device, for work submitted from now on."""
        ahead, self._ahead = self._ahead, None
        sent = ahead if ahead and ahead.batch is batch else self._send(batch)
        if sent.arrived:
            current = torch.cuda.current_stream(self._device)
            current.wait_event(sent.arrived)
            # Allocated on the other stream: the memory must not be reused before this one is done.
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
