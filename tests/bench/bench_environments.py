"""genray's presets of Gymnasium's environments, beside Stable-Baselines3's and RLlib's DQN at equal
CPU time. `python -m tests.bench.bench_environments`

CartPole: 60 CPU seconds of training, Acrobot: 120. genray's presets end earlier, at their number of
steps. The rivals have the options that their own projects publish for these environments, and use
all the time. Stable-Baselines3 is also scored at the number of steps of RL Zoo. Each policy then
plays 100 whole episodes greedily, outside the clock.

The other tasks have no rivals here: LunarLander, two environments of MiniGrid, and MinAtar's
Breakout (`--tasks`). A finished run is a file of `--out`, and is never run again: after a stop, the
same command goes on.
"""

import argparse
import math
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from genray.rl.evaluate import random_play
from tests.bench.atari.jobs import Job, result_of, run_jobs
from tests.bench.common import BenchError, describe_machine, last_json_line, print_table
from tests.bench.environments.genray_dqn import configure
from tests.bench.environments.protocol import TASKS
from tests.bench.environments.run import SYSTEMS

TITLES = {"genray": "genray", "sb3": "Stable-Baselines3", "rllib": "RLlib"}
MOMENTS = {"schedule": ", at RL Zoo's steps", "end": "", "best": ", best of its evaluations"}
QUICK_CPU_S = 5.0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=["cartpole", "acrobot"])
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rllib-seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--parallel", type=int, default=1, help="runs at a time, one core each")
    parser.add_argument("--out", type=Path, default=Path("build/bench_environments"))
    parser.add_argument("--report-only", action="store_true", help="start no run")
    parser.add_argument("--quick", action="store_true", help="one seed, 5 CPU seconds a run")
    return parser.parse_args()


def make_jobs(arguments: argparse.Namespace) -> list[Job]:
    """Return all runs. genray comes first, so that a table that was stopped has its rows."""
    jobs = []
    for system in arguments.systems:
        for task in arguments.tasks:
            if system != "genray" and not TASKS[task].env_id:
                continue
            seeds = min(arguments.seeds, arguments.rllib_seeds if system == "rllib" else math.inf)
            for seed in range(arguments.first_seed, arguments.first_seed + int(seeds)):
                jobs.append(make_job(system, task, seed, arguments.quick))
    return jobs


def make_job(system: str, task: str, seed: int, quick: bool) -> Job:
    settings = {"system": system, "task": task, "seed": seed}
    argv = ["tests.bench.environments.run", system, task, "--seed", str(seed)]
    if quick:
        argv += ["--cpu-s", str(QUICK_CPU_S), "--episodes", "10"]
    else:
        settings["cpu_s"] = str(TASKS[task].cpu_s)
    return Job(f"{task}-{system}-{seed}", argv, settings)


def rows_of(task: str, runs: dict[str, list[dict[str, Any]]]) -> list[Sequence[str]]:
    """Return the rows of a task's table. `runs`: {system: the moments of each run}."""
    goal, rows = TASKS[task].goal, []
    for system, records in runs.items():
        for moment, title in MOMENTS.items():
            found = [record[moment] for record in records if moment in record]
            if not found:
                continue
            scores = [one["score"] for one in found]
            reached = "" if goal is None else f"{sum(s >= goal for s in scores)} of {len(scores)}"
            means = [statistics.fmean(one[key] for one in found) for key in ("steps", "updates")]
            rows.append((
                TITLES[system] + title,
                *(f"{mean:,.0f}" for mean in means),
                f"{statistics.fmean(one['cpu_s'] for one in found):.0f}",
                f"{statistics.fmean(scores):.4g}",
                f"{min(scores):.4g}",
                reached,
                ", ".join(f"{score:.4g}" for score in scores),
            ))  # fmt: skip
    return rows


def main() -> None:
    arguments = parse()
    out = arguments.out
    if arguments.quick:
        arguments.seeds, out = 1, out.with_name(out.name + "_quick")
    jobs, failures = make_jobs(arguments), []
    try:
        if not arguments.report_only:
            failures = run_jobs(
                jobs,
                out,
                machine=describe_machine(),
                parallel=arguments.parallel,
                timeout_s=3 * 3_600.0,
            )
        runs: dict[str, dict[str, list[dict[str, Any]]]] = {}
        for job in jobs:
            if record := result_of(job, out):
                systems = runs.setdefault(job.settings["task"], {})
                systems.setdefault(job.settings["system"], []).append(record["result"])
    except BenchError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(f"stopped; the same command goes on from the runs in {out}")
    figures: dict[str, Any] = {}
    for task, systems in runs.items():
        random = random_play(configure(TASKS[task], 0).env, episodes=100).mean
        title = f"{task}, mean of 100 greedy episodes; random play: {random:.4g}"
        if TASKS[task].published:
            title += f"; published: {TASKS[task].published}"
        header = ("system", "agent steps", "updates", "CPU s", "mean", "lowest seed",
                  f"seeds ≥ {TASKS[task].goal:g}" if TASKS[task].goal is not None else "",
                  "each seed")  # fmt: skip
        print_table(f"{title}\n{describe_machine()}", header, rows_of(task, systems))
        figures[task] = {"random": random} | systems
    for failure in failures:
        print(f"failed: {failure}")
    last_json_line({"failed": len(failures), **figures})
    if failures:
        sys.exit(1)


if __name__ == "__main__":
    main()
