"""Lose every kind of machine in every way, and print what became of the run: `make test-cluster`.

    python -m tests.cluster.matrix [--roles learner,replay] [--faults cut] [--settings ours]
    [--seeds 0] [--controls-only]

One machine plays six hosts: what is proved is proved of hosts on one kernel. About two minutes a
case, four with Ray's default settings. The last line is one JSON object of all outcomes; exit
status 1 when a goal is missed or a control does not behave.
"""

import argparse
import dataclasses
import itertools
import json
import sys
import tempfile
import time
from pathlib import Path

from tests.cluster.driver import Case
from tests.cluster.faults import HOSTS, Outcome, experiment
from tests.cluster.hosts import Hosts, missing

ROLES = ("collector", "replay", "learner", "head")
FAULTS = ("power-off", "cut")
CONTROL = Case(role="none", fault="none")
NEGATIVE = Case(role="learner", fault="power-off", recovery=False)
HEADER = (
    "| case | detected s | acting s | learning s | made | acknowledged | … lost | lost with its "
    "host | lost on the way "
    "| doubled | zombie chunks | refused writes | published → restored | goals |"
)


def row(outcome: Outcome) -> str:
    accounts = outcome.accounts
    assert accounts

    def seconds(value: float | None) -> str:
        return "–" if value is None else f"{value:.1f}"

    # A lost head takes the replay with it: what came after the last checkpoint is gone.
    gone = (
        accounts.lost_with_shard if outcome.since_checkpoint is None else outcome.since_checkpoint
    )
    restored = f"{outcome.published} → {outcome.restored}" if outcome.restored is not None else "–"
    cells = [
        outcome.case.name,
        seconds(outcome.detected_s),
        seconds(outcome.acting_s),
        seconds(outcome.learning_s),
        accounts.made,
        accounts.acknowledged,
        accounts.lost_acknowledged,
        gone,
        accounts.lost_on_the_way,
        accounts.doubled,
        accounts.zombie_chunks,
        outcome.refused_writes,
        restored,
        "; ".join(outcome.misses()) or "held",
    ]
    return "| " + " | ".join(map(str, cells)) + " |"


def as_expected(outcome: Outcome) -> bool:
    """Goals held; a negative control must miss them."""
    return bool(outcome.misses()) != outcome.case.recovery


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.cluster.matrix", description=__doc__.splitlines()[0]
    )
    for name, choices in (
        ("roles", ROLES),
        ("faults", FAULTS),
        ("settings", ("ours", "default")),
        ("seeds", ("0", "1")),
    ):
        parser.add_argument(f"--{name}", default=",".join(choices), help=f"of {','.join(choices)}")
    parser.add_argument("--no-controls", action="store_true", help="leave the two controls out")
    parser.add_argument("--controls-only", action="store_true")
    parser.add_argument("--recurrent", action="store_true", help="an agent with an LSTM")
    options = parser.parse_args()
    if reason := missing():
        print(f"error: {reason}", file=sys.stderr)
        return 2
    parts = (options.settings, options.roles, options.faults, options.seeds)
    cases = [
        Case(
            role=role,
            fault=fault,
            settings=settings,
            seed=int(seed),
            recurrent=options.recurrent,
        )
        for settings, role, fault, seed in itertools.product(*(part.split(",") for part in parts))
    ]
    cases = ([] if options.no_controls else [CONTROL, NEGATIVE]) + (
        [] if options.controls_only else cases
    )
    outcomes, failed = [], 0
    print(HEADER + "\n" + "|---" * HEADER.count(" | ") + "|---|", flush=True)
    with tempfile.TemporaryDirectory(prefix="genray-matrix-") as scratch, Hosts(HOSTS) as hosts:
        for number, case in enumerate(cases):
            start = time.monotonic()
            try:
                outcome = experiment(hosts, case, Path(scratch) / str(number))
            except (AssertionError, RuntimeError) as error:
                failed += 1
                print(
                    f"| {case.name} | could not be run: "
                    f"{str(error).strip().splitlines()[-1][:200]} |",
                    flush=True,
                )
                continue
            outcomes.append(outcome)
            failed += not as_expected(outcome)
            print(row(outcome), flush=True)
            print(
                f"  {time.monotonic() - start:.0f} s; {outcome.events}", file=sys.stderr, flush=True
            )
    print(
        json.dumps(
            [dataclasses.asdict(outcome) | {"held": not outcome.misses()} for outcome in outcomes]
        )
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
