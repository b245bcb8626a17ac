"""Runs one experiment: starts a run on six hosts, breaks one of them, and observes the run.

host 0     the head and the driver
host 1     the learner
host 2, 3  replay, one shard each
host 4     both collectors
host 5     joins later and offers every role
"""

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.cluster.accounts import Accounts, account, first_stored, read_ledger
from tests.cluster.driver import SNAPSHOT_S, Case, Run
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
# Seconds until a cut cable is connected again: the loss has been noticed by then.
HEAL_S = {"ours": 20.0, "default": 80.0}
WINDOW_S = {"ours": 60.0, "default": 130.0}  # for the run to recover
START_S = 300.0  # for the run to begin: a process loads PyTorch in 5 s, on busy cores in minutes
AFTER_S = 8.0  # after the recovery, to observe the host that returned
BATCH = 32  # batch size of the preset: updates = samples drawn / BATCH


@dataclass(kw_only=True)
class Outcome:
    """Observations of an experiment. Times are seconds from the fault; None: not in the window."""

    case: Case
    detected_s: float | None = None
    acting_s: float | None = None
    learning_s: float | None = None
    accounts: Accounts | None = None
    published: int = 0
    """The last update that was reported before the fault."""
    restored: int | None = None
    """The update from which a restored learner continued."""
    since_checkpoint: int | None = None
    """Transitions stored between the checkpoint of a resumed run and the loss of its head. All of
    them are lost.
    """
    refused_writes: int = 0
    events: list[str] = field(default_factory=list)

    def misses(self) -> list[str]:
        """List the goals that this outcome misses. With Ray's default settings, the goals for times
        do not apply.
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
            # Only a person or a script that submits the job again replaces the head.
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


def experiment(hosts: Hosts, case: Case, folder: Path) -> Outcome:
    """Start the cluster and the run, break a host, observe, and stop all hosts."""
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
        # The spare host joins late, so that no actor of the run is on it.
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
    """Return the seconds until every collector that the fault affects had a chunk stored again."""
    if case.role == "collector":
        times = [first_stored(ledger, collector, start, lives[collector]) for collector in lives]
    else:
        after = start
        # Only chunks in the restarted shard count, because the other shard never stopped.
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
    """Return (seconds until the next update, the update from which a restored learner began)."""
    after = [(when, line) for when, line in lines if when > start + 0.5 and "updates" in line]
    if case.role != "learner":
        return next(
            (when - start for when, line in after if line["updates"] > published), None
        ), None
    fallen = [index for index in range(1, len(after)) if after[index][1].get("lost_updates", 0) > 0]
    # A snapshot may have the last update. No update is lost then, and only `restarts` changes.
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
    """Lose the head, which ends the run. Then start the cluster again, as `ray up` does, and the
    run with --resume.
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
                // BATCH
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
