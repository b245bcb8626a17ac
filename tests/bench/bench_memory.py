"""Blind Catch: a recurrent agent with stored states, one without, and a stack of four frames.
`python -m tests.bench.bench_memory [--quick] [--out blind_catch.png]`

Each run is the preset `blind_catch` in one process with one thread. The mean return of 128 greedy
episodes is taken every 6,000 agent steps. The optimum is 1. The ball is seen in the first frame
only, and the paddle can move after four more, so that an agent without memory, and one with a stack
of four frames, can reach no more than −0.75.
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from genray.rl import presets
from genray.rl.agent import LocalAgent
from genray.rl.config import DQNConfig
from genray.rl.evaluate import evaluate
from genray.rl.sequences import SequenceConfig
from tests.bench.common import describe_machine, last_json_line, print_table

EPISODES, EVERY = 128, 6_000
WITHOUT_MEMORY = -0.75
"""The best mean return of an agent that has not seen the ball."""


def systems() -> dict[str, DQNConfig]:
    """Return the configurations by name."""
    stored = presets.blind_catch()
    zero = replace(stored, sequences=replace(stored.sequences, stored_state=False))
    stack = replace(
        stored,
        env=replace(stored.env, stack=4),
        network=replace(stored.network, lstm_units=0),
        # as many transitions an update as the sequences have
        learner=replace(
            stored.learner,
            batch_size=stored.learner.batch_size * stored.sequences.sequence_length,
        ),
        sequences=SequenceConfig(),
    )
    return {"stored state": stored, "state of zero": zero, "four stacked frames": stack}


def curve(config: DQNConfig, seed: int, steps: int) -> tuple[list[tuple[int, float]], float]:
    """Train; return [(agent steps, mean return)], and the CPU seconds."""
    config = replace(config, run=replace(config.run, steps=steps, seed=seed, device="cpu"))
    agent, start, points = LocalAgent(config), time.process_time(), []
    for step in range(EVERY, steps + 1, EVERY):
        progress = agent.advance(step, seconds=36_000.0)
        found = evaluate(agent.network(), config.env, episodes=EPISODES, epsilon=0.0, seed=5)
        points.append((progress.steps, found.mean))
    agent.close()
    return points, time.process_time() - start


def draw(out: Path, curves: dict[str, list[list[tuple[int, float]]]]) -> None:
    """Draw the curves of all seeds, and the mean of each system."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4), dpi=120, layout="constrained")
    for (name, runs), color in zip(curves.items(), ("#1f5fbf", "#bf5f1f", "#777777")):
        for points in runs:
            axes.plot(*zip(*points), color=color, linewidth=0.8, alpha=0.5)
        mean = np.mean([[value for _, value in points] for points in runs], axis=0)
        label = f"{name} ({len(runs)} {'seed' if len(runs) == 1 else 'seeds'})"
        axes.plot([step for step, _ in runs[0]], mean, color=color, linewidth=2.2, label=label)
    for value, text, above in ((1.0, "optimum", 4), (WITHOUT_MEMORY, "best without memory", -14)):
        axes.axhline(value, color="#444444", linestyle=":", linewidth=1)
        axes.annotate(
            text, (1, value), (-4, above), xycoords=("axes fraction", "data"),
            textcoords="offset points", ha="right", fontsize=9, color="#444444",
        )  # fmt: skip
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.set(xlabel="agent steps", ylabel="mean return of 128 games", ylim=(-1, 1.15))
    axes.legend(frameon=False, loc="center right", bbox_to_anchor=(1, 0.32))
    figure.savefig(out)
    pyplot.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=36_000)
    parser.add_argument("--out", type=Path, help="a picture of the curves")
    parser.add_argument("--quick", action="store_true", help="one seed, 6,000 steps")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.seeds, arguments.steps = 1, EVERY
    torch.set_num_threads(1)
    print(describe_machine())
    curves: dict[str, list[list[tuple[int, float]]]] = {}
    rows = []
    for name, config in systems().items():
        # The stack cannot learn; one seed shows it.
        for seed in range(arguments.seeds if config.network.lstm_units else 1):
            points, seconds = curve(config, seed, arguments.steps)
            curves.setdefault(name, []).append(points)
            rows.append([name, seed, *(f"{value:.2f}" for _, value in points), f"{seconds:.0f}"])
            print(rows[-1], flush=True)
    heads = [f"{step:,}" for step in range(EVERY, arguments.steps + 1, EVERY)]
    print_table("Blind Catch: mean return by agent steps", ["", "seed", *heads, "CPU s"], rows)
    if arguments.out:
        draw(arguments.out, curves)
    last = {name: [points[-1][1] for points in runs] for name, runs in curves.items()}
    last_json_line({"bench": "memory", **last})


if __name__ == "__main__":
    main()
