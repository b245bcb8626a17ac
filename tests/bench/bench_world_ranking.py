"""Policies ranked by their returns in a world model and in the real game.
`python -m tests.bench.bench_world_ranking --model WORLD --run AGENT [--steps 300] [--games 20]`

Every checkpoint of the run plays the first `--steps` steps of so many games, greedily but for ε:
in the real game, and in the world model's dreams. The ranks of the mean returns are compared by
Spearman's correlation, with an interval from bootstrap samples of the policies. [goal: ≥ .8 over at
least 12 checkpoints and 3 games]
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from scipy.stats import spearmanr

from genray.distributed.dream_env import resolve_dream
from genray.rl.evaluate import Evaluation, evaluate
from genray.rl.policy import open_policy
from genray.runs.rundir import RunDir
from tests.bench.common import describe_machine, last_json_line, print_table

EPSILON = 0.05
"""Random actions free a policy that does nothing, e.g. one that never serves Breakout's ball."""


def returns(run: Path, step: int, model: Path, steps: int, games: int) -> list[Evaluation]:
    """Return the scores of the run's policy of a step: in the real game, and in dreams."""
    policy = open_policy(run, step)
    real = replace(policy.env, max_episode_frames=steps * policy.env.frame_skip)
    dream = resolve_dream(
        replace(policy.env, game="", env=f"dream:{model}", env_config=f'{{"max_steps": {steps}}}')
    )
    return [
        evaluate(policy.network, env, episodes=games, epsilon=EPSILON, seed=10_000)
        for env in (real, dream)
    ]


def correlation(pairs_N2: np.ndarray, samples: int = 2000) -> tuple[float, float, float]:
    """Return Spearman's correlation of real and dreamed returns, and its 95% interval."""
    rng, found = np.random.default_rng(0), []
    for _ in range(samples):
        chosen_N2 = pairs_N2[rng.integers(len(pairs_N2), size=len(pairs_N2))]
        if (chosen_N2.std(0) > 0).all():
            found.append(spearmanr(*chosen_N2.T).statistic)
    low, high = np.quantile(found, [0.025, 0.975]) if found else (np.nan, np.nan)
    return float(spearmanr(*pairs_N2.T).statistic), float(low), float(high)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, required=True, help="a run of genray train world")
    parser.add_argument("--run", type=Path, required=True, help="a run of genray train dqn")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--games", type=int, default=20)
    options = parser.parse_args()
    torch.set_num_threads(1)
    checkpoints = [int(folder.name) for folder in RunDir(options.run).list_checkpoints()]
    if len(checkpoints) < 3:
        raise SystemExit(
            f"{options.run}: {len(checkpoints)} checkpoints are too few to rank; train with e.g. "
            "--checkpoint-every 2500 --keep 14"
        )
    rows, pairs = [], []
    for step in sorted(checkpoints):
        real, dream = returns(options.run, step, options.model, options.steps, options.games)
        pairs.append((real.mean, dream.mean))
        rows.append([f"{step:,}", f"{real.mean:.1f}", f"{dream.mean:.1f}"])
        print(rows[-1], flush=True)
    found, low, high = correlation(np.array(pairs))
    print_table(f"returns of {options.steps} steps", ["policy of step", "real", "dreamed"], rows)
    print(f"Spearman {found:.2f} (95%: {low:.2f} to {high:.2f}), {len(pairs)} policies")
    print(describe_machine())
    last_json_line({"bench": "world_ranking", "spearman": found, "pairs": pairs})


if __name__ == "__main__":
    main()
