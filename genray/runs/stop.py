"""Requests to stop a run: Ctrl-C, SIGTERM, SIGHUP, and a closed output.

A request is noted when it comes, and acted on where the run's state is whole.
"""

import contextlib
import os
import signal
import sys
from collections.abc import Callable
from typing import Any, Self


def stop_signals() -> list[signal.Signals]:
    """Signals that ask a process to stop: SIGINT, SIGTERM, and SIGHUP, which a closed terminal
    sends.

    SIGHUP is left out where it is ignored: `nohup` has a process outlive its terminal.
    """
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    return numbers


class StopRequests:
    """Notes Ctrl-C, SIGTERM (a scheduler's way to stop a job) and SIGHUP (a terminal that closed).

    The first signal is only noted, with a line on standard error, and `check` raises
    KeyboardInterrupt for it; the second one raises at once. `closed`: whether nobody reads the
    run's output any more, which counts as a request, too.
    """

    def __init__(self, closed: Callable[[], bool] = lambda: False) -> None:
        self.count = 0
        self._closed = closed
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        # not in the main thread: the caller has its own signals
        with contextlib.suppress(ValueError):
            for number in stop_signals():
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: object) -> None:
        self.count += 1
        if self.count > 1:
            raise KeyboardInterrupt
        # not `print`: the signal may have come in the middle of one
        with contextlib.suppress(OSError):
            os.write(
                2,
                b"stopping as soon as the run's state is whole; a second Ctrl-C stops at once "
                b"and saves nothing\n",
            )

    def check(self) -> None:
        """Raise KeyboardInterrupt if the run was asked to stop."""
        if self.count or self._closed():
            raise KeyboardInterrupt


def leave_stdout(notice: str = "") -> None:
    """Send later output to standard error, after standard output was closed (`genray … | head -1`).

    Where standard error is closed as well, later output of both is discarded. `notice`: a line that
    standard error gets first.
    """
    if not _is_process_stdout():
        return
    try:
        os.write(2, notice.encode())
        target = os.dup(2)
    except OSError:
        target = os.open(os.devnull, os.O_WRONLY)
        os.dup2(target, 2)
    os.dup2(target, 1)
    os.close(target)


def _is_process_stdout() -> bool:
    """Whether `sys.stdout` is descriptor 1: a notebook and a test have another one."""
    try:
        return sys.stdout.fileno() == 1
    except (OSError, ValueError, AttributeError):
        return False
