"""The presets of Gymnasium's small environments, each seed in one process with one thread. `python
-m tests.bench.bench_gym`

Each run makes the preset's steps, then plays 100 whole episodes greedily. CPU seconds are those of
training alone; wall seconds are, too, and mean little on a machine with other work. CleanRL's
published DQN: CartPole 495.1 and Acrobot −95.6 (https://docs.cleanrl.dev/rl-algorithms/dqn/), after
500,000 steps.
"""

import argparse
import statistics
import time
from dataclasses import replace
from typing import Any

import torch

from genray.rl import presets
from genray.rl.agent import LocalAgent
from genray.rl.evaluate import evaluate, random_play
from tests.bench.common import describe_machine, last_json_line, print_table

PUBLISHED = {"cartpole": 495.1, "acrobot": -95.6}


def train_and_score(preset: str, seed: int, steps: int | None) -> dict[str, Any]:
    """Train to the end of the preset, or to `steps`; return the score and what it cost."""
    config = presets.PRESETS[preset]()
    config = replace(config, run=replace(config.run, seed=seed, device="cpu"))
    agent = LocalAgent(config)
    wall, cpu = time.monotonic(), time.process_time()
    progress = agent.advance(steps or config.run.steps, seconds=36_000.0)
    wall, cpu = time.monotonic() - wall, time.process_time() - cpu
    result = evaluate(agent.network(), config.env, episodes=100, epsilon=0.0, seed=10_000 + seed)
    agent.close()
    return {
        "score": result.mean, "lowest": min(result.scores), "steps": progress.steps,
        "updates": progress.updates, "wall_s": wall, "cpu_s": cpu,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--presets", nargs="+", default=["cartpole", "acrobot"])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--steps", type=int, help="agent steps; the preset's unless given")
    parser.add_argument("--quick", action="store_true", help="CartPole, one seed, 3,000 steps")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.presets, arguments.seeds, arguments.steps = ["cartpole"], 1, 3_000
    torch.set_num_threads(1)
    rows: list[tuple[Any, ...]] = []
    figures: dict[str, Any] = {}
    for preset in arguments.presets:
        runs = []
        for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
            runs.append(run := train_and_score(preset, seed, arguments.steps))
            shown = [f"{run[name]:,.0f}" for name in ("steps", "updates", "cpu_s", "wall_s")]
            rows.append((preset, seed, *shown, f"{run['score']:.1f}", f"{run['lowest']:.0f}"))
            print(*rows[-1], flush=True)
        scores = [run["score"] for run in runs]
        lower = random_play(presets.PRESETS[preset]().env, episodes=100).mean
        rows.append((preset, "mean", "", "", "", "", f"{statistics.fmean(scores):.1f}", ""))
        rows.append((preset, "random play", "", "", "", "", f"{lower:.1f}", ""))
        figures[preset] = {
            "scores": scores,
            "random": lower,
            "published": PUBLISHED.get(preset),
            "cpu_s": statistics.fmean(run["cpu_s"] for run in runs),
        }
    print_table(
        f"Gymnasium's small environments, one process; {describe_machine()}",
        ("preset", "seed", "agent steps", "updates", "CPU s", "wall s", "score", "lowest of 100"),
        rows,
    )
    last_json_line(figures)


if __name__ == "__main__":
    main()
