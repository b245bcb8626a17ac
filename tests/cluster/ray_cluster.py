"""Starts a Ray cluster on hosts with roles, as `ray up` does, for tests that lose its machines."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from tests.cluster.hosts import Host, Hosts
from tests.cluster.lint import HEALTH

PORT = 6379
STORE_BYTES = 150 * 2**20
TRIES = 3
SETTINGS: dict[str, dict[str, str]] = {"ours": HEALTH, "default": {}}
TOKEN = "a-token-for-tests-of-clusters-0123456789"


class RayCluster:
    """Controls a cluster. hosts[0] is the head; `roles[i]` is what host i offers, e.g.
    {"genray_replay": 1}. Hosts without a row stay idle.
    """

    def __init__(
        self,
        hosts: Hosts,
        roles: Mapping[int, Mapping[str, int]],
        settings: str = "ours",
        dashboard: bool = False,
    ):
        self.hosts, self.roles, self.dashboard = hosts, roles, dashboard
        self.head: Host = hosts[0]
        self.address = f"{self.head.address}:{PORT}"
        self.env = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN, **SETTINGS[settings]}

    def start(self, *but: int) -> None:
        """Start the head, then every worker except `but`; return when they have joined."""
        self.start_head()
        self.start_workers(*(index for index in self.roles if index not in but))

    def start_head(self) -> None:
        words = [
            "--head",
            f"--port={PORT}",
            f"--node-ip-address={self.head.address}",
            "--num-cpus=0",
        ]
        self._ray_start(self.head, *words, f"--include-dashboard={str(self.dashboard).lower()}")

    def start_workers(self, *indices: int) -> None:
        """Start workers one after the other: Ray gives each 30 s, which is too short for several at
        once on two busy cores.
        """
        for index in indices:
            words = [
                f"--address={self.address}",
                f"--resources={json.dumps(self.roles[index])}",
                "--num-cpus=4",
            ]
            self._ray_start(self.hosts[index], *words)

    def _ray_start(self, host: Host, *words: str) -> None:
        line = ["ray", "start", *words, f"--object-store-memory={STORE_BYTES}"]
        for _ in range(TRIES):
            done = host.run(*line, env=self.env, timeout=180, check=False)
            if done.returncode == 0:
                return
            host.run("ray", "stop", "--force", env=self.env, check=False)
        raise RuntimeError(f"{host.name}: {' '.join(line)}:\n{(done.stdout + done.stderr)[-3000:]}")

    def stop_ray(self, *indices: int) -> None:
        """Stop Ray on these hosts alone. A host sees only its own processes."""
        for index in indices:
            self.hosts[index].run("ray", "stop", "--force", env=self.env, check=False)

    def genray(
        self, *words: str, env: Mapping[str, str] | None = None, timeout: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """Run a command of genray on the head and wait, for any status."""
        line = [sys.executable, "-m", "genray", *words]
        return self.head.run(*line, env=self.env | dict(env or {}), timeout=timeout, check=False)


class Watch:
    """Records which machines Ray's head believed to be alive, in a process on the head."""

    def __init__(self, cluster: RayCluster, log: Path):
        self._log = log
        script = str(Path(__file__).with_name("watch_nodes.py"))
        words = [sys.executable, script, cluster.address]
        self._process = cluster.head.start(*words, log=log, env=cluster.env)

    def lines(self) -> list[tuple[float, list[str]]]:
        """Return (seconds since 1970, addresses of the machines that are up), one entry for each
        change.
        """
        found = []
        for line in self._log.read_text().splitlines() if self._log.exists() else []:
            if line.startswith("{"):
                value = json.loads(line)
                found.append((value["time"], value["up"]))
        return found

    def await_up(self, *addresses: str, timeout_s: float = 60) -> None:
        stop = time.monotonic() + timeout_s
        while not (lines := self.lines()) or not set(addresses) <= set(lines[-1][1]):
            if time.monotonic() > stop or self._process.poll() is not None:
                raise RuntimeError(
                    f"{addresses} did not join: {lines}\n{self._log.read_text()[-2000:]}"
                )
            time.sleep(0.1)

    def seconds_to_miss(self, address: str, since: float) -> float | None:
        """Return the seconds from `since` until the head believed this machine to be dead."""
        return next(
            (when - since for when, up in self.lines() if when > since and address not in up), None
        )

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()


def shared_folder(path: Path) -> Path:
    """Return a directory that every host sees, like a mount of a file server."""
    path.mkdir(parents=True, exist_ok=True)
    os.chmod(path, 0o777)
    return path
