"""Checks of the machine: GPU, memory, disk, ports and limits."""

import shutil
import socket
from collections.abc import Callable
from pathlib import Path

from genray import machine
from genray.doctor.check import GIB, REINSTALL, Check, Status, fail, ok, warn
from genray.errors import ResourceError
from genray.machine import check_surroundings, ray_temporary_directory

# For each major version of CUDA, the oldest Linux driver that runs all of its releases (NVIDIA
# calls this minor-version compatibility).
OLDEST_DRIVER = {11: (450, 80), 12: (525, 60), 13: (580, 65)}

PORTS = {
    6379: "a Ray head node (or Redis) runs on this machine: `ray status` shows it; local runs use "
    "another port",
    8265: "Ray's dashboard: another Ray runs on this machine; the next one takes 8266",
    8000: "another program uses Ray Serve's HTTP port: give `genray serve` another --port",
}


def check_gpu(
    root: Path = Path("/"),
    torch_cuda: Callable[[], str | None] = machine.torch_cuda,
    cuda_trial: Callable[[], str | None] = machine.cuda_trial,
) -> Check:
    """Check that an existing GPU can be used. The check never fails, because a run needs no GPU."""
    name = "GPU"
    driver, cuda = machine.driver_version(root), torch_cuda()
    # Try a computation on the GPU; if that works, nothing else has to be checked.
    try:
        gpu = cuda_trial()
        reason = "PyTorch does not find the GPU"
    except Exception as error:
        gpu, reason = None, str(error).partition("\n")[0]
    if gpu:
        return ok(name, f"{gpu}, driver {driver or 'unknown'}, CUDA {cuda}")

    # Otherwise find the reason: no GPU, no driver, no CUDA in PyTorch, or an old driver.
    if not driver and not machine.has_nvidia_gpu(root):
        return ok(name, "CPU only: training works, but is slower")
    if not driver:
        return warn(
            name,
            "an NVIDIA GPU is here, but no driver is loaded: training uses the CPU",
            "install the NVIDIA driver (in a container: start it with the NVIDIA runtime, --gpus "
            "all)",
        )
    if not cuda:
        return warn(
            name,
            f"driver {driver}, but this torch is built without CUDA: training uses the CPU",
            REINSTALL.format("torch torchvision"),
        )
    oldest = OLDEST_DRIVER.get(int(cuda.partition(".")[0]))
    if oldest and tuple(map(int, driver.split(".")[:2])) < oldest:
        return warn(
            name,
            f"driver {driver} is too old for torch's CUDA {cuda}: training uses the CPU",
            f"update the driver to {oldest[0]}.{oldest[1]} or newer, or take a torch for an older "
            "CUDA",
        )
    return warn(
        name,
        f"driver {driver}, CUDA {cuda}: {reason}",
        "check CUDA_VISIBLE_DEVICES, and that nvidia-smi lists the GPU; after a driver update, "
        "reboot",
    )


def check_shared_memory(path: Path = Path("/dev/shm"), least_bytes: int = 2 * GIB) -> Check:
    """Check that Ray's object store fits into shared memory; otherwise Ray uses /tmp, on a disk."""
    name = "Shared memory"
    if not path.is_dir():
        return ok(name, f"no {path} on this system: Ray uses its own files")
    free = shutil.disk_usage(path).free
    if free < least_bytes:
        return warn(
            name,
            f"{free / GIB:.1f} GiB free in {path}: Ray's object store falls back to a disk",
            "in a container: docker run --shm-size=4g; else, as root: mount -o remount,size=4g "
            "/dev/shm",
        )
    return ok(name, f"{free / GIB:.1f} GiB free in {path}")


def check_temporary_files() -> Check:
    """Check that Ray and the service can use the directory for temporary files."""
    name = "Temporary files"
    try:
        check_surroundings()
    except ResourceError as error:
        detail, _, repair = str(error).rpartition("; ")
        return fail(name, detail, repair)
    return ok(name, ray_temporary_directory())


def check_disk(path: Path = Path(), warn_bytes: int = 10 * GIB, fail_bytes: int = 1 * GIB) -> Check:
    """Check that runs fit on the disk: checkpoints contain the replay (7.1 GB a million
    transitions).
    """
    free = shutil.disk_usage(path).free
    status: Status = "fail" if free < fail_bytes else "warn" if free < warn_bytes else "ok"
    return Check(
        name="Disk",
        status=status,
        detail=f"{free / GIB:.1f} GiB free in {path.resolve()}",
        repair="" if status == "ok" else "free some space, or write runs elsewhere: --out DIR",
    )


def check_memory(
    root: Path = Path("/"), warn_bytes: int = 4 * GIB, fail_bytes: int = 1 * GIB
) -> Check:
    """Check the memory: a process with PyTorch takes about 0.4 GiB; Ray and the replay add more."""
    name = "Memory"
    available = machine.available_memory(root)
    if available is None:
        return ok(name, "unknown on this system")
    status: Status = (
        "fail" if available < fail_bytes else "warn" if available < warn_bytes else "ok"
    )
    return Check(
        name=name,
        status=status,
        detail=f"{available / GIB:.1f} GiB available",
        repair=""
        if status == "ok"
        else "close other programs, or use --local (one process) with a smaller capacity",
    )


def check_port(port: int, repair: str, host: str = "") -> Check:
    """Check that no program on this machine listens on a port that Ray uses.

    `host` is the address to check; the default is all addresses.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # Servers set this option, too. With it, a port that was closed a moment ago counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return warn(f"Port {port}", error.strerror or str(error), repair)
    return ok(f"Port {port}", "free")


def check_open_files(hard_limit: int | None = None, least: int = 4096) -> Check:
    """Check the hard limit of open files.

    The soft limit does not matter, because Ray raises it to the hard limit.
    """
    name = "Open files"
    if hard_limit is None:
        try:
            import resource
        except ImportError:  # not a Unix
            return ok(name, "no limit on this system")
        hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        if hard_limit == resource.RLIM_INFINITY:
            return ok(name, "no limit")
    if hard_limit < least:
        return warn(
            name,
            f"at most {hard_limit}: Ray opens many files and sockets",
            "raise nofile in /etc/security/limits.conf; in a container: docker run --ulimit "
            "nofile=65536",
        )
    return ok(name, f"at most {hard_limit}")
