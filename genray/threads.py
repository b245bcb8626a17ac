"""Chooses the number of threads with which PyTorch computes on a CPU that other programs may also
use.

PyTorch uses every core by default. A parallel loop ends when the last of its threads ends. If other
programs are busy, one thread always waits for a core, and the other threads spin until then.
On 2 cores that also do other work, a step of a GAN on digits takes 945 ms with 2 threads and 130 ms
with 1 thread; the default DQN update takes 1,516 ms and 540 ms. Therefore a process uses only free
cores, a small network uses one thread, and waiting threads sleep instead of spinning. With sleeping
threads, 2 threads take 108 ms for the GAN and 329 ms for DQN.

The number of threads changes the order of sums. A checkpoint therefore stores this number, and a
resumed run uses it again.
"""

import os
import time
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

FLOP_PER_THREAD = 5e8
"""Number of floating-point operations of a step for which one thread is used. They take about 15 ms
on one core. With less work, threads mostly wait for each other.
"""
USER_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
"""Environment variables with which a user sets the number of threads; PyTorch reads both."""
SHORTEST_S, LONGEST_S = 0.3, 60.0
"""Shortest and longest window over which other programs' use of the CPU is measured."""


def sleep_while_waiting(environment: MutableMapping[str, str] = os.environ) -> None:
    """Make OpenMP's threads sleep while they wait. Has an effect only before PyTorch is imported.

    If the user has set one of OpenMP's variables for waiting, nothing changes.
    """
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"} & environment.keys():
        environment["OMP_WAIT_POLICY"] = "PASSIVE"


# -- the free cores --------------------------------------------------------------------------------


class CpuTimes(NamedTuple):
    """Three times in seconds: the clock, the idle time of all CPUs that this process may use, and
    the CPU time of this process and its ended children.
    """

    clock: float
    idle: float
    own: float


def usable_cores(root: Path = Path("/")) -> int:
    """Return the number of cores that this process may use: its affinity, limited by the
    container's quota.
    """
    cores = len(os.sched_getaffinity(0))
    try:
        quota, period = (root / "sys/fs/cgroup/cpu.max").read_text(encoding="utf-8").split()
        cores = min(cores, int(int(quota) / int(period)))
    except (OSError, ValueError):  # no such file, or the word "max"; try the older form
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
    """Return the current times; None if the kernel does not show them."""
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
    """Return how many of `cores` other programs left free between two times; at least 1."""
    free = (now.idle - before.idle + now.own - before.own) / (now.clock - before.clock)
    return min(cores, max(1, round(free)))


def free_cores() -> int:
    """Return the number of cores that are free for this process, at least 1.

    The measurement starts when this module is imported. If that is more than LONGEST_S ago, a new
    measurement of SHORTEST_S is made.
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
    """Return the number of threads that the user's environment sets; 0 if it sets none."""
    import torch

    return torch.get_num_threads() if any(os.environ.get(name) for name in USER_VARIABLES) else 0


def threads_for(flop: float, cores: int) -> int:
    """Return the number of threads for steps of `flop` floating-point operations, 1 to `cores`."""
    return max(1, int(min(cores, flop // FLOP_PER_THREAD)))


def choose_threads(flop: float = float("inf"), most: int | None = None) -> int:
    """Choose the number of threads for steps of `flop` floating-point operations.

    The result is the user's setting, if there is one. Otherwise there are as many threads as free
    cores, but only as many as have enough work. `most` is the largest number of threads; None:
    PyTorch's current number.
    """
    import torch

    return user_threads() or threads_for(flop, min(most or torch.get_num_threads(), free_cores()))


def saved_threads(saved: int) -> int:
    """Return the number of threads for a run that was saved with `saved` threads.

    The user's setting has priority. Without a setting, the result is `saved`, or the number of
    usable cores if that is less.
    """
    return user_threads() or min(saved, usable_cores())


@contextmanager
def own_threads(threads: int | None = None) -> Iterator[None]:
    """Set PyTorch's number of threads to `threads` (None: no change) in the context, and restore
    the previous number afterwards. The code inside the context may change the number.
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
    """Estimates the floating-point operations of PyTorch's matrix products and convolutions inside
    the context.

    A backward pass counts as twice its forward pass. PyTorch's own counter
    (torch.utils.flop_counter) counts each operation of both, but it imports the compiler, which
    takes longer than many trainings of this package.
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
        # each element of the result is a sum over the weights of one output
        return 2.0 * result.numel() * weight[0].numel()

    def of_transposed(result: Any, x: Any, weight: Any, *rest: Any) -> float:
        # each element of the input is multiplied by all weights of one input channel
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
