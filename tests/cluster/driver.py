"""Starts `genray train dqn` on the head of the cluster, and reads its metrics."""

import json
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cluster.ray_cluster import RayCluster

SNAPSHOT_S = 5.0
"""Seconds between two snapshots of the learner."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One experiment: the host that is lost, the fault, and the settings."""

    role: str
    """collector, replay, learner, head; none: no fault."""
    fault: str
    """power-off, cut; none."""
    settings: str = "ours"
    """ours: the settings of cluster.yaml; default: Ray's."""
    seed: int = 0
    recovery: bool = True
    """False: the run uses tests.cluster.no_recovery."""
    recurrent: bool = False
    """True: the agent has an LSTM and learns from sequences."""

    @property
    def name(self) -> str:
        off = "" if self.recovery else ", recovery off"
        lstm = ", recurrent" if self.recurrent else ""
        return f"{self.role} {self.fault}, {self.settings} settings, seed {self.seed}{lstm}{off}"


RECURRENT = (
    *("--stack", "1", "--lstm-units", "16", "--burn-in", "4"),
    *("--sequence-length", "8", "--sequence-overlap", "4", "--batch-size", "4"),
)


class Run:
    """Runs `genray train dqn` on the head, and collects the lines of its metrics."""

    def __init__(self, cluster: RayCluster, folder: Path, case: Case):
        self.cluster, self.folder, self.case = cluster, folder, case
        self.out, self.ledger, self.log = folder / "run", folder / "ledger", folder / "driver.log"
        self.lines: list[tuple[float, dict[str, Any]]] = []
        """(arrival, line of metrics.jsonl)"""
        self._driver: subprocess.Popen | None = None
        self._stop = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def start(self, *words: str) -> None:
        program = ["-m", "genray"] if self.case.recovery else ["-m", "tests.cluster.no_recovery"]
        options = [
            *(
                "--env",
                "tests.cluster.slow_catch:SlowCatch",
                "--steps",
                "1000000",
                "--checkpoint-every",
                "1000",
            ),
            *(
                "--evaluate-every",
                "0",
                "--shards",
                "2",
                "--min-size",
                "300",
                "--seed",
                str(self.case.seed),
            ),
            *("--learner-snapshot-s", str(SNAPSHOT_S), "--evaluate-episodes", "1"),
            *(RECURRENT if self.case.recurrent else ()),
        ]
        # `words` come last, because the last value of an option counts.
        line = [
            sys.executable,
            *program,
            "train",
            "dqn",
            *options,
            "--address",
            self.cluster.address,
            *words,
        ]
        env = self.cluster.env | {"GENRAY_LEDGER": str(self.ledger)}
        self._driver = self.cluster.head.start(*line, log=self.log, env=env)

    @property
    def ended(self) -> bool:
        return self._driver is None or self._driver.poll() is not None

    @property
    def status(self) -> int | None:
        """The driver's exit status, once it has ended."""
        return self._driver.poll() if self._driver else None

    def wait_until_ended(self, seconds: float) -> None:
        """Wait at most `seconds` for the driver to end."""
        stop = time.monotonic() + seconds
        while not self.ended and time.monotonic() < stop:
            time.sleep(0.2)

    def interrupt(self) -> None:
        """Ask the driver to save and end, and wait at most a minute."""
        if not self.ended:
            # nsenter does not forward signals, so the process itself receives the signal.
            self.cluster.head.run("pkill", "-TERM", "-f", "[t]rain dqn", check=False)
            self.wait(60)

    def wait(self, seconds: float) -> None:
        assert self._driver
        try:
            self._driver.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            self._driver.send_signal(signal.SIGKILL)
            self._driver.wait()

    def close(self) -> None:
        self._stop.set()
        self._reader.join()

    def _read(self) -> None:
        file, seen = self.out / "metrics.jsonl", 0
        while not self._stop.wait(0.1):
            if not file.exists():
                continue
            whole = file.read_bytes().rpartition(b"\n")[0].splitlines()
            for text in whole[seen:]:
                self.lines.append((time.time(), json.loads(text)))
            seen = len(whole)

    def await_line(self, holds: Any, timeout_s: float, since: float = 0.0) -> float | None:
        """Return the time at which a line of metrics with `holds(line)` first arrived after
        `since`; None after `timeout_s` seconds, or if the driver has ended.
        """
        stop = time.time() + timeout_s
        while True:
            for when, line in list(self.lines):
                if when > since and holds(line):
                    return when
            if time.time() > stop or self.ended:
                return None
            time.sleep(0.1)

    def said(self) -> str:
        return self.log.read_text() if self.log.exists() else ""
