"""Agent steps a second, the whole agent, beside its peers. `python -m tests.bench.bench_end_to_end`

Every system does the work of `rivals/workload.py`: 8 lanes, batches of 32, one update for every
8 agent steps, Nature's network. Each runs in a fresh process with 1 and with 2 PyTorch threads;
the better median counts. The systems take turns, so that a busy spell of the machine meets all
of them. About 20 minutes for each repeat.

Two comparisons that must not be mixed: *full* (dueling, double, prioritized: RLlib and the full
bare loop) and *sb3* (uniform, 1 step, neither double nor dueling: Stable-Baselines3 and the sb3
bare loop).
"""

import argparse
import time
from dataclasses import dataclass
from typing import Any

from tests.bench.common import (
    BenchError,
    Summary,
    describe_machine,
    last_json_line,
    print_table,
    run_measured,
)

THREADS = (1, 2)
START_UP_S = 240.0  # starting, filling and warming up may take this long beside the window


@dataclass(frozen=True)
class System:
    """One row of the table: a program that prints `steps_per_s` and `cpu_s`."""

    title: str
    argv: tuple[str, ...]


SYSTEMS = {
    "genray_full": System(
        "genray through Ray, full", ("tests.bench.rivals.genray_ray", "--algorithm", "full")
    ),
    "genray_bfloat16": System(
        "genray through Ray, full, bfloat16 products",
        ("tests.bench.rivals.genray_ray", "--algorithm", "full", "--precision", "bfloat16"),
    ),
    "bare_full": System("bare loop, full", ("tests.bench.rivals.bare_loop", "--algorithm", "full")),
    "rllib": System("RLlib DQN as it comes, full", ("tests.bench.rivals.rllib_dqn",)),
    "rllib_tuned": System(
        "RLlib DQN tuned by us, full", ("tests.bench.rivals.rllib_dqn", "--tuned")
    ),
    "genray_sb3": System(
        "genray through Ray, SB3's algorithm",
        ("tests.bench.rivals.genray_ray", "--algorithm", "sb3"),
    ),
    "bare_sb3": System(
        "bare loop, SB3's algorithm", ("tests.bench.rivals.bare_loop", "--algorithm", "sb3")
    ),
    "sb3": System("Stable-Baselines3 DQN", ("tests.bench.rivals.sb3", "speed")),
}
RATIOS = {
    "ratio_to_rllib": ("genray_full", "rllib"),
    "ratio_to_rllib_bfloat16": ("genray_bfloat16", "rllib"),
    "ratio_to_rllib_tuned": ("genray_full", "rllib_tuned"),
    "ratio_to_bare_loop": ("genray_full", "bare_full"),
    "ratio_to_sb3": ("genray_sb3", "sb3"),
    "ratio_to_bare_loop_sb3": ("genray_sb3", "bare_sb3"),
}

Runs = dict[tuple[str, int], list[dict[str, Any]]]


def measure(names: list[str], seconds: float, repeats: int) -> Runs:
    """Every system at every number of threads, `repeats` times, in turns; a system that fails is
    left out after.
    """
    runs: Runs = {}
    broken: set[str] = set()
    for repeat in range(repeats):
        for threads in THREADS:
            for name in names:
                if name in broken:
                    continue
                argv = [*SYSTEMS[name].argv, "--seconds", str(seconds), "--seed", str(repeat)]
                try:
                    result = run_measured(argv, threads=threads, timeout_s=seconds + START_UP_S)
                except BenchError as error:
                    broken.add(name)
                    print(f"{name} left out: {error}", flush=True)
                    continue
                runs.setdefault((name, threads), []).append(result)
                clock = time.strftime("%H:%M:%S")
                print(
                    f"{clock} {name}, {threads} threads: {result['steps_per_s']:.1f} steps/s",
                    flush=True,
                )
    return {key: found for key, found in runs.items() if key[0] not in broken}


def speed(found: list[dict[str, Any]]) -> Summary:
    return Summary(tuple(result["steps_per_s"] for result in found))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--seconds", type=float, default=60.0, help="measured window of each run, after its warm-up"
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one repeat of 20 s")
    parser.add_argument(
        "--only", nargs="+", choices=tuple(SYSTEMS), default=list(SYSTEMS), metavar="SYSTEM"
    )
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.seconds, arguments.repeats = 20.0, 1
    machine = describe_machine()
    runs = measure(arguments.only, arguments.seconds, arguments.repeats)

    best: dict[str, tuple[int, Summary]] = {}
    rows = []
    for (name, threads), found in sorted(
        runs.items(), key=lambda item: (list(SYSTEMS).index(item[0][0]), item[0][1])
    ):
        rate = speed(found)
        if name not in best or rate.median > best[name][1].median:
            best[name] = (threads, rate)
        cpu_ms = Summary(tuple(1e3 * r["cpu_s"] / (r["steps_per_s"] * r["wall_s"]) for r in found))
        rows.append(
            (SYSTEMS[name].title, threads, rate, f"{cpu_ms.median:.2f}", f"{rate.median * 4:.0f}")
        )
    print_table(
        f"8 lanes, batch 32, an update for 8 agent steps; {arguments.repeats} × "
        f"{arguments.seconds:.0f} s; {machine}",
        ("system", "threads", "agent steps/s, median (range)", "CPU ms/step", "frames/s"),
        rows,
    )

    result: dict[str, Any] = {}
    for ratio, (ours, theirs) in RATIOS.items():
        both = ours in best and theirs in best
        result[ratio] = best[ours][1].median / best[theirs][1].median if both else None
    genray = [
        r["bytes_per_transition"]
        for (name, _), found in runs.items()
        if name == "genray_full"
        for r in found
    ]
    result["bytes_per_transition"] = max(genray) if genray else None
    for name, (threads, rate) in best.items():
        result[f"steps_per_s_{name}"] = rate.median
        result[f"threads_{name}"] = threads
    last_json_line(result)


if __name__ == "__main__":
    main()
