"""One run of one variant. `python -m tests.bench.claims.run catch double --seed 0`

Its last line is the result as one JSON object: a point for each measurement on the way.
"""

import argparse
from typing import Any

from genray.rl.agent import LocalAgent
from tests.bench.claims.values import measure
from tests.bench.claims.variants import TASKS, VARIANTS, configure
from tests.bench.common import last_json_line


def train(task: str, variant: str, seed: int, steps: int, every: int) -> list[dict[str, Any]]:
    """Train a variant for `steps` agent steps; return a measurement for every `every` of them."""
    config, rules = configure(task, variant, seed), TASKS[task]
    agent = LocalAgent(config, threads=1)
    points = []
    try:
        for until in range(every, steps + 1, every):
            while agent.steps < until:
                agent.advance(until, seconds=60.0)
            values = measure(
                agent.network(),
                config.env,
                gamma=config.collect.gamma,
                lanes=rules.lanes,
                steps=rules.roll_steps,
                seed=1_000 + seed,
                epsilon=rules.epsilon,
            )
            points.append(
                {"steps": agent.steps, "updates": agent.learner.updates} | values._asdict()
            )
    finally:
        agent.close()
    return points


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("variant", choices=VARIANTS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--every", type=int, required=True)
    arguments = parser.parse_args()
    points = train(
        arguments.task, arguments.variant, arguments.seed, arguments.steps, arguments.every
    )
    last_json_line({"points": points})


if __name__ == "__main__":
    main()
