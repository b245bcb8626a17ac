"""How many threads PyTorch computes with on a CPU that other programs may use, too.

PyTorch takes every core by default. A loop in parallel ends when the last of its threads ends.
Beside busy programs one of them always waits for a core, and the others spin until it gets one.
Measured on 2 cores beside other work, milliseconds a step: a digits GAN 945 with 2 threads, 130
with 1; the default DQN update 1,516 and 540. Therefore a process takes the cores that are free,
a small network takes one thread, and waiting threads sleep instead of spinning (GAN: 108 with 2
threads, DQN: 329).

The number of threads changes the order of sums, so a checkpoint keeps it and a resumed run uses
it again.
"""

import os
import time
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

FLOP_PER_THREAD = 5e8
"""Floating-point operations of a step that are worth a thread: 15 ms of one core. Less, and threads
mostly wait for each other."""
USER_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
"""Environment variables by which a user sets the number of threads; PyTorch reads both."""
SHORTEST_S, LONGEST_S = 0.3, 60.0
"""The window over which other programs' use of the CPU is measured."""


def sleep_while_waiting(environment: MutableMapping[str, str] = os.environ) -> None:
    """Have OpenMP's threads sleep while they wait. Works only before PyTorch is imported.

    What the user has set stays.
    """
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"} & environment.keys():
        environment["OMP_WAIT_POLICY"] = "PASSIVE"


# -- the free cores --------------------------------------------------------------------------------


class CpuTimes(NamedTuple):
    """Seconds: the time, what this process's CPUs were idle, and what this process computed."""

    clock: float
    idle: float
    own: float


def usable_cores(root: Path = Path("/")) -> int:
    """The cores that this process may use: its affinity, cut by the container's quota."""
    cores = len(os.sched_getaffinity(0))
    try:
        quota, period = (root / "sys/fs/cgroup/cpu.max").read_text(encoding="utf-8").split()
        cores = min(cores, int(int(quota) / int(period)))
    except (OSError, ValueError):  # no such file, or the word "max"; then perhaps the older form
        folder = root / "sys/fs/cgroup/cpu"
        try:
            quota, period = (
                (folder / f"cpu.cfs_{name}_us").read_text(encoding="utf-8")
                for name in ("quota", "period")
            )
            cores = min(cores, int(int(quota) / int(period))) if int(quota) > 0 else cores
        except (OSError, ValueError):
            pass
    return max(1, cores)


def cpu_times(root: Path = Path("/")) -> CpuTimes | None:
    """The times up to now; None where the kernel does not show them."""
    mine, idle_ticks = os.sched_getaffinity(0), 0
    try:
        for line in (root / "proc/stat").read_text(encoding="utf-8").splitlines():
            name, *fields = line.split()
            if name.startswith("cpu") and name[3:].isdigit() and int(name[3:]) in mine:
                idle_ticks += int(fields[3]) + int(fields[4])  # idle, and idle while a disk works
    except (OSError, ValueError, IndexError):
        return None
    own = os.times()
    return CpuTimes(time.monotonic(), idle_ticks / os.sysconf("SC_CLK_TCK"), sum(own[:4]))


_at_start = cpu_times()


def free_between(before: CpuTimes, now: CpuTimes, cores: int) -> int:
    """The cores of `cores` that other programs left free between two times; at least 1."""
    free = (now.idle - before.idle + now.own - before.own) / (now.clock - before.clock)
    return min(cores, max(1, round(free)))


def free_cores() -> int:
    """The cores that are free for this process, at least 1; measured since it began, or now if
    that is long ago.
    """
    before = _at_start
    if before is not None and time.monotonic() - before.clock > LONGEST_S:
        before = cpu_times()
    if before is None:
        return usable_cores()
    time.sleep(max(0.0, SHORTEST_S - (time.monotonic() - before.clock)))
    now = cpu_times()
    return usable_cores() if now is None else free_between(before, now, usable_cores())


# -- the threads -----------------------------------------------------------------------------------


def user_threads() -> int:
    """The number of threads that the user's environment asks for; 0 where it asks for none."""
    import torch

    return torch.get_num_threads() if any(os.environ.get(name) for name in USER_VARIABLES) else 0


def threads_for(flop: float, cores: int) -> int:
    """The threads, at most `cores`, for steps of `flop` floating-point operations each."""
    return max(1, int(min(cores, flop // FLOP_PER_THREAD)))


def choose_threads(flop: float = float("inf"), most: int | None = None) -> int:
    """The threads for steps of `flop` floating-point operations: the user's choice, or what is
    free and worthwhile.

    At most `most`; None: PyTorch's present number.
    """
    import torch

    return user_threads() or threads_for(flop, min(most or torch.get_num_threads(), free_cores()))


def saved_threads(saved: int) -> int:
    """The threads of a run that was saved with `saved`; the user's choice goes before."""
    return user_threads() or min(saved, usable_cores())


@contextmanager
def own_threads(threads: int | None = None) -> Iterator[None]:
    """PyTorch's number of threads may change inside, and is `threads` to begin with; afterwards
    it is as before.
    """
    import torch

    before = torch.get_num_threads()
    try:
        if threads is not None:
            torch.set_num_threads(threads)
        yield
    finally:
        torch.set_num_threads(before)


# -- the work --------------------------------------------------------------------------------------


class FlopCount:
    """Estimates the floating-point operations of PyTorch's matrix products and convolutions
    inside `with`.

    A backward pass counts as twice its forward pass. PyTorch's own counter
    (torch.utils.flop_counter) sees each operation of both, but it imports the compiler, which
    takes longer than many a training here.
    """

    def __init__(self) -> None:
        self.flop = 0.0
        self._mode = _counting_mode()(self)

    def __enter__(self) -> "FlopCount":
        self._mode.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._mode.__exit__(*error)


@cache
def _counting_mode() -> Any:
    import torch
    from torch.nn import functional
    from torch.overrides import TorchFunctionMode

    def of_weight(result: Any, x: Any, weight: Any, *rest: Any) -> float:
        # each result is a sum over one output's weights
        return 2.0 * result.numel() * weight[0].numel()

    def of_transposed(result: Any, x: Any, weight: Any, *rest: Any) -> float:
        # each input adds to the results of one input's weights
        return 2.0 * x.numel() * weight[0].numel()

    def of_product(result: Any, left: Any, *rest: Any) -> float:
        return 2.0 * result.numel() * left.shape[-1]

    formulas: dict[Any, Callable[..., float]] = {}
    for formula, functions in (
        (of_weight, (functional.linear, torch.conv1d, torch.conv2d, functional.conv2d)),
        (of_transposed, (torch.conv_transpose2d, functional.conv_transpose2d)),
        (of_product, (torch.matmul, torch.mm, torch.bmm)),
        (
            of_product,
            (torch.Tensor.matmul, torch.Tensor.__matmul__, torch.Tensor.mm, torch.Tensor.bmm),
        ),
    ):
        formulas |= dict.fromkeys(functions, formula)

    class Mode(TorchFunctionMode):
        def __init__(self, count: FlopCount):
            super().__init__()
            self._count = count

        def __torch_function__(
            self, function: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            result = function(*args, **(kwargs or {}))
            formula = formulas.get(function)
            if formula is not None and len(args) >= 2:
                self._count.flop += formula(result, *args) * (3 if result.requires_grad else 1)
            return result

    return Mode
