"""One run of one system. `python -m tests.bench.environments.run genray cartpole --seed 0`

Its last line is the result as one JSON object. `bench_environments` starts these runs.
"""

import argparse
import importlib

import torch

from tests.bench.common import last_json_line
from tests.bench.environments.protocol import TASKS, Run

SYSTEMS = {"genray": "genray_dqn", "sb3": "sb3_dqn", "rllib": "rllib_dqn"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("system", choices=SYSTEMS)
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cpu-s", type=float, help="CPU seconds of training; the task's")
    parser.add_argument("--episodes", type=int, default=100)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    task = TASKS[arguments.task]
    run = Run(task, arguments.seed, arguments.cpu_s or task.cpu_s, arguments.episodes)
    system = importlib.import_module(f"tests.bench.environments.{SYSTEMS[arguments.system]}")
    system.train(run)
    last_json_line(run.moments)


if __name__ == "__main__":
    main()
