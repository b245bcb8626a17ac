"""Handles requests to stop a run: Ctrl-C, SIGTERM, SIGHUP, and a closed output.

A request is recorded when it arrives. The run stops at its next consistent state.
"""

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any, Self


def stop_signals() -> list[signal.Signals]:
    """Return the signals that request a stop: SIGINT, SIGTERM, and SIGHUP.

    A closed terminal sends SIGHUP. SIGHUP is omitted if the process ignores it, as with `nohup`.
    Such a process continues after its terminal is closed.
    """
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    return numbers


@contextlib.contextmanager
def stop_signals_blocked() -> Iterator[None]:
    """Make every process that starts inside the `with` statement block SIGTERM and SIGHUP.

    When a run is stopped by timeout, scancel, systemd or a closed terminal, all its processes often
    get the signal. Ray's processes have to keep running until the run is saved, or until the
    service has answered its last request. They already block SIGINT, and they end with this process
    in any case.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class StopRequests:
    """Records Ctrl-C, SIGTERM (sent by job schedulers) and SIGHUP (sent by a closed terminal).

    The first signal is only recorded, with a line on standard error; `check` then raises
    KeyboardInterrupt. The second signal raises KeyboardInterrupt at once.

    Args:
        closed: function that returns whether the reader of the run's output has ended, which is
            also a request to stop.
    """

    def __init__(self, closed: Callable[[], bool] = lambda: False) -> None:
        self.count = 0
        self._closed = closed
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        # Outside the main thread, `signal.signal` raises ValueError; the caller handles signals.
        with contextlib.suppress(ValueError):
            for number in stop_signals():
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: object) -> None:
        """Record a signal; raise KeyboardInterrupt at the second one."""
        self.count += 1
        if self.count > 1:
            raise KeyboardInterrupt
        # `print` is not used, because the signal may interrupt another `print`.
        with contextlib.suppress(OSError):
            os.write(
                2,
                b"stopping at the run's next consistent state; a second Ctrl-C stops at once and "
                b"saves nothing\n",
            )

    def check(self) -> None:
        """Raise KeyboardInterrupt if the run was asked to stop."""
        if self.count or self._closed():
            raise KeyboardInterrupt


def leave_stdout(notice: str = "") -> None:
    """Send later output to standard error, after standard output was closed (`genray … | head -1`).

    If standard error is closed as well, later output of both is discarded. `notice` is a line that
    is printed to standard error first. If `sys.stdout` is not the process's standard output, this
    function does nothing.
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
    """Return whether `sys.stdout` is descriptor 1; in a notebook or a test it is not."""
    try:
        return sys.stdout.fileno() == 1
    except (OSError, ValueError, AttributeError):
        return False
