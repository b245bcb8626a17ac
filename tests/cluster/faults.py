"""One experiment: a run on six hosts, one of them lost, and what the run made of it.

host 0  head and driver        host 2, 3  replay, a shard each
host 1  learner                host 4     collectors, both          host 5  joins later and offers every role
"""  # noqa: E501

import json
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.cluster.accounts import Accounts, account, first_stored, read_ledger
from tests.cluster.hosts import Hosts
from tests.cluster.ray_cluster import RayCluster, Watch, shared_folder

HOSTS = 6
ROLES = {
    1: {"genray_learner": 1},
    2: {"genray_replay": 1},
    3: {"genray_replay": 1},
    4: {"genray_collector": 2},
    5: {"genray_learner": 1, "genray_replay": 1, "genray_collector": 2},
}
SPARE = 5
VICTIM = {"head": 0, "learner": 1, "replay": 2, "collector": 4}
# a cable is put back when the loss has surely been noticed
HEAL_S = {"ours": 20.0, "default": 80.0}
WINDOW_S = {"ours": 60.0, "default": 130.0}  # for the run to be whole again
START_S = 300.0  # for the run to begin: a process loads PyTorch in 5 s, on busy cores in minutes
AFTER_S = 8.0  # and that much longer: what came back has to behave
SNAPSHOT_S = 5.0
BATCH = 32  # of the preset: samples drawn, over this, are updates


@dataclass(frozen=True, kw_only=True)
class Case:
    role: str
    """collector, replay, learner, head; none: no fault."""
    fault: str
    """power-off, cut; none."""
    settings: str = "ours"
    seed: int = 0
    recovery: bool = True

    @property
    def name(self) -> str:
        off = "" if self.recovery else ", recovery off"
        return f"{self.role} {self.fault}, {self.settings} settings, seed {self.seed}{off}"


@dataclass(kw_only=True)
class Outcome:
    """Times are seconds from the fault; None: it did not happen within the window."""

    case: Case
    detected_s: float | None = None
    acting_s: float | None = None
    learning_s: float | None = None
    accounts: Accounts | None = None
    published: int = 0
    """The newest update that was reported before the fault."""
    restored: int | None = None
    """The update from which learning went on, where a learner had to be restored."""
    since_checkpoint: int | None = None
    """Transitions stored between the checkpoint that a resumed run began from and the loss of
    its head: gone, all of them.
    """
    refused_writes: int = 0
    events: list[str] = field(default_factory=list)

    def misses(self) -> list[str]:
        """The goals with our settings that this outcome does not hold; of the defaults, only
        what is never allowed.
        """
        accounts, missed = self.accounts, []
        assert accounts is not None
        goals = (
            ("detected", self.detected_s, 5.0),
            ("acting", self.acting_s, 15.0),
            ("learning", self.learning_s, 30.0),
        )
        for name, seconds, goal in goals:
            if name == "detected" and self.case.role in ("none", "head"):
                continue
            # The head is not replaced by anything but a person, or a script, that submits the job
            # again.
            limit = (
                float("inf")
                if self.case.settings == "default" or self.case.role == "head"
                else goal
            )
            if seconds is None or seconds > limit:
                missed.append(
                    f"{name}: {seconds if seconds is None else round(seconds, 1)} s, goal {limit} s"
                )
        for name in ("lost_acknowledged", "doubled", "zombie_chunks"):
            if value := getattr(accounts, name):
                missed.append(f"{name}: {value}, goal 0")
        if accounts.lost_with_shard and self.case.role not in ("replay", "head"):
            missed.append(
                f"lost_with_shard: {accounts.lost_with_shard}, although no replay host was lost"
            )
        return missed


