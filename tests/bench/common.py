"""What every benchmark needs: fresh processes, CPU time, a table, and one JSON line at the end.

A system is measured in a process of its own, started with the number of threads that it may use:
PyTorch, NumPy's BLAS and OpenMP read their thread counts once, when they are loaded, and one
system's warm allocator would help the next.
"""

import json
import os
import platform
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)


class BenchError(RuntimeError):
    """A measured process failed, or printed no result."""


def run_measured(argv: Sequence[str], *, threads: int, timeout_s: float) -> dict[str, Any]:
    """Run `python -m argv… --threads N` in a fresh process; the JSON object of its last line.

    Raises BenchError with the end of what the process said when it fails, hangs or prints no
    JSON line.
    """
    command = [sys.executable, "-m", *argv, "--threads", str(threads)]
    environment = os.environ | dict.fromkeys(THREAD_VARIABLES, str(threads))
    shown = " ".join(command[1:])
    process = subprocess.Popen(
        command,
        cwd=REPOSITORY,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        out, err = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired as error:
        process.terminate()  # first politely: a process that started Ray takes it down when it ends
        try:
            process.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
        raise BenchError(f"{shown}: no result after {timeout_s:.0f} s") from error
    if process.returncode != 0:
        raise BenchError(f"{shown}: exit status {process.returncode}\n{err[-3000:]}")
    for line in reversed(out.splitlines()):
        if line.startswith("{"):
            return json.loads(line)
    raise BenchError(f"{shown}: printed no JSON line\n{out[-1000:]}\n{err[-3000:]}")


def tree_cpu_s() -> float:
    """CPU seconds (user + system) of this process and all its living and awaited descendants,
    from /proc.

    Ray's processes count too when they descend from this one; so does everything that they have
    waited for.
    """
    return sum(own + awaited for own, awaited in _tree().values())


@contextmanager
def watched_tree_cpu(period_s: float = 0.25) -> Iterator[Callable[[], float]]:
    """A function that tells the CPU seconds of this process and its descendants since the
    beginning of the block.

    Looks all the time, because what a process that nobody waits for has spent is gone with it
    (Ray ends its workers so).
    """
    before = {pid: own for pid, (own, _) in _tree().items()}
    spent: dict[int, float] = {}
    over, alone = threading.Event(), threading.Lock()

    def look() -> float:
        with alone:
            spent.update({pid: own for pid, (own, _) in _tree().items()})
            return sum(own - before.get(pid, 0.0) for pid, own in spent.items())

    def watch() -> None:
        while not over.wait(period_s):
            look()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield look
    finally:
        over.set()
        watcher.join()


def _tree() -> dict[int, tuple[float, float]]:
    """CPU seconds of this process and each living descendant: its own, and of the children it
    has waited for.
    """
    tick = os.sysconf("SC_CLK_TCK")
    parent: dict[int, int] = {}
    spent: dict[int, tuple[float, float]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = stat.read_text()
        except OSError:  # ended meanwhile
            continue
        fields = text.rpartition(")")[2].split()  # the name before it may hold spaces
        pid = int(stat.parent.name)
        parent[pid] = int(fields[1])
        user, system, awaited_user, awaited_system = (int(field) / tick for field in fields[11:15])
        spent[pid] = (user + system, awaited_user + awaited_system)
    me = os.getpid()
    tree = {}
    for pid, seconds in spent.items():
        ancestor = pid
        while ancestor not in (me, 0, 1):
            ancestor = parent.get(ancestor, 0)
        if ancestor == me:
            tree[pid] = seconds
    return tree


@dataclass(frozen=True)
class Summary:
    """Repeats of one figure. On a shared machine the spread says how far to trust the median."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return median(self.values)

    def __str__(self) -> str:
        if len(self.values) == 1:
            return f"{self.median:.4g}"
        return f"{self.median:.4g} ({min(self.values):.4g}–{max(self.values):.4g})"


def describe_machine() -> str:
    """One line: processor, cores, memory, load, the versions that matter, the commit."""
    import torch

    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return (
        f"{_processor()}, {len(os.sched_getaffinity(0))} cores, {pages / 2**30:.0f} GiB, load "
        f"{os.getloadavg()[0]:.1f} "
        f"| Python {platform.python_version()}, torch {torch.__version__} | {_commit()}"
    )


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return " ".join(line.partition(":")[2].split())
    except OSError:
        pass
    return platform.machine()


def _commit() -> str:
    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=REPOSITORY, capture_output=True, text=True)
        return done.stdout.strip() if done.returncode == 0 else ""

    head = git("rev-parse", "--short", "HEAD")
    if not head:
        return "no commit"
    return f"commit {head}" + (" with changes" if git("status", "--porcelain") else "")


def print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A Markdown table whose columns also line up in a terminal, ready for RESULTS.md."""
    cells = [[str(cell) for cell in row] for row in [header, *rows]]
    width = [max(len(row[column]) for row in cells) for column in range(len(header))]
    print(f"\n{title}\n")
    for index, row in enumerate(cells):
        print(
            "| " + " | ".join(cell.ljust(width[column]) for column, cell in enumerate(row)) + " |"
        )
        if index == 0:
            print("|" + "|".join("-" * (size + 2) for size in width) + "|")
    print()


def last_json_line(values: dict[str, Any]) -> None:
    """Print the result for programs: one JSON object on one line, the last thing that a
    benchmark says.
    """
    print(
        json.dumps(
            {name: round(v, 4) if isinstance(v, float) else v for name, v in values.items()}
        ),
        flush=True,
    )
