"""One replay alone, in this process. `python -m tests.bench.rivals.replays NAME [--tree LEAVES]`"""

import argparse
import importlib
from pathlib import Path
from statistics import median

import torch

from tests.bench.common import last_json_line
from tests.bench.rivals.replays import work

MODULES = {
    "genray": "genray_shard",
    "cpprb": "cpprb",
    "torchrl": "torchrl",
    "tianshou": "tianshou",
    "sb3": "sb3",
    "rllib": "rllib",
    "reverb": "reverb",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=tuple(MODULES))
    parser.add_argument(
        "--tree", type=int, default=0, metavar="LEAVES", help="only the tree, with so many leaves"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--seconds", type=float, default=0.5, help="CPU seconds of each measured stretch"
    )
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument(
        "--run", type=Path, default=None, help="genray: on frames that this run's policy plays"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    module = importlib.import_module(f"tests.bench.rivals.replays.{MODULES[arguments.name]}")
    if arguments.tree:
        tree = module.Tree(arguments.tree)
        rates = work.in_turns(
            {"pairs": (lambda: tree.pair(512), 1)}, arguments.seconds, arguments.turns
        )
        last_json_line({"pairs": median(rates["pairs"])})
    elif arguments.name == "genray":
        last_json_line(module.measure(arguments.seconds, arguments.turns, arguments.run))
    else:
        last_json_line(work.measure_replay(module.Replay(), arguments.seconds, arguments.turns))


if __name__ == "__main__":
    main()
