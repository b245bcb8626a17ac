"""Runs many processes, each on one core, and keeps each result in a file of its own.

A job whose file exists is not run again, so a table that was stopped goes on where it stopped. A
stop or a kill loses only the runs that were in progress.
"""

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tests.bench.common import REPOSITORY, THREAD_VARIABLES, BenchError

POLL_S = 0.2
PR_SET_PDEATHSIG = 1  # of Linux's prctl


@dataclass(frozen=True)
class Job:
    """A process whose last line is a JSON object."""

    name: str
    """Name of the result's file, without .json."""
    argv: Sequence[str]
    """What follows `python -m`."""
    settings: dict[str, Any]
    """What a stored result must have been measured with."""


@dataclass
class _Running:
    job: Job
    cpu: int
    process: subprocess.Popen[bytes]
    log: Path
    """What the process prints; removed when it succeeds."""
    started: float


def result_of(job: Job, folder: Path) -> dict[str, Any] | None:
    """Return the stored record of a job: its settings, machine and result; None if there is none.

    Raises BenchError if the record was measured with other settings.
    """
    path = folder / f"{job.name}.json"
    if not path.exists():
        return None
    record = json.loads(path.read_text(encoding="utf-8"))
    if record["settings"] != job.settings:
        different = sorted(
            name
            for name in record["settings"] | job.settings
            if record["settings"].get(name) != job.settings.get(name)
        )
        raise BenchError(
            f"{path}: measured with another {', '.join(different)}; choose another --out, or "
            "remove the file"
        )
    return record


def run_jobs(
    jobs: Sequence[Job],
    folder: Path,
    *,
    machine: str,
    parallel: int,
    timeout_s: float,
    say: Callable[[str], None] = print,
) -> list[str]:
    """Run the jobs that have no stored result, `parallel` at a time, each pinned to a core of its
    own; return a line for each job that failed. `machine` is stored with each result.

    On KeyboardInterrupt and SIGTERM the running processes are ended, and KeyboardInterrupt is
    raised.
    """
    folder.mkdir(parents=True, exist_ok=True)
    waiting = [job for job in jobs if result_of(job, folder) is None]
    if len(waiting) < len(jobs):
        say(f"{len(jobs) - len(waiting)} of {len(jobs)} runs are already in {folder}")
    cpus = sorted(os.sched_getaffinity(0))
    running: list[_Running] = []
    failures: list[str] = []
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        while waiting or running:
            while waiting and len(running) < parallel:
                # The core with the fewest runs: one each, if there are as many cores as runs.
                used = [one.cpu for one in running]
                running.append(_start(waiting.pop(0), min(cpus, key=used.count), folder))
            time.sleep(POLL_S)
            for one in [one for one in running if _is_over(one, timeout_s)]:
                running.remove(one)
                problem = _store(one, folder, machine)
                failures += [f"{one.job.name}: {problem}"] * bool(problem)
                left = len(waiting) + len(running)
                seconds = time.monotonic() - one.started
                state = f"FAILED: {problem}" if problem else "done"
                say(f"{one.job.name}: {state} ({seconds:.0f} s, {left} left)")
    finally:
        signal.signal(signal.SIGTERM, before)
        for one in running:
            _end(one.process)
    return failures


def _start(job: Job, cpu: int, folder: Path) -> _Running:
    log = folder / f"{job.name}.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", *job.argv],
            cwd=REPOSITORY,
            env=os.environ | dict.fromkeys(THREAD_VARIABLES, "1"),
            stdout=file,
            stderr=subprocess.STDOUT,
            preexec_fn=partial(_prepare, cpu, os.getpid()),
        )
    return _Running(job, cpu, process, log, time.monotonic())


def _prepare(cpu: int, parent: int) -> None:
    """Pin this process to a core, and have Linux end it when the benchmark is killed."""
    os.sched_setaffinity(0, {cpu})
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # the benchmark ended before the line above
        os._exit(1)


def _is_over(one: _Running, timeout_s: float) -> bool:
    if one.process.poll() is not None:
        return True
    if time.monotonic() - one.started > timeout_s:
        _end(one.process)
        return True
    return False


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(timeout=20)  # a process that started Ray also stops Ray
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _store(one: _Running, folder: Path, machine: str) -> str:
    """Write the result of a finished process, as a whole or not at all; return what went wrong, or
    "".
    """
    lines = one.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    results = [line for line in lines if line.startswith("{")]
    if one.process.returncode != 0 or not results:
        last = lines[-1] if lines else "no message"
        return f"exit status {one.process.returncode}: {last} (see {one.log})"
    record = {
        "settings": one.job.settings,
        "machine": machine,
        "wall_s": round(time.monotonic() - one.started, 1),
        "result": json.loads(results[-1]),
    }
    path = folder / f"{one.job.name}.json"
    unfinished = path.with_suffix(".json.tmp")
    unfinished.write_text(json.dumps(record, indent=1), encoding="utf-8")
    unfinished.replace(path)
    one.log.unlink()
    return ""
