"""`genray doctor`: checks this installation, and says how to repair it.

Each check is one function that examines one thing and returns a `Check`. The thing (a version, a
directory, a port) is an argument with the real one as its default, so that a test can pass a
broken one. Heavy libraries are imported inside the checks, because the doctor has to work when a
library is missing or broken.
"""

import sys
from collections.abc import Callable
from importlib import metadata
from typing import TextIO

from genray.doctor.check import REINSTALL, Check, fail
from genray.doctor.libraries import (
    check_gymnasium,
    check_libraries,
    check_python,
    check_ray,
    check_torch,
)
from genray.doctor.machine import (
    PORTS,
    check_disk,
    check_gpu,
    check_memory,
    check_open_files,
    check_port,
    check_shared_memory,
    check_temporary_files,
)
from genray.doctor.programs import check_haproxy, check_roms, check_vector_env, check_video


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
    "Temporary files": check_temporary_files,
    "Disk": check_disk,
    "Memory": check_memory,
    "Open files": check_open_files,
    **{f"Port {port}": _port_check(port) for port in PORTS},
}


def run_checks(checks: dict[str, Callable[[], Check]] | None = None) -> list[Check]:
    """Run every check. A check that raises, e.g. because a library is missing, counts as failed."""
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
    """Print the result of each check on a line, and its repair on the next line.

    Returns 1 if a check found something that would stop a run, else 0.
    """
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
        if check.repair and check.status != "ok":
            print(f"{' ' * (len(marks['ok']) + width + 3)}repair: {check.repair}", file=out)
    failed = sum(check.status == "fail" for check in found)
    warned = sum(check.status == "warn" for check in found)
    if failed:
        print(f"{failed} of {len(found)} checks would stop a run.", file=out)
    elif warned:
        print(f"Ready; {warned} of {len(found)} checks gave a warning.", file=out)
    else:
        print("Ready.", file=out)
    return 1 if failed else 0
