"""Load from wrk, and the CPU time and memory of a service's processes by their roles."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.bench.common import REPOSITORY, THREAD_VARIABLES, BenchError

SCRIPT = Path(__file__).with_name("load.lua")
ROLES = ("replica", "haproxy", "proxy", "controller", "ray")
"""Who spends the time: our code; HAProxy; Serve's proxy actor (with HAProxy it only looks after
it); Serve's controller; the rest of Ray.
"""


@dataclass(frozen=True)
class Load:
    """What wrk saw, and what the service spent on it."""

    requests: int
    seconds: float
    good: int
    """Answers with status 200; all of them, where wrk did not count by status."""
    busy: int
    """429 with Retry-After."""
    unclear: int
    """Any other answer, and connections that broke."""
    p50_ms: float
    p99_ms: float
    cpu_s: dict[str, float]
    """By role, system time included."""

    @property
    def rate(self) -> float:
        return self.good / self.seconds

    def cpu_ms(self, *roles: str) -> float:
        """CPU milliseconds a good answer."""
        return 1e3 * sum(self.cpu_s[role] for role in roles) / max(1, self.good)


class Serving:
    """A service in a process of its own, with all that it started."""

    def __init__(self, process: "subprocess.Popen[str]", url: str, key: str):
        self.process, self.url, self.key = process, url, key

    def _family(self) -> list[psutil.Process]:
        top = psutil.Process(self.process.pid)
        return [top, *top.children(recursive=True)]

    def cpu_s(self) -> dict[str, float]:
        """CPU seconds so far, by role."""
        spent = dict.fromkeys(ROLES, 0.0)
        for each in self._family():
            try:
                times = each.cpu_times()
                spent[_role(each)] += times.user + times.system
            except psutil.Error:  # ended meanwhile
                continue
        return spent

    def memory_mb(self) -> float:
        """Resident memory of replicas, HAProxy and Serve's two actors."""
        found = [each.memory_info().rss for each in self._family() if _role(each) != "ray"]
        return sum(found) / 2**20

    def load(
        self,
        path: str,
        *,
        connections: int,
        seconds: float,
        model: str = "-",
        pause_ms: float = 0,
        count: bool = False,
    ) -> Load:
        """Let wrk ask for `seconds`. Raises BenchError where anything but 200 comes and it was
        not to count.
        """
        command = [
            "wrk",
            "-t",
            "1",
            "-c",
            str(connections),
            "-d",
            f"{seconds:g}s",
            "--timeout",
            "30s",
            "-s",
            str(SCRIPT),
            self.url,
            "--",
            "GET" if model == "-" else "POST",
            path,
            self.key or "none",
            model,
            f"{pause_ms:.3f}",
            "1" if count else "0",
        ]
        before = self.cpu_s()
        ran = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60)
        after = self.cpu_s()
        try:
            saw = json.loads(ran.stdout.splitlines()[-1])
        except (IndexError, ValueError):
            raise BenchError(f"wrk said: {ran.stdout[-500:]} {ran.stderr[-500:]}") from None
        wrong = saw["broken"] + (saw["unclear"] if count else saw["not_2xx"])
        if wrong and not count:
            raise BenchError(f"{path}: {wrong} of {saw['requests']} requests were refused or broke")
        return Load(
            saw["requests"],
            saw["seconds"],
            saw["good"] if count else saw["requests"],
            saw["busy"],
            wrong,
            saw["p50_ms"],
            saw["p99_ms"],
            {role: after[role] - before[role] for role in ROLES},
        )


def _role(process: psutil.Process) -> str:
    try:
        name, title = process.name(), " ".join(process.cmdline())
    except psutil.Error:
        return "ray"
    if name == "haproxy":
        return "haproxy"
    for mark, role in (("ServeReplica:", "replica"), ("ServeController", "controller")):
        if mark in title:
            return role
    return "proxy" if "ProxyActor" in title or "HAProxyManager" in title else "ray"


@contextmanager
def serving(command: list[str], ready: str, key: str = "") -> Iterator[Serving]:
    """Run `command` until the block ends. `ready`: a pattern of the line that says it is up,
    whose group 1 is the address.
    """
    environment = os.environ | dict.fromkeys(THREAD_VARIABLES, "1") | {"PYTHONUNBUFFERED": "1"}
    environment |= {"GENRAY_API_KEY": key} if key else {}
    process = subprocess.Popen(
        command,
        cwd=REPOSITORY,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    said: list[str] = []
    try:
        url = ""
        for line in process.stdout:
            said.append(line)
            if found := re.search(ready, line):
                url = found.group(1)
                break
        if not url:
            raise BenchError(f"{' '.join(command)} did not start:\n{''.join(said)[-2000:]}")
        # or it would wait for a full pipe
        rest = threading.Thread(target=process.stdout.read, daemon=True)
        rest.start()
        yield Serving(process, url, key)
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def need_wrk() -> None:
    """End the program with one line where wrk is missing."""
    if shutil.which("wrk") is None:
        sys.exit("error: wrk, which makes the load, is not installed: make system-deps, as root")


def genray_command() -> str:
    return str(Path(sys.executable).with_name("genray"))
