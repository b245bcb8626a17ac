"""Flickering Road Runner: an agent with an LSTM beside one with a stack of four frames.
`python -m tests.bench.bench_flicker [--minutes 6] [--seeds 3] [--first-seed 0] [--only lstm]
[--quick]`

Each frame is blank with probability ½, in training and in the 30 games at the end. The presets
`r2d2_lite` and `road_runner_quick` train for the same CPU minutes, in one process with one thread
each; their evaluations do not count. The game and the minutes were chosen before the first run.
[Hausknecht 2015, https://arxiv.org/abs/1507.06527]
"""

import argparse
import time
from dataclasses import replace

import numpy as np
import torch

from genray.rl import presets
from genray.rl.agent import LocalAgent
from genray.rl.config import DQNConfig
from genray.rl.evaluate import Evaluation, evaluate
from tests.bench.common import describe_machine, last_json_line, print_table

BLANK, EVERY = 0.5, 200


def trained(config: DQNConfig, seed: int, cpu_s: float) -> tuple[LocalAgent, int]:
    """Train for CPU seconds; return (the agent, its updates)."""
    config = replace(
        config,
        env=replace(config.env, blank_frames=BLANK),
        run=replace(config.run, steps=10**7, seed=seed, device="cpu"),
    )
    agent, start = LocalAgent(config, threads=1), time.process_time()
    while time.process_time() - start < cpu_s:
        agent.advance(agent.steps + EVERY, seconds=36_000.0)
    return agent, agent.learner.updates


def tested(agent: LocalAgent, config: DQNConfig, blank: float, episodes: int) -> Evaluation:
    env = replace(config.env, blank_frames=blank)
    return evaluate(agent.network(), env, episodes=episodes, epsilon=0.001, seed=1_000)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=6.0, help="CPU minutes of a training")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--only", choices=("frames", "lstm"), help="only one of the two agents")
    parser.add_argument("--quick", action="store_true", help="one seed, two CPU seconds, one game")
    arguments = parser.parse_args()
    first = arguments.first_seed
    minutes, seeds, episodes = arguments.minutes, range(first, first + arguments.seeds), 30
    if arguments.quick:
        minutes, seeds, episodes = 2 / 60, range(first, first + 1), 1
    torch.set_num_threads(1)
    print(describe_machine())
    systems = {
        "four stacked frames": presets.road_runner_quick(),
        "LSTM": presets.r2d2_lite(),
    }
    if arguments.only:
        name = "LSTM" if arguments.only == "lstm" else "four stacked frames"
        systems = {name: systems[name]}
    rows, found = [], {name: [] for name in systems}
    for seed in seeds:
        for name, config in systems.items():
            agent, updates = trained(config, seed, 60 * minutes)
            flickering, clear = (tested(agent, config, p, episodes) for p in (BLANK, 0.0))
            agent.close()
            found[name].append(flickering.mean)
            means = (f"{score.mean:,.0f}" for score in (flickering, clear))
            rows.append([name, seed, f"{agent.steps:,}", f"{updates:,}", *means])
            print(rows[-1], flush=True)
    heads = ["", "seed", "agent steps", "updates", "flickering", "same agent, clear frames"]
    print_table(f"Road Runner after {minutes:.3g} CPU minutes: mean of {episodes}", heads, rows)
    for name, scores in found.items():
        print(f"{name}: {np.mean(scores):,.0f} (seeds {min(scores):,.0f} to {max(scores):,.0f})")
    last_json_line({"bench": "flicker", **found})


if __name__ == "__main__":
    main()
