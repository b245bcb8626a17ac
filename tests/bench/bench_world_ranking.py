"""Policies ranked by their returns in a world model and in the real game.
`python -m tests.bench.bench_world_ranking --model WORLD --run AGENT … [--steps 300] [--games 100]`

Every checkpoint of the run (of several runs: the newest policy of each) plays the first `--steps`
steps of so many games, greedily but for ε: in the real game, and in the world model's dreams. The
ranks of the mean returns are compared by Spearman's correlation, with an interval from bootstrap
samples of the policies. [goal: ≥ .8 over at least 12 checkpoints and 3 games] The same number of
other real games ranks the policies once more: its correlation with the first real ranking is what a
perfect model would have.
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


def returns(run: Path, step: int | None, model: Path, steps: int, games: int) -> list[Evaluation]:
    """Return the scores of the run's policy of a step: in the real game, in dreams, and in other
    real games.
    """
    policy = open_policy(run, step)
    real = replace(policy.env, max_episode_frames=steps * policy.env.frame_skip)
    dream = resolve_dream(
        replace(policy.env, game="", env=f"dream:{model}", env_config=f'{{"max_steps": {steps}}}')
    )
    return [
        evaluate(policy.network, env, episodes=games, epsilon=EPSILON, seed=seed)
        for env, seed in ((real, 10_000), (dream, 10_000), (real, 20_000))
    ]


def policies_of(runs: list[Path]) -> list[tuple[Path, int | None]]:
    """Return (run, step) of the policies to rank; step None: the newest."""
    if len(runs) == 1:
        steps = sorted(int(folder.name) for folder in RunDir(runs[0]).list_checkpoints())
        policies: list[tuple[Path, int | None]] = [(runs[0], step) for step in steps]
        hint = f"{runs[0]}: {len(steps)} checkpoints are too few to rank; train with e.g. "
        hint += "--checkpoint-every 2500 --keep 14"
    else:
        policies = [(run, None) for run in runs]
        hint = f"--run: {len(runs)} policies are too few to rank; name at least 3"
    if len(policies) < 3:
        raise SystemExit(hint)
    return policies


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
    parser.add_argument(
        "--run", type=Path, nargs="+", required=True, help="runs of genray train dqn"
    )
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--games", type=int, default=100)
    options = parser.parse_args()
    torch.set_num_threads(1)
    policies = policies_of(options.run)
    rows, means = [], []
    for run, step in policies:
        played = returns(run, step, options.model, options.steps, options.games)
        means.append([each.mean for each in played])
        name = run.name if step is None else f"{step:,}"
        rows.append([name, *(f"{mean:.1f}" for mean in means[-1])])
        print(rows[-1], flush=True)
    means_N3 = np.array(means)
    header = ["policy", "real", "dreamed", "other real games"]
    print_table(f"returns of {options.steps} steps, {options.games} games", header, rows)
    spearman = {}
    for name, columns in (("dreamed", [0, 1]), ("other real games", [0, 2])):
        found, low, high = correlation(means_N3[:, columns])
        spearman[name] = found
        print(f"Spearman, {name}: {found:.2f} (95%: {low:.2f} to {high:.2f}), {len(rows)} policies")
    print(describe_machine())
    last_json_line({"bench": "world_ranking", "spearman": spearman, "returns": means})


if __name__ == "__main__":
    main()
