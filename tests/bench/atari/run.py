"""One run of one system. `python -m tests.bench.atari.run SYSTEM --game krull --seed 0`

Its last line is the result as one JSON object. `bench_atari` starts these runs, one per core.
"""

import argparse
from dataclasses import fields
from typing import Any

import torch

from tests.bench.atari import systems
from tests.bench.atari.protocol import Protocol, Trial, check
from tests.bench.common import last_json_line


def add_protocol(parser: argparse.ArgumentParser) -> None:
    """Add the protocol's fields as options."""
    for field in fields(Protocol):
        option = f"--{field.name.replace('_', '-')}"
        kind: Any = field.type
        parser.add_argument(option, type=kind, default=field.default)


def protocol_of(arguments: argparse.Namespace) -> Protocol:
    """Return the protocol that the options name."""
    protocol = Protocol(
        **{field.name: getattr(arguments, field.name) for field in fields(Protocol)}
    )
    check(protocol)
    return protocol


def argv_of(system: str, game: str, seed: int, protocol: Protocol) -> list[str]:
    """Return the arguments of `python -m` that start a run."""
    argv = ["tests.bench.atari.run", system, "--game", game, "--seed", str(seed)]
    for field in fields(Protocol):
        argv += [f"--{field.name.replace('_', '-')}", str(getattr(protocol, field.name))]
    return argv


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("system")
    parser.add_argument("--game", required=True)
    parser.add_argument("--seed", type=int, default=0)
    add_protocol(parser)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    trial = Trial(protocol_of(arguments), arguments.game, arguments.seed)
    systems.train(arguments.system, trial)
    result: dict[str, Any] = trial.result()
    last_json_line(result)


if __name__ == "__main__":
    main()
