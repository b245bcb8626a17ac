"""Ctrl-C and SIGTERM, noticed where a run's state is whole."""

import contextlib
import os
import signal
from typing import Any, Self


class StopRequests:
    """Ctrl-C and SIGTERM (a scheduler's way to stop a job), noticed where the run's state is whole.

    The first one is only noted, with a word to whoever waits, and `check` raises KeyboardInterrupt for it; the second
    raises at once.
    """

    def __init__(self) -> None:
        self.count = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        with contextlib.suppress(
            ValueError
        ):  # not in the main thread: whoever drives us there has signals of their own
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: object) -> None:
        self.count += 1
        if self.count > 1:
            raise KeyboardInterrupt
        with contextlib.suppress(OSError):  # not `print`: the signal may have come in the middle of one
            os.write(
                2, b"stopping as soon as the run's state is whole; a second Ctrl-C stops at once and saves nothing\n"
            )

    def check(self) -> None:
        if self.count:
            raise KeyboardInterrupt
