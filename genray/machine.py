"""What this machine has: GPU, driver, memory, read from the places where the kernel shows them.

`root` stands for the root of the file system, so that a test can build a machine out of files.
"""

import os
import re
import tempfile
from pathlib import Path

from genray.errors import ResourceError


def cuda_trial() -> str | None:
    """The GPU's name when a kernel really runs on it; None when PyTorch sees no GPU."""
    import warnings

    import torch

    with warnings.catch_warnings():  # PyTorch warns about old drivers here, at length
        warnings.simplefilter("ignore")
        if not torch.cuda.is_available():
            return None
    if float(torch.ones(8, device="cuda").sum()) != 8.0:
        raise RuntimeError("a sum on the GPU came out wrong")
    return torch.cuda.get_device_name(0)


def resolve_device(device: str) -> str:
    """ "auto" as the device at hand: "cuda" or "cpu".

    Raises ResourceError for "cuda" without a usable GPU.
    """
    import torch

    available = torch.cuda.is_available()
    if device == "cuda" and not available:
        raise ResourceError(
            "--device cuda: no usable GPU here; use --device cpu (and see `genray doctor`)"
        )
    return ("cuda" if available else "cpu") if device == "auto" else device


def has_bfloat16(device: str) -> bool:
    """Whether `device` ("cpu" or "cuda") multiplies bfloat16 in hardware. A CPU that does not is
    slower with it.
    """
    import torch

    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    can: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()  # since PyTorch 2.11
    return bool(can.get("avx512_bf16") or can.get("amx_bf16"))


def torch_cuda() -> str | None:
    """The CUDA release that PyTorch was built for; None for a CPU build."""
    import torch

    return torch.version.cuda


def driver_version(root: Path) -> str | None:
    """The version of the NVIDIA kernel module that is loaded now, as its own file says."""
    try:
        text = (root / "proc/driver/nvidia/version").read_text(encoding="utf-8")
    except OSError:
        return None
    found = re.search(r"Kernel Module.*?\s(\d+\.\d+(?:\.\d+)?)\s", text)
    return found.group(1) if found else None


def has_nvidia_gpu(root: Path) -> bool:
    """Whether an NVIDIA GPU is here, driver or not: a device node, or a display controller on
    the PCI bus.
    """
    if any((root / "dev").glob("nvidia[0-9]*")) or (root / "dev/dxg").exists():  # dxg: under WSL
        return True
    for device in (root / "sys/bus/pci/devices").glob("*"):
        try:
            vendor, kind = (
                (device / "vendor").read_text(encoding="utf-8"),
                (device / "class").read_text(encoding="utf-8"),
            )
        except OSError:
            continue
        if vendor.strip() == "0x10de" and kind.startswith("0x03"):
            return True
    return False


def available_memory(root: Path) -> int | None:
    """Bytes that new processes may take: what the kernel says is available, cut by the
    container's limit.
    """
    try:
        found = re.search(
            r"MemAvailable:\s+(\d+) kB", (root / "proc/meminfo").read_text(encoding="utf-8")
        )
    except OSError:
        return None
    if not found:
        return None
    available = int(found.group(1)) * 1024
    for folder, limit, used in (
        ("sys/fs/cgroup", "memory.max", "memory.current"),
        ("sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
    ):
        try:
            left = int((root / folder / limit).read_text(encoding="utf-8")) - int(
                (root / folder / used).read_text(encoding="utf-8")
            )
        except (OSError, ValueError):  # no such file, or the word "max"
            continue
        available = min(available, left)
    return available


def keep_freed_memory() -> None:
    """Have malloc keep what is freed instead of giving it back to the kernel; for processes that
    run a network on a CPU.

    PyTorch allocates megabytes anew in every layer of every update. By default glibc maps and
    unmaps each such block, and touching a fresh page costs more than the arithmetic on it: an
    update of 32 Atari transitions takes a quarter longer. Does nothing where the C library is
    not glibc.
    """
    import ctypes

    trim_threshold, mmap_threshold = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of <malloc.h>
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return
    for parameter in (trim_threshold, mmap_threshold):
        mallopt(parameter, 2**30)


MAX_SOCKET_PATH_BYTES = 107  # of struct sockaddr_un on Linux, without its final zero


def check_socket_path() -> None:
    """Raise ResourceError where Ray's session directory is too deep for the paths of its sockets.

    Ray puts them at TMPDIR/ray/session_DATE_TIME_MICROSECONDS_PID/sockets/plasma_store, and Linux
    takes at most 107 bytes.
    """
    folder = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
    name = f"session_2000-01-01_00-00-00_000000_{os.getpid()}"
    path = os.path.join(folder, "ray", name, "sockets", "plasma_store")
    excess = len(os.fsencode(path)) - MAX_SOCKET_PATH_BYTES
    if excess > 0:
        raise ResourceError(
            f"TMPDIR {folder}: too long by {excess} bytes for the paths of Ray's sockets (at most "
            f"{MAX_SOCKET_PATH_BYTES}); choose a shorter one, e.g. RAY_TMPDIR=/tmp"
        )
