"""Train an Atari agent with Ray actors: collectors play, replay shards store, a learner learns.

    python examples/ray_agent.py

What you see: about every five seconds, the agent steps, the updates, the weight lag (how many
updates old the collectors' weights are) and the mean score of the games that ended. At the end the
program writes agent.gif. The default is the training of `make demo`; --steps makes it shorter.
"""

import argparse
from dataclasses import replace
from pathlib import Path

from genray.distributed.coordinator import Coordinator
from genray.distributed.session import ray_session
from genray.media import write_clip
from genray.rl.evaluate import play
from genray.rl.presets import preset


def main() -> None:
    parser = argparse.ArgumentParser(description="Train an agent with Ray actors.")
    parser.add_argument("--preset", default="road_runner_quick", help="see genray/rl/presets.py")
    parser.add_argument("--steps", type=int, help="agent steps of all lanes; default: the preset's")
    parser.add_argument("--address", help="a Ray cluster; default: a private Ray on this machine")
    parser.add_argument("--out", type=Path, default=Path("agent.gif"))
    options = parser.parse_args()

    config = preset(options.preset)
    if options.steps:
        config = replace(config, run=replace(config.run, steps=options.steps))
    with ray_session(options.address):
        engine = Coordinator(config)
        try:
            step = 0
            while step < config.run.steps:
                progress = engine.advance(config.run.steps, seconds=5.0)
                step = progress.steps
                scores = [episode.score for episode in progress.episodes]
                mean = f"{sum(scores) / len(scores):,.1f}" if scores else "-"
                print(
                    f"step {step:>7,}  updates {progress.updates:>6,}  "
                    f"weight lag {progress.weight_lag:3.0f}  score {mean}"
                )
            network = engine.network()
        finally:
            engine.close()
    frames, score = play(network, config.env, max_steps=300)
    print(f"score of the filmed game: {score:,.1f}")
    print(write_clip(options.out, frames))


if __name__ == "__main__":
    main()
