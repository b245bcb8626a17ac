"""A run under random faults, one every two minutes: does it end on its own, having learnt, with
memory flat?

    python -m tests.cluster.soak [--minutes 60] [--every-s 120] [--seed 0]

Catch at a pace (slow_catch.py) on six hosts; a learner, replay or collector host loses its power
or its cable and gets it back 30 s later. Prints a line a fault and, last, one JSON object; exit
status 1 when a goal is missed.
"""

import argparse
import dataclasses
import json
import random
import sys
import tempfile
import time
from pathlib import Path

from tests.cluster.accounts import account, read_ledger
from tests.cluster.driver import Case, Run
from tests.cluster.faults import HOSTS, ROLES, SPARE
from tests.cluster.hosts import Hosts, missing
from tests.cluster.ray_cluster import RayCluster, shared_folder

BACK_S = 30.0
# what the paced run makes at least, faults included: its budget of steps is that of its minutes
STEPS_PER_S = 100
FLAT = 1.5  # memory at the end, of that after the first tenth: replay is full by then


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.cluster.soak", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--every-s", type=float, default=120.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if reason := missing():
        print(f"error: {reason}", file=sys.stderr)
        return 2
    chance = random.Random(options.seed)
    steps = int(options.minutes * 60 * STEPS_PER_S)
    case = Case(role="none", fault="none", seed=options.seed)
    with tempfile.TemporaryDirectory(prefix="genray-soak-") as scratch, Hosts(HOSTS) as hosts:
        cluster = RayCluster(hosts, ROLES)
        cluster.start()
        run = Run(cluster, shared_folder(Path(scratch)), case)
        try:
            run.start(
                "--preset",
                "catch",
                "--out",
                str(run.out),
                "--steps",
                str(steps),
                "--evaluate-episodes",
                "128",
            )
            if run.await_line(lambda line: line.get("updates", 0) > 100, 180) is None:
                print(f"error: the run does not begin: {run.said()[-1000:]}", file=sys.stderr)
                return 1
            start, memory, faults = time.monotonic(), [], []
            while not run.ended and time.monotonic() - start < options.minutes * 60 * 3:
                run.wait_until_ended(options.every_s - BACK_S)
                if run.ended:
                    break
                faults.append(_lose_one(cluster, chance, run))
                memory.append(sum(host.memory_mib() for host in hosts if host.is_on))
                print(
                    f"{time.monotonic() - start:5.0f} s: {faults[-1]}; {memory[-1]:.0f} MiB",
                    flush=True,
                )
            ended = run.ended and run.status == 0
            accounts = account(read_ledger(run.ledger))
            score = max((line.get("evaluation_mean", -1.0) for _, line in run.lines), default=-1.0)
        finally:
            run.close()
    early = memory[len(memory) // 10] if memory else 0.0
    flat = not memory or memory[-1] <= FLAT * early
    clean = not (accounts.lost_acknowledged or accounts.doubled or accounts.zombie_chunks)
    print(
        json.dumps(
            {
                "minutes": options.minutes,
                "faults": len(faults),
                "steps": steps,
                "ended_on_its_own": ended,
                "catch_score": score,
                "memory_mib": [round(value) for value in memory],
                "memory_flat": flat,
                **dataclasses.asdict(accounts),
            }
        )
    )
    return 0 if ended and flat and clean and score >= 0.9 else 1


def _lose_one(cluster: RayCluster, chance: random.Random, run: Run) -> str:
    """Break one of the workers, repair it, and start its Ray again, as the autoscaler of `ray up`
    would.
    """
    index, fault = chance.choice(sorted(ROLES)), chance.choice(("power-off", "cut"))
    host = cluster.hosts[index]
    if fault == "cut":
        host.cut()
        run.wait_until_ended(BACK_S)
        host.heal()
        cluster.stop_ray(index)
    else:
        host.power_off()
        run.wait_until_ended(BACK_S)
        host.boot()
    cluster.start_workers(index)
    return (
        f"{fault} of host {index}, which offers "
        f"{', '.join(ROLES[index])}{' (the spare)' * (index == SPARE)}"
    )


if __name__ == "__main__":
    sys.exit(main())
