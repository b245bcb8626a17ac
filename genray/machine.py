"""Examines this machine (GPU, driver, memory, paths of Ray's sockets), and sets malloc's options.

The argument `root` replaces the root of the file system, so that a test can simulate the files in
which the kernel describes a machine.
"""

import os
import re
import secrets
import tempfile
from pathlib import Path

from genray.errors import ResourceError


def cuda_trial() -> str | None:
    """Run a kernel on the GPU and return the GPU's name; None if PyTorch finds no GPU.

    Raises RuntimeError if the kernel fails or its result is wrong.
    """
    import warnings

    import torch

    with warnings.catch_warnings():  # PyTorch prints long warnings about old drivers
        warnings.simplefilter("ignore")
        if not torch.cuda.is_available():
            return None
    if float(torch.ones(8, device="cuda").sum()) != 8.0:
        raise RuntimeError("the result of a sum on the GPU is wrong")
    return torch.cuda.get_device_name(0)


def resolve_device(device: str) -> str:
    """Replace "auto" by the available device: "cuda" or "cpu".

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
    """Return whether `device` ("cpu" or "cuda") multiplies bfloat16 in hardware.

    On a CPU without such hardware, bfloat16 is slower than float32.
    """
    import torch

    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    can: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()  # since PyTorch 2.11
    return bool(can.get("avx512_bf16") or can.get("amx_bf16"))


def torch_cuda() -> str | None:
    """Return the CUDA release that PyTorch was built for; None for a CPU build."""
    import torch

    return torch.version.cuda


def driver_version(root: Path) -> str | None:
    """Return the version of the NVIDIA kernel module that is loaded now; None if there is none."""
    try:
        text = (root / "proc/driver/nvidia/version").read_text(encoding="utf-8")
    except OSError:
        return None
    found = re.search(r"Kernel Module.*?\s(\d+\.\d+(?:\.\d+)?)\s", text)
    return found.group(1) if found else None


def has_nvidia_gpu(root: Path) -> bool:
    """Return whether the machine has an NVIDIA GPU, with or without a driver.

    The GPU is visible as a device node or as a display controller on the PCI bus.
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
    """Return the bytes that new processes may allocate; None if they are unknown.

    This is the memory that the kernel reports as available, or what is left below the container's
    limit if that is less.
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
    """Make malloc keep freed memory instead of returning it to the kernel, for processes that run a
    network on a CPU.

    PyTorch allocates megabytes in every layer of every update. By default, glibc maps and unmaps
    each such block. Because of the page faults, an update of 32 Atari transitions takes a quarter
    longer. Does nothing if the C library is not glibc.
    """
    import ctypes

    trim_threshold, mmap_threshold = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of <malloc.h>
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return
    for parameter in (trim_threshold, mmap_threshold):
        mallopt(parameter, 2**30)


MAX_SOCKET_PATH_BYTES = 107  # sockaddr_un on Linux, without the final zero


def ray_temporary_directory() -> str:
    """Return the directory in which Ray makes its session directory `ray`."""
    return os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()


def check_surroundings() -> None:
    """Raise ResourceError if a private Ray cannot start in this environment."""
    folder = ray_temporary_directory()
    name = "RAY_TMPDIR" if os.environ.get("RAY_TMPDIR") else "TMPDIR"
    # Ray writes the path into command lines and HAProxy's configuration, without quotes.
    if re.search(r"""[\s"'\\#$%]""", folder):
        raise ResourceError(
            f"{name} {folder}: Ray cannot use a path with a space, a quote, or one of #$%; choose "
            "another one, e.g. RAY_TMPDIR=/tmp"
        )
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ResourceError(
            f"{name} {folder}: this user cannot write there; choose another one, e.g. "
            "RAY_TMPDIR=/tmp"
        )
    check_socket_path()


def ensure_ray_token() -> None:
    """Give a private Ray a token of its own if none can be stored in the home directory.

    Ray reads its token from RAY_AUTH_TOKEN, or from ~/.ray/auth_token, which it makes. It does not
    start where it can do neither.
    """
    if {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & set(os.environ):
        return
    try:
        token = Path("~/.ray/auth_token").expanduser()
        if not token.exists():
            token.parent.mkdir(exist_ok=True)
        if os.access(token if token.exists() else token.parent, os.R_OK | os.W_OK):
            return
    except (OSError, RuntimeError):  # RuntimeError: the user has no home directory
        pass
    os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


def check_socket_path() -> None:
    """Raise ResourceError if the path of Ray's session directory is too long for its sockets.

    A socket's path is TMPDIR/ray/session_DATE_TIME_MICROSECONDS_PID/sockets/plasma_store, with
    RAY_TMPDIR instead of TMPDIR if it is set. Linux allows at most 107 bytes.
    """
    folder = ray_temporary_directory()
    name = f"session_2000-01-01_00-00-00_000000_{os.getpid()}"
    path = os.path.join(folder, "ray", name, "sockets", "plasma_store")
    excess = len(os.fsencode(path)) - MAX_SOCKET_PATH_BYTES
    if excess > 0:
        raise ResourceError(
            f"TMPDIR {folder}: too long by {excess} bytes for the paths of Ray's sockets (at most "
            f"{MAX_SOCKET_PATH_BYTES}); choose a shorter one, e.g. RAY_TMPDIR=/tmp"
        )
