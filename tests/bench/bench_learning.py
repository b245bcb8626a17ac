"""Five minutes of Road Runner on this machine, beside Stable-Baselines3. `python -m
tests.bench.bench_learning`

genray through Ray with a preset; SB3 with n_steps=5, the same network widths and the same
protocol, at its better of 1 and 2 threads. Both train for the same wall time and then play 30
whole games from no-op starts (ε 0.001, no sticky actions). Holding one direction scores about
975 in this game, so the best constant action is measured in the same run.
"""

import argparse
import math
import statistics
import time
from dataclasses import replace
from typing import Any

from genray.distributed.coordinator import Coordinator, ray_session
from genray.rl import presets
from genray.rl.evaluate import best_constant_action, evaluate
from tests.bench.common import describe_machine, last_json_line, print_table, run_measured

ENDLESS = 10**9


def train_and_score(
    preset: str, seconds: float, seed: int, episodes: int, steps: int = ENDLESS
) -> dict[str, Any]:
    """Train genray for `seconds` of wall time, from the first agent step on, or for `steps` agent
    steps, whichever ends first; then evaluate.
    """
    config = presets.PRESETS[preset]()
    config = replace(config, run=replace(config.run, seed=seed, device="cpu"))
    with ray_session():
        engine = Coordinator(config)
        start, done = time.monotonic(), False
        while not done and (left := start + seconds - time.monotonic()) > 0:
            progress = engine.advance(steps, min(left, 1.0))
            done = progress.steps >= steps
        network = engine.network()
        engine.close()
    result = evaluate(network, config.env, episodes=episodes, epsilon=0.001, seed=10_000 + seed)
    return {"score": result.mean, "steps": progress.steps, "updates": progress.updates}


def row(system: str, seed: int, threads: int | str, run: dict[str, Any]) -> tuple[Any, ...]:
    """A line of the table, shown as soon as it is known."""
    line = (system, seed, threads, *(f"{run[name]:,.0f}" for name in ("steps", "updates", "score")))
    print(*line, flush=True)
    return line


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--preset", choices=("road_runner", "road_runner_quick"), default="road_runner"
    )
    parser.add_argument("--seconds", type=float, default=300.0, help="training time of each run")
    parser.add_argument(
        "--steps", type=int, help="agent steps of each run of genray, instead of --seconds"
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--rival-seeds", type=int, help="runs of Stable-Baselines3; as many as --seeds unless given"
    )
    parser.add_argument(
        "--rival-threads", type=int, nargs="+", default=[1, 2], help="tried with the first seed"
    )
    parser.add_argument("--episodes", type=int, default=30)
    parser.add_argument(
        "--quick",
        action="store_true",
        help="60 s, one seed: shows that it runs, not what it learns",
    )
    arguments = parser.parse_args()
    seconds, seeds = (60.0, 1) if arguments.quick else (arguments.seconds, arguments.seeds)
    rival_seeds = seeds if arguments.rival_seeds is None else arguments.rival_seeds
    machine = describe_machine()
    rows: list[tuple[Any, ...]] = []
    ours: list[dict[str, Any]] = []
    rival: dict[int, list[dict[str, Any]]] = {threads: [] for threads in arguments.rival_threads}
    for seed in range(seeds):
        ours.append(
            train_and_score(
                arguments.preset,
                math.inf if arguments.steps else seconds,
                seed,
                arguments.episodes,
                arguments.steps or ENDLESS,
            )
        )
        rows.append(row(f"genray through Ray, {arguments.preset}", seed, "–", ours[-1]))
        # Which number of threads suits SB3 better is settled with the first seed.
        best = max(rival, key=lambda threads: rival[threads][0]["score"] if rival[threads] else 0.0)
        for threads in (rival if seed == 0 else [best]) if seed < rival_seeds else []:
            argv = [
                "tests.bench.rivals.sb3",
                "learn",
                "--seconds",
                str(seconds),
                "--seed",
                str(seed),
            ]
            rival[threads].append(run_measured(argv, threads=threads, timeout_s=seconds + 600))
            rows.append(row("Stable-Baselines3", seed, threads, rival[threads][-1]))
    held, constant = best_constant_action(presets.PRESETS[arguments.preset]().env, episodes=10)
    trained = f"{arguments.steps:,} steps" if arguments.steps else f"{seconds:.0f} s"
    print_table(
        f"Road Runner, {trained} of training, mean of {arguments.episodes} games; best "
        f"constant action: {held} "
        f"{constant:,.0f}; {machine}",
        ("system", "seed", "threads", "agent steps", "updates", "score"),
        rows,
    )
    score = statistics.fmean(run["score"] for run in ours)
    rivals = [statistics.fmean(run["score"] for run in runs) for runs in rival.values() if runs]
    last_json_line(
        {
            "score": score,
            "score_constant": constant,
            "score_over_constant": score / constant,
            "score_sb3": max(rivals, default=None),
            "scores": [run["score"] for run in ours],
            "steps": [run["steps"] for run in ours],
        }
    )


if __name__ == "__main__":
    main()
