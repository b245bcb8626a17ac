"""Finds, without a GPU, what would make a GPU wait: `DeviceAudit` runs code on the `meta` device
and notes each fault.

Tensors on `meta` have shapes and devices but no values, so every operator that needs a value on
the host is visible.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch.optim import optimizer
from torch.utils import _foreach_utils
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

ROOT = Path(__file__).resolve().parents[2]
META = torch.device("meta")
aten = torch.ops.aten
DATA_DEPENDENT = (
    aten.nonzero,
    aten.masked_select,
    aten.unique_consecutive,
    aten._unique2,
    aten.repeat_interleave,
    aten.equal,
    aten.bincount,
)
"""Operators whose result's shape, or whose result, is a value: a GPU finishes its queue before
they return.
"""


class Fault(NamedTuple):
    """One wait, or one tensor on the wrong device."""

    kind: str
    """read: device to host; upload: host to device, waiting; host: a tensor made on the CPU"""
    line: str
    """The innermost line of this project, such as genray/rl/learner.py:206."""
    operator: str


class DeviceAudit(TorchDispatchMode):
    """Notes faults of what runs inside. A read gives made-up values, so that the code goes on.

    An operator over tensors of both devices raises, as it would on a GPU.
    """

    def __init__(self) -> None:
        super().__init__()
        self.faults: list[Fault] = []

    def of_kind(self, *kinds: str) -> list[Fault]:
        return [fault for fault in self.faults if fault.kind in kinds]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        # there PyTorch leaves it to the mode to take operators apart
        if torch.is_inference_mode_enabled():
            with self:
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        inputs = [each for each in tree_leaves((args, kwargs)) if isinstance(each, torch.Tensor)]
        devices = {each.device.type for each in inputs if each.device.type == "meta" or each.ndim}
        packet = func.overloadpacket
        if packet is aten._local_scalar_dense and devices == {"meta"}:
            self._note("read", func)
            return torch.ones((), dtype=inputs[0].dtype).item()
        if packet is aten._to_copy and devices == {"meta"} and _target(kwargs, inputs[0]) == "cpu":
            self._note("read", func)
            return _made_up(inputs[0]).to(kwargs.get("dtype") or inputs[0].dtype)
        if packet is aten._to_copy and devices == {"cpu"} and _target(kwargs, inputs[0]) == "meta":
            if not kwargs.get("non_blocking"):
                self._note("upload", func)
            return func(*args, **kwargs)
        if packet is aten.copy_ and devices == {"meta", "cpu"}:
            self._note("read" if inputs[0].device.type == "cpu" else "upload", func)
            return (
                inputs[0]
                if inputs[0].device.type == "meta"
                else inputs[0].copy_(_made_up(inputs[1]))
            )
        # torch.tensor(…, device=…), or a list as an index
        if packet is aten.lift_fresh and devices == {"meta"}:
            self._note("upload", func)
        if "meta" in devices and (
            packet in DATA_DEPENDENT or (packet is aten.index and _masked(args))
        ):
            self._note("read", func)
            result = func(*tree_map_only(torch.Tensor, _made_up, args), **kwargs)
            return tree_map_only(torch.Tensor, lambda each: each.to(META), result)
        # works in place, and PyTorch has no kernel for meta
        if packet is aten._fused_sgd_ and devices == {"meta"}:
            return None
        if devices == {"meta", "cpu"}:
            raise RuntimeError(f"{_line()}: {func} of tensors on the device and on the host")
        result = func(*args, **kwargs)
        if not inputs and isinstance(result, torch.Tensor) and result.device.type == "cpu":
            self._note("host", func)
        return result

    def _note(self, kind: str, func: Any) -> None:
        self.faults.append(Fault(kind, _line(), str(func)))


def _made_up(tensor: torch.Tensor) -> torch.Tensor:
    """Values of the tensor's shape and dtype on the host: 0 and 1 by turns, or noise."""
    if tensor.is_floating_point():
        return torch.rand(
            tensor.shape, dtype=tensor.dtype, generator=torch.Generator().manual_seed(0)
        )
    return (torch.arange(tensor.numel()) % 2).reshape(tensor.shape).to(tensor.dtype)


def _masked(args: Any) -> bool:
    return any(index is not None and index.dtype == torch.bool for index in args[1])


def _target(kwargs: dict[str, Any], tensor: torch.Tensor) -> str:
    return torch.device(kwargs.get("device") or tensor.device).type


def _line() -> str:
    frame = sys._getframe(1)
    while frame:
        path = Path(frame.f_code.co_filename)
        if path.is_relative_to(ROOT / "genray") or path.is_relative_to(ROOT / "serve"):
            return f"{path.relative_to(ROOT)}:{frame.f_lineno} {frame.f_code.co_name}"
        frame = frame.f_back  # type: ignore[assignment]
    return "outside the project"


@contextmanager
def audited() -> Iterator[DeviceAudit]:
    """An audit, inside which `meta` has autocast, fused optimizers and foreach operators, as
    real devices have.
    """
    autocast = torch.autocast

    def anywhere(device_type: str, *args: Any, **kwargs: Any) -> Any:
        return nullcontext() if device_type == "meta" else autocast(device_type, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "autocast", anywhere)
        for kind in ("fused", "foreach"):
            name = f"_get_{kind}_kernels_supported_devices"
            devices = [*getattr(_foreach_utils, name)(), "meta"]
            for module in (_foreach_utils, optimizer):
                patch.setattr(module, name, lambda devices=devices: list(devices))
        with DeviceAudit() as audit:
            yield audit
