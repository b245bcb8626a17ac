"""Several systems on several Atari games, each run on one core. `python -m tests.bench.bench_atari`

Every run trains for the same CPU time on one core, and its policy is scored twice: after 20,000
agent steps and at the end. Each score is the mean of 30 whole episodes outside the clock, without
sticky actions and, as a second row, with them (.25). The statistics are those of Agarwal 2021
(https://arxiv.org/abs/2108.13264): the interquartile mean of human-normalised scores, performance
profiles and the probability of improvement, each with its stratified bootstrap interval.

The games for tuning and the games for the report are disjoint (`tests/bench/atari/games.py`). A
finished run is a file of `--out`, and is never run again: after a stop, the same command goes on.
A system is the name of one of genray's presets, or one of sb3, rllib, cleanrl, torchrl, or
`bbf_lite` less or more one switch (`bbf_lite-augmentation`, `bbf_lite+resets`: atari/ablations.py).
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from genray.errors import GenrayError
from genray.rl.games import resolve_game
from tests.bench.atari import pictures, report, systems
from tests.bench.atari.games import SETS
from tests.bench.atari.jobs import Job, result_of, run_jobs
from tests.bench.atari.protocol import MOMENTS, STICKY, Protocol, quick
from tests.bench.atari.run import add_protocol, argv_of, protocol_of
from tests.bench.common import BenchError, describe_machine, last_json_line, print_table

EVALUATION_S = 3_600.0
"""Seconds that a run may take beyond its training before it counts as hung."""
TITLES = {
    "milestone": "after {steps:,} agent steps",
    "end": "after {seconds:.0f} s of training",
    "sticky_0": "no sticky actions",
    "sticky_25": "sticky actions .25",
}
SCORE_HEADER = (
    "system", "game", "runs", "score (seeds)", "normalised", "agent steps", "updates", "cut",
)  # fmt: skip


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--systems", nargs="+", default=["road_runner_quick", "sb3"], help="the first one is ours"
    )
    parser.add_argument("--set", choices=SETS, default="tuning", help="games of atari/games.py")
    parser.add_argument("--games", nargs="+", help="games of the set; all unless given")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--parallel", type=int, default=2, help="runs at a time, one core each")
    parser.add_argument("--out", type=Path, default=Path("build/bench_atari"))
    parser.add_argument("--report-only", action="store_true", help="start no run")
    parser.add_argument("--quick", action="store_true", help="seconds a run: shows that it runs")
    add_protocol(parser)
    return parser.parse_args()


def games_of(arguments: argparse.Namespace) -> list[str]:
    """Return the chosen games. Raises BenchError for a game that is not in the chosen set."""
    known = SETS[arguments.set]
    games = [resolve_game(game) for game in arguments.games or known]
    for game in games:
        if game not in known:
            raise BenchError(f"--games {game}: not in --set {arguments.set} ({', '.join(known)})")
    return games


def make_job(system: str, game: str, seed: int, protocol: Protocol) -> Job:
    # Results of before had another clock: wall time.
    settings = {"system": system, "game": game, "seed": seed, "clock": "cpu", **vars(protocol)}
    settings |= systems.identity(system, game)
    return Job(f"{system}-{game}-{seed}", argv_of(system, game, seed, protocol), settings)


def collect(jobs: list[Job], folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return ({system: {game: {seed: result}}}, the records) of the runs that are finished."""
    runs: dict[str, Any] = {}
    records = []
    for job in jobs:
        if record := result_of(job, folder):
            records.append(record)
            games = runs.setdefault(job.settings["system"], {})
            games.setdefault(job.settings["game"], {})[job.settings["seed"]] = record["result"]
    return runs, records


def show(runs: dict[str, Any], ours: str, protocol: Protocol, out: Path) -> dict[str, Any]:
    """Print the tables and draw the pictures; return the figures for the last line."""
    figures: dict[str, Any] = {}
    for moment in MOMENTS:
        when = TITLES[moment].format(steps=protocol.milestone_steps, seconds=protocol.seconds)
        for evaluation in STICKY:
            rule = f"{when}, {TITLES[evaluation]}"
            rows = report.score_rows(runs, moment, evaluation)
            print_table(f"Mean of {protocol.episodes} episodes {rule}", SCORE_HEADER, rows)
            for number, comparison in enumerate(report.compare(runs, moment, evaluation)):
                games = ", ".join(comparison.games)
                print_table(
                    f"Interquartile mean, human-normalised, {rule}; {games}",
                    ("system", "runs", "IQM [95%]", f"P({systems.title(ours)} scores more) [95%]"),
                    report.comparison_rows(comparison, ours),
                )
                name = f"{moment}_{evaluation}_{number}"
                caption = f"{len(comparison.games)} games {when}\n{TITLES[evaluation]}"
                pictures.draw_profiles(out / f"profiles_{name}.png", comparison, caption)
                figures[name] = {
                    "games": comparison.games,
                    "iqm": {system: e.to_json() for system, e in comparison.iqms.items()},
                }
                if ours in comparison.tables and len(comparison.tables) > 1:
                    pictures.draw_improvement(
                        out / f"improvement_{name}.png", comparison, ours, caption
                    )
                    figures[name]["improvement"] = {
                        system: estimate.to_json()
                        for system, estimate in comparison.improvements(ours).items()
                    }
                    figures[name]["twice_and_apart"] = comparison.is_ahead(ours, factor=2.0)
    return figures


def main() -> None:
    arguments = parse()
    try:
        protocol, games = protocol_of(arguments), games_of(arguments)
        for system in arguments.systems:
            systems.check(system)
        chosen = arguments.systems
        if arguments.quick:
            protocol, games = quick(protocol), games[:1]
            arguments.seeds, arguments.out = (
                2,
                arguments.out.with_name(arguments.out.name + "_quick"),
            )
        # Stored runs are read without the packages that made them.
        missing = [
            system
            for system in chosen
            if not arguments.report_only and not systems.is_installed(system)
        ]
        for system in missing:
            print(f"{system}: not installed, left out; pip install 'genray[bench]'")
        jobs = [
            make_job(system, game, seed, protocol)
            for seed in range(arguments.seeds)  # so that a table that was stopped is balanced
            for game in games
            for system in chosen
            if system not in missing
        ]
        folder, failures = arguments.out / "runs", []
        if not arguments.report_only:
            timeout_s = protocol.seconds * (1 + protocol.overtime) + EVALUATION_S
            failures = run_jobs(
                jobs,
                folder,
                machine=describe_machine(),
                parallel=arguments.parallel,
                timeout_s=timeout_s,
            )
        runs, records = collect(jobs, folder)
    except (GenrayError, BenchError, ValueError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(f"stopped; the same command goes on from the runs in {arguments.out / 'runs'}")
    print(f"\n{describe_machine()}")
    print("runs measured on: " + "; ".join(sorted({record["machine"] for record in records})))
    lowest, middle = report.core_shares(records)
    print(f"share of its core that a run had: {middle:.2f} (median), {lowest:.2f} (lowest)")
    figures = show(runs, chosen[0], protocol, arguments.out) if runs else {}
    print(f"pictures: {arguments.out}")
    for failure in failures:
        print(f"failed: {failure}")
    last_json_line(
        {
            "systems": {system: sum(map(len, games.values())) for system, games in runs.items()},
            "core_share_lowest": lowest,
            "failed": len(failures),
            **figures,
        }
    )
    if failures:
        sys.exit(1)


if __name__ == "__main__":
    main()
