"""Train an agent in one process, without Ray, and film one of its games.

    python examples/local_agent.py

What you see: a line for each 2,000 steps. The mean score of the newest games rises from about -0.7,
which random play gets in the game Catch, towards 1.0, which means that every ball is caught. At the
end the program writes catch.gif.
"""

import argparse
from dataclasses import replace
from pathlib import Path

from genray.media import write_clip
from genray.rl import LocalAgent
from genray.rl.evaluate import evaluate, play
from genray.rl.presets import catch


def main() -> None:
    parser = argparse.ArgumentParser(description="Train an agent in one process.")
    parser.add_argument("--steps", type=int, default=24_000, help="agent steps of all lanes")
    parser.add_argument("--min-size", type=int, default=500, help="transitions before learning")
    parser.add_argument("--out", type=Path, default=Path("catch.gif"))
    options = parser.parse_args()

    config = catch()
    config = replace(config, replay=replace(config.replay, min_size=options.min_size))
    agent = LocalAgent(config)
    try:
        step = 0
        while step < options.steps:
            progress = agent.advance(min(step + 2_000, options.steps), seconds=600.0)
            step = progress.steps
            scores = [episode.score for episode in progress.episodes]
            mean = sum(scores) / len(scores) if scores else float("nan")
            print(f"step {step:>6,}  updates {progress.updates:>6,}  score {mean:+.2f}")
        network = agent.network()
    finally:
        agent.close()

    print(evaluate(network, config.env, episodes=32, epsilon=0.0).summary())
    frames, _ = play(network, config.env, epsilon=0.0)
    print(write_clip(options.out, frames))


if __name__ == "__main__":
    main()
