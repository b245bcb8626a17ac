"""Double, prioritized and dueling, measured against a vanilla DQN. `python -m
tests.bench.bench_claims`

The papers claim that Q-learning overestimates and double Q-learning less so, that prioritized
replay needs fewer updates, and that double and dueling networks score more. Here vanilla, each
switch alone, and all together learn the same games with the same seeds; nothing else differs. While
a run trains, its greedy policy plays: its score, and its mean max Q beside the discounted return
that followed. The tabular form of the first claim is Example 6.7 of Sutton and Barto.

A finished run is a file of `--out`, and is never run again: after a stop, the same command goes on.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from tests.bench.atari.jobs import Job, result_of, run_jobs
from tests.bench.claims import report, tabular
from tests.bench.claims.variants import TASKS, VARIANTS
from tests.bench.common import BenchError, describe_machine, last_json_line, print_table

HEADER = (
    "variant", "runs", "score", "P(more)", "updates to {target:g}", "P(fewer)",
    "max Q − return", "P(less)",
)  # fmt: skip


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=["catch"])
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--parallel", type=int, default=2, help="runs at a time, one core each")
    parser.add_argument("--out", type=Path, default=Path("build/bench_claims"))
    parser.add_argument("--report-only", action="store_true", help="start no run")
    parser.add_argument("--quick", action="store_true", help="seconds a run: shows that it runs")
    return parser.parse_args()


def make_job(task: str, variant: str, seed: int, quick: bool) -> Job:
    rules = TASKS[task]
    steps, every = (1_500, 500) if quick else (rules.steps, rules.every)
    options = ["--seed", str(seed), "--steps", str(steps), "--every", str(every)]
    argv = ["tests.bench.claims.run", task, variant, *options]
    settings = {"task": task, "variant": variant, "seed": seed, "steps": steps, "every": every}
    return Job(f"{task}-{variant}-{seed}", argv, settings)


def collect(jobs: list[Job], folder: Path) -> tuple[dict[str, Any], set[str]]:
    """Return ({task: {variant: the points of each run}}, the machines) of the finished runs."""
    runs: dict[str, Any] = {}
    machines = set()
    for job in jobs:
        if record := result_of(job, folder):
            machines.add(record["machine"])
            variants = runs.setdefault(job.settings["task"], {})
            variants.setdefault(job.settings["variant"], []).append(record["result"]["points"])
    return runs, machines


def main() -> None:
    arguments = parse()
    seeds, out = arguments.seeds, arguments.out
    if arguments.quick:
        seeds, out = 2, out.with_name(out.name + "_quick")
    jobs = [
        make_job(task, variant, seed, arguments.quick)
        for task in arguments.tasks
        for seed in range(seeds)
        for variant in arguments.variants
    ]
    failures: list[str] = []
    try:
        if not arguments.report_only:
            failures = run_jobs(
                jobs,
                out / "runs",
                machine=describe_machine(),
                parallel=arguments.parallel,
                timeout_s=3 * 3_600.0,
            )
        runs, machines = collect(jobs, out / "runs")
    except BenchError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(f"stopped; the same command goes on from the runs in {out / 'runs'}")
    print("runs measured on: " + "; ".join(sorted(machines)))
    figures: dict[str, Any] = {}
    for task, variants in runs.items():
        header = [title.format(target=TASKS[task].target) for title in HEADER]
        about = f"{task}: means (ranges) of the runs, medians of updates; P: against vanilla"
        print_table(about, header, report.rows(task, variants))
        figures[task] = {
            variant: report.figures_of(task, chosen) for variant, chosen in variants.items()
        }
    single, double = (tabular.play(2_000, 300, double=chosen) for chosen in (False, True))
    figures["tabular"] = {
        name: {"largest_value": float(learned.value_B.max()), "left": float(learned.left.mean())}
        for name, learned in (("q_learning", single), ("double", double))
    }
    report.draw_tabular(out / "tabular.png", single, double)
    if runs:
        report.draw_values(out / "values.png", runs)
        report.draw_scores(out / "scores.png", runs)
    print(f"pictures: {out}")
    for failure in failures:
        print(f"failed: {failure}")
    last_json_line({"failed": len(failures), **figures})
    if failures:
        sys.exit(1)


if __name__ == "__main__":
    main()
