"""What Ray Tune costs: a sweep beside two plain processes that go through the same trials.
`python -m tests.bench.bench_sweep`

24 trainings of a digits VAE, about 30 s of one thread each, with 24 learning rates; two at once.
The bare runner is a pool of two processes that train and look at the validation split as often,
but keep no checkpoints, no rows, no TensorBoard.

`wall_over_bare` is the sweep's wall time, from its call to its return, Ray's start included,
over half the sum of the bare trials' own wall times; the goal is 1.15. Wall times mean something
only where nothing else runs; `cpu_over_bare`, CPU seconds of all processes of the sweep over
those of the bare trainings, is steadier beside other work.
"""

import argparse
import multiprocessing
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.bench.common import (
    THREAD_VARIABLES,
    describe_machine,
    last_json_line,
    print_table,
    watched_tree_cpu,
)

AT_ONCE = 2
GOAL = 1.15


def config_of(trials: int, steps: int) -> Any:
    from tuning.plan import SweepConfig

    return SweepConfig(
        study="optimizers",
        arms=("adam",),
        search="random",
        trials=trials,
        seeds=0,
        steps=steps,
        looks=10,
        parallel=AT_ONCE,
    )


def train_bare(work: tuple[str, Any]) -> tuple[float, float, float]:
    """(wall seconds, CPU seconds, best validation loss) of one training in this process."""
    import torch

    from tuning.training import open_training

    torch.set_num_threads(1)
    family, config = work
    wall, cpu = time.monotonic(), time.process_time()
    training = open_training(family, config)
    best = min(look.values["validation_loss"] for look in training.evaluations() if look.counts)
    return time.monotonic() - wall, time.process_time() - cpu, best


def import_first() -> None:
    """What a trial's process does before its first trial, in Ray too, where it is part of the
    sweep's time.
    """
    import tuning.training  # noqa: F401


def run_bare(configs: list[Any]) -> tuple[list[tuple[float, float, float]], float]:
    """(each trial's figures, wall seconds of all)."""
    for name in THREAD_VARIABLES:
        os.environ[name] = "1"
    with multiprocessing.get_context("spawn").Pool(AT_ONCE, import_first) as pool:
        pool.map(abs, range(AT_ONCE))
        start = time.monotonic()
        found = pool.map(train_bare, [("vae", config) for config in configs], chunksize=1)
        return found, time.monotonic() - start


def steps_of(seconds: float) -> int:
    """Steps that fill about so many seconds of one thread here and now."""
    import torch

    from tuning.sweep import prepare
    from tuning.training import open_training

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    training = open_training("vae", prepare(config_of(1, 300), Path("unused")).base)
    start = time.process_time()
    for _ in training.evaluations():
        pass
    torch.set_num_threads(threads)
    return max(20, round(300 * seconds / (time.process_time() - start)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--seconds", type=float, default=30.0, help="of one thread, each trial")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="6 trials of 3 s: shows that it runs, not what it costs",
    )
    options = parser.parse_args()
    trials, seconds = (6, 3.0) if options.quick else (options.trials, options.seconds)

    from genray.distributed.session import ray_session
    from tuning.settings import changed
    from tuning.sweep import prepare, run_sweep
    from tuning.training import with_seed
    from tuning.trials import read_trials

    config = config_of(trials, steps_of(seconds))
    plan = prepare(config, Path("unused"))
    fixed = plan.study.arms[0].fixed
    configs = [
        with_seed("vae", changed(plan.base, {**fixed, **point}), 0) for point in plan.points["adam"]
    ]
    bare, bare_wall = run_bare(configs)
    with tempfile.TemporaryDirectory() as folder:
        start = time.monotonic()
        with watched_tree_cpu() as spent, ray_session():
            sweep = run_sweep(config, Path(folder) / "sweep")
            cpu = spent()
        wall = time.monotonic() - start
        rows = read_trials(sweep)
    # A comparison of costs is one only where the same was done.
    same = sum(row.best == best for row, (_, _, best) in zip(rows, bare, strict=True))
    ideal, bare_cpu = sum(each for each, _, _ in bare) / AT_ONCE, sum(each for _, each, _ in bare)
    print_table(
        f"{trials} trials of {config.steps} steps, {AT_ONCE} at once ({describe_machine()})",
        ("", "wall s", "CPU s", "same best loss"),
        [
            ("half the sum of the bare trials", f"{ideal:.1f}", f"{bare_cpu:.1f}", ""),
            ("bare, two processes", f"{bare_wall:.1f}", "", ""),
            ("sweep on Ray Tune", f"{wall:.1f}", f"{cpu:.1f}", f"{same} of {trials}"),
            ("of which in the trials", "", f"{sum(row.seconds for row in rows):.1f}", ""),
        ],
    )
    print(f"wall_over_bare {wall / ideal:.3f} (goal ≤ {GOAL})")
    last_json_line(
        {
            "wall_over_bare": wall / ideal,
            "cpu_over_bare": cpu / bare_cpu,
            "sweep_wall_s": wall,
            "bare_sum_s": ideal * AT_ONCE,
            "trials": trials,
            "same": same,
        }
    )


if __name__ == "__main__":
    main()
