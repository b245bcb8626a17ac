"""Ends what a killed service leaves behind: a process that waits for the end of `genray serve`.

Ray's workers and agents, and HAProxy, can live on for seconds or minutes after the process that
started them was killed. They then keep ports, and HAProxy answers every request with an error. The
kernel closes a pipe when a process ends, however it ends, so this process waits for the end of a
pipe. It uses only the standard library, to start fast and to need little memory.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

VARIABLE = "GENRAY_SERVICE_ID"
"""Environment variable by which HAProxy and its like are found. Ray's own processes overwrite their
environment when they set their title.
"""
ENDED = b"ended"

Process = tuple[int, str]
"""The id of a process and the time of its start, because ids are used again."""


class Cleanup:
    """Context manager: if this process is killed inside the block, another process cleans up.

    It kills the processes that were children of this one when `note_children` was called, and those
    that have the environment variable VARIABLE with the value `name`. It then removes `folder`.
    """

    def __init__(self, name: str, folder: Path):
        self._name, self._folder = name, folder

    def __enter__(self) -> Self:
        environment = {key: value for key, value in os.environ.items() if key != VARIABLE}
        os.environ[VARIABLE] = self._name
        self._waiting = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__, self._name, str(self._folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env=environment,
            start_new_session=True,  # a Ctrl-C in the terminal does not reach it
        )
        return self

    def note_children(self) -> None:
        """Tell the other process which processes this one has started, directly or indirectly."""
        assert self._waiting.stdin
        with contextlib.suppress(OSError):  # it was killed; the service works without it
            for number, start in descendants(os.getpid()):
                if number != self._waiting.pid:
                    self._waiting.stdin.write(f"{number} {start}\n".encode())
            self._waiting.stdin.flush()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._waiting.communicate(ENDED)
        os.environ.pop(VARIABLE, None)


def _stat(process: Path) -> str:
    return (process / "stat").read_text(encoding="utf-8", errors="replace")


def _status() -> dict[int, tuple[int, str]]:
    """Return (parent, time of the start) of every process."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                # The second field, the name in brackets, may contain spaces.
                fields = _stat(entry).rpartition(")")[2].split()
            except OSError:  # it has just ended
                continue
            found[int(entry.name)] = int(fields[1]), fields[19]
    return found


def descendants(process: int) -> list[Process]:
    """Return the children of a process, their children, and so on."""
    status = _status()
    found, parents = [], {process}
    while parents:
        children = {each for each, (parent, _) in status.items() if parent in parents}
        found += [(each, status[each][1]) for each in children]
        parents = children
    return found


def named(name: str) -> list[int]:
    """Return the ids of the processes that have the environment variable VARIABLE=name."""
    wanted = f"{VARIABLE}={name}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if wanted in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
            except OSError:  # it has ended, or belongs to another user
                continue
    return found


def main(name: str, folder: Path) -> None:
    """Wait for the end of standard input, and clean up unless it ends with ENDED."""
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)
    noted = sys.stdin.buffer.read()
    if noted.endswith(ENDED):
        return
    status = _status()
    for line in noted.decode().splitlines():
        number, start = line.split()
        if int(number) in status and status[int(number)][1] == start:
            _kill(int(number))
    # A process that is found may start another one before it is killed.
    while found := named(name):
        for process in found:
            _kill(process)
    shutil.rmtree(folder, ignore_errors=True)


def _kill(process: int) -> None:
    with contextlib.suppress(OSError):  # it has just ended
        os.kill(process, signal.SIGKILL)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
