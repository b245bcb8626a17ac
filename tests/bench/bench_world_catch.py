"""Catch, learned only inside a world model: `python -m tests.bench.bench_world_catch
[--seeds 3] [--first-seed 0] [--frames 20000] [--world-steps 3000] [--steps 40000]
[--folder build/bench_world_catch]`.

Random play of Catch is recorded, a world model learns from the records, an agent (preset `catch`)
learns inside the model, and then plays 200 boards of the real game, greedily. Goal: a mean return
of .95; random play has about −.7. All by commands of genray; what exists in the folder is not made
again.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch

from genray import cli
from genray.rl.env import EnvConfig
from genray.rl.evaluate import evaluate
from genray.rl.policy import load_policy
from tests.bench.common import describe_machine, last_json_line, print_table

CATCH, BOARDS = "genray.rl.catch:Catch", 200
HOLD = 0.6
"""Probability that random play repeats its last action, so that the paddle gets around."""


def genray(words: str, made: Path) -> float:
    """Run a command unless `made` exists; returns its CPU seconds."""
    begin = time.process_time()
    if not made.exists() and cli.main(words.split()) != 0:
        raise SystemExit(f"genray {words}: failed")
    return time.process_time() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--frames", type=int, default=20_000)
    parser.add_argument("--world-steps", type=int, default=3_000)
    parser.add_argument("--steps", type=int, default=40_000)
    parser.add_argument("--folder", type=Path, default=Path("build/bench_world_catch"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(describe_machine())
    rows, means = [], []
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        folder = options.folder / str(seed)
        folder.mkdir(parents=True, exist_ok=True)
        file, world, agent = folder / "catch.safetensors", folder / "world", folder / "agent"
        cpu_s = [
            genray(
                f"data episodes --env {CATCH} --frames {options.frames} --hold {HOLD} "
                f"--seed {seed} --out {file}",
                file,
            ),
            genray(
                f"train world --data episodes:{file} --steps {options.world_steps} "
                f"--validate-every 250 --patience 20 --starts 1000 --seed {seed} --out {world}",
                world / "model",
            ),
            genray(
                f"train dqn --preset catch --local --env dream:{world} "
                f'--env-config {{"first_screens":1}} --steps {options.steps} --device cpu '
                f"--learner-threads 1 --evaluate-episodes 2 --seed {seed} --out {agent}",
                agent / "model",
            ),
        ]
        network, _ = load_policy(agent)
        found = evaluate(network, EnvConfig(env=CATCH), episodes=BOARDS, epsilon=0.0, seed=seed)
        means.append(found.mean)
        rows.append([str(seed), f"{found.mean:.3f}", *(f"{each:.0f}" for each in cpu_s)])
        print(rows[-1], flush=True)
    print_table(
        f"Catch, learned only in the dream: mean of {BOARDS} real boards (goal .95)",
        ["seed", "return in the real game", "CPU seconds: episodes", "model", "agent"], rows,
    )  # fmt: skip
    last_json_line({"bench": "world_catch", "mean": float(np.mean(means)), "seeds": means})


if __name__ == "__main__":
    main()