class Run:
    """`genray train dqn` on the head, and what it says."""

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
        ]
        # `words` last: of two values of an option the later one counts.
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
        """At most so long."""
        stop = time.monotonic() + seconds
        while not self.ended and time.monotonic() < stop:
            time.sleep(0.2)

    def interrupt(self) -> None:
        """Ask it to save and end; it has a minute."""
        if not self.ended:
            # nsenter passes no signals on, so that the process itself is told.
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
        """When a line of metrics for which `holds(line)` first arrived after `since`; None: not
        in time, or it has ended.
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


def experiment(hosts: Hosts, case: Case, folder: Path) -> Outcome:
    """Start everything, break it, watch, stop everything."""
    for host in hosts:
        host.power_off()
        host.boot()
    cluster = RayCluster(hosts, ROLES, case.settings)
    run = Run(cluster, shared_folder(folder), case)
    watch = None
    try:
        cluster.start(SPARE)
        watch = Watch(cluster, folder / "nodes.jsonl")
        run.start("--preset", "catch", "--out", str(run.out))
        began = run.await_line(lambda line: line.get("updates", 0) > 0, START_S)
        assert began, run.said()[-3000:]
        # Late, so that no actor of the run is on it.
        cluster.start_workers(SPARE)
        watch.await_up(hosts[SPARE].address)
        ready = run.await_line(
            lambda line: line["step"] > 1_500 and line.get("updates", 0) > 200, START_S
        )
        assert ready, run.said()[-3000:]
        time.sleep(SNAPSHOT_S)
        outcome = Outcome(case=case, published=run.lines[-1][1]["updates"])
        (_lose_head if case.role == "head" else _lose)(run, watch, outcome)
        time.sleep(AFTER_S)
        run.interrupt()
        time.sleep(0.5)
        outcome.accounts = account(read_ledger(run.ledger))
        outcome.refused_writes = max(
            (line.get("refused_writes", 0) for _, line in run.lines), default=0
        )
        outcome.events = [
            line for line in run.said().splitlines() if "died" in line or "error" in line
        ]
        return outcome
    finally:
        run.close()
        if watch:
            watch.stop()
        for host in hosts:
            host.power_off()


def _lose(run: Run, watch: Watch, outcome: Outcome) -> None:
    case, hosts = outcome.case, run.cluster.hosts
    before = read_ledger(run.ledger)
    lives = {line["collector"]: line["incarnation"] for line in before if line["event"] == "stored"}
    victim = hosts[VICTIM[case.role]] if case.role != "none" else None
    start = time.time()
    if case.fault == "power-off" and victim:
        victim.power_off()
    elif case.fault == "cut" and victim:
        victim.cut()
    deadline = start + WINDOW_S[case.settings]
    heal_at = start + HEAL_S[case.settings] if case.fault == "cut" else None
    while time.time() < deadline and not run.ended:
        if heal_at and victim and time.time() > heal_at:
            victim.heal()
            heal_at = None
        if outcome.detected_s is None and victim:
            outcome.detected_s = watch.seconds_to_miss(victim.address, start)
        outcome.acting_s = _acting(case, read_ledger(run.ledger), start, lives)
        outcome.learning_s, restored = _learning(case, run.lines, start, outcome.published)
        if restored is not None:
            outcome.restored = restored
        whole = outcome.acting_s is not None and outcome.learning_s is not None
        if whole and heal_at is None and (victim is None or outcome.detected_s is not None):
            break
        time.sleep(0.25)
    if heal_at and victim:
        victim.heal()


def _acting(
    case: Case, ledger: list[dict[str, Any]], start: float, lives: dict[int, int]
) -> float | None:
    """Until the last of the collectors that were lost, or whose shard was, had a chunk stored
    again.
    """
    if case.role == "collector":
        times = [first_stored(ledger, collector, start, lives[collector]) for collector in lives]
    else:
        after = start
        # only what the shard's new life stored counts; the other shard has never stopped
        if case.role == "replay":
            old = {
                line["file"]
                for line in ledger
                if line["event"] == "stored" and line["time"] <= start
            }
            new = [
                line["time"]
                for line in ledger
                if line["event"] == "stored" and line["file"] not in old
            ]
            return min(new) - start if new else None
        times = [
            next(
                (
                    line["time"]
                    for line in ledger
                    if line["event"] == "stored"
                    and line["collector"] == collector
                    and line["time"] > after
                ),
                None,
            )
            for collector in lives
        ]
    return None if None in times else max(time for time in times if time is not None) - start


def _learning(
    case: Case, lines: list[tuple[float, dict[str, Any]]], start: float, published: int
) -> tuple[float | None, int | None]:
    """(seconds until updates were made again, the update that a restored learner began from)."""
    after = [(when, line) for when, line in lines if when > start + 0.5 and "updates" in line]
    if case.role != "learner":
        return next(
            (when - start for when, line in after if line["updates"] > published), None
        ), None
    fallen = [index for index in range(1, len(after)) if after[index][1].get("lost_updates", 0) > 0]
    # A snapshot may hold the very last update: then nothing was lost, and restarts alone tell.
    fallen = fallen or [
        index for index in range(1, len(after)) if after[index][1].get("restarts", 0) > 0
    ]
    if not fallen:
        return None, None
    restored = after[fallen[0]][1]["updates"]
    again = next(
        (when - start for when, line in after[fallen[0] :] if line["updates"] > restored), None
    )
    return again, restored


def _lose_head(run: Run, watch: Watch, outcome: Outcome) -> None:
    """The run ends with its head; the cluster is started again, as `ray up` does, and the job
    with --resume.
    """
    case, cluster = outcome.case, run.cluster
    start = time.time()
    if case.fault == "power-off":
        cluster.head.power_off()
        run.wait(5)
        cluster.head.boot()
    else:
        cluster.head.cut()
        time.sleep(HEAL_S["ours"])
        cluster.head.heal()
        cluster.head.run("pkill", "-KILL", "-f", "[t]rain dqn", check=False)
        run.wait(10)
        cluster.stop_ray(0)
    cluster.stop_ray(*ROLES)
    cluster.start()
    before = {line["incarnation"] for line in read_ledger(run.ledger)}
    run.start("--resume", str(run.out))
    deadline = time.time() + 120
    lines_before = len(run.lines)
    while time.time() < deadline and not run.ended:
        if outcome.restored is None and "resuming from" in run.said():
            checkpoint = Path(run.said().partition("resuming from ")[2].split(";")[0])
            outcome.restored = (
                json.loads((checkpoint / "state.json").read_text())
                .get("limiter", {})
                .get("sampled", 0)
                // 32
            )
        stored = [line["time"] for line in read_ledger(run.ledger)
                  if line["event"] == "stored" and line["incarnation"] not in before]  # fmt: skip
        outcome.acting_s = stored[0] - start if stored else None
        updates = [
            (when, line["updates"]) for when, line in run.lines[lines_before:] if "updates" in line
        ]
        outcome.learning_s = next(
            (when - start for when, made in updates if made > updates[0][1]), None
        )
        if outcome.acting_s is not None and outcome.learning_s is not None:
            break
        time.sleep(0.25)
