"""Starts `genray serve` as a process, for tests of what only the whole service does."""

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psutil


@dataclass
class Served:
    """A running `genray serve`."""

    url: str
    metrics: str
    folder: Path
    process: subprocess.Popen[str]
    rest: threading.Thread
    """Reads the rest of the output, because the service would wait once the pipe is full."""

    @property
    def port(self) -> int:
        port = urlsplit(self.url).port
        assert port
        return port

    def family(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def sockets(self) -> list[tuple[str, str, int]]:
        """Return (command, address, port) of each socket on which the family listens. Ray replaces
        HAProxy when the replicas change. The list is read again if that happened meanwhile, which
        is seen because the service's own port is missing.
        """
        for _ in range(100):
            # The command comes second: a process that listens runs its last program already.
            places = [(each, place) for each in self.family() for place in listening(each)]
            found = [(text, *place) for each, place in places if (text := command_of(each))]
            if self.port in {port for _, _, port in found}:
                return found
            time.sleep(0.2)
        raise AssertionError(f"nothing listens on port {self.port}: {found}")

    def replicas(self) -> list[psutil.Process]:
        return [each for each in self.family() if "ServeReplica:genray" in command_of(each)]

    def end(self, signal_number: int, family: list[psutil.Process]) -> int:
        """Send a signal and return the exit status. Fails if a process of the family is left."""
        self.process.send_signal(signal_number)
        status = self.process.wait(90)
        self.rest.join(10)
        assert self.process.stdout
        self.process.stdout.close()
        _, left = psutil.wait_procs(family, timeout=20)
        assert not left, f"still running: {[command_of(each) for each in left]}"
        return status


def start_process(
    folder: Path, *options: str, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> subprocess.Popen[str]:
    """Start the service without waiting for it."""
    command = [str(Path(sys.executable).with_name("genray")), "serve", str(folder), *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", **(env or {})}
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        cwd=cwd,
    )


def wait_until_ready(process: subprocess.Popen[str], folder: Path) -> Served:
    """Return the service when it answers."""
    said: list[str] = []
    assert process.stdout is not None
    for line in process.stdout:
        said.append(line)
        if line.startswith("Ctrl-C"):
            break
    text = "".join(said)
    page, metrics = re.search(r"page +(http\S+)/\n", text), re.search(r"metrics +(http\S+)", text)
    assert page and metrics, text
    rest = threading.Thread(target=process.stdout.read, daemon=True)
    rest.start()
    return Served(page.group(1), metrics.group(1), folder, process, rest)


def command_of(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:  # the process has just ended
        return ""


def listening(process: psutil.Process) -> list[tuple[str, int]]:
    """Return (address, port) of each socket on which the process listens. The list is empty if the
    process has just ended, as an HAProxy does when a newer one replaces it.
    """
    try:
        return [tuple(link.laddr) for link in process.net_connections() if link.status == "LISTEN"]
    except psutil.NoSuchProcess:
        return []
