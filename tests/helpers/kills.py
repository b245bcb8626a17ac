"""Kills a process at every instant of a piece of work: before each of its file-system calls in
turn.
"""

import os
import signal
import sys
import traceback
from collections.abc import Callable
from typing import Any

CHANGES = ("os.", "shutil.", "ctypes.")


def _counts(event: str, arguments: tuple[Any, ...]) -> bool:
    if event == "open":
        mode, flags = arguments[1], arguments[2]
        return bool(flags & (os.O_WRONLY | os.O_RDWR)) or any(
            letter in str(mode) for letter in "wax+"
        )
    return event.startswith(CHANGES) and event not in ("os.listdir", "os.scandir", "os.kill")


def kill_at_every_instant(
    work: Callable[[], object], check: Callable[[], object], most: int = 500
) -> int:
    """Run `work` in a child process that is killed before its n-th call, for each n; `check`
    after each.

    Returns the number of kills. The last child ends by itself, with its work done.
    """
    for instant in range(most):
        child = os.fork()
        if child == 0:
            left = instant

            def die(event: str, arguments: tuple[Any, ...]) -> None:
                nonlocal left
                if _counts(event, arguments):
                    left -= 1
                    if left < 0:
                        os.kill(os.getpid(), signal.SIGKILL)

            os.fsync = lambda descriptor: None  # slow, and what a kill leaves does not depend on it
            sys.addaudithook(die)
            status = 1
            try:
                work()
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        _, status = os.waitpid(child, 0)
        check()
        if not os.WIFSIGNALED(status):
            assert os.waitstatus_to_exitcode(status) == 0
            return instant
    raise AssertionError(f"the work did not end within {most} calls")
