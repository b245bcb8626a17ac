"""Reads the runs of a table, and makes its rows and its statistics.

A run's file has the result of `run`: for each moment (the milestone, the end) and each evaluation
(without and with sticky actions) the scores of whole episodes. A run's score is their mean.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.bench.atari.statistics import Estimate, Table, apart, improvement, iqm
from tests.bench.atari.systems import title

Runs = Mapping[str, Mapping[str, Mapping[int, dict[str, Any]]]]
"""System: game: seed: result."""


def scores(
    runs: Runs, system: str, moment: str, evaluation: str, value: str = "normalised"
) -> dict[str, list[float]]:
    """Return the score of each finished run of a system as {game: scores by seed}.

    No run is left out (`policy_at`), because the mean over the faster runs of a system would not be
    that of the system. Games without any score are left out.
    """
    table = {}
    for game, results in runs[system].items():
        found = [policy_at(results[seed], moment)[evaluation][value] for seed in sorted(results)]
        found = [one for one in found if one is not None]
        if found:
            table[game] = found
    return table


def policy_at(result: dict[str, Any], moment: str) -> dict[str, Any]:
    """Return what was measured of a run at a moment. For a run that was too slow to reach the
    milestone, this is the end of its time, with fewer agent steps.
    """
    return result[moment] or result["end"]


def score_rows(runs: Runs, moment: str, evaluation: str) -> list[tuple[str, ...]]:
    """Return a row for each system and game: system, game, how many runs reached the moment, mean
    raw score with the range of the seeds, mean human-normalised score, mean agent steps, mean
    updates, episodes that were cut. All runs count (`policy_at`).
    """
    rows = []
    for system, games in runs.items():
        for game, results in games.items():
            reached = sum(bool(result[moment]) for result in results.values())
            policies = [policy_at(result, moment) for result in results.values()]
            means = [one[evaluation]["mean"] for one in policies]
            normalised = [one[evaluation]["normalised"] for one in policies]
            known = [value for value in normalised if value is not None]
            rows.append(
                (
                    title(system),
                    game,
                    f"{reached} of {len(results)}",
                    f"{np.mean(means):,.1f} ({min(means):,.0f}–{max(means):,.0f})",
                    f"{np.mean(known):.3f}" if known else "–",
                    f"{np.mean([one['steps'] for one in policies]):,.0f}",
                    f"{np.mean([one['updates'] for one in policies]):,.0f}",
                    str(sum(one[evaluation]["cut"] for one in policies)),
                )
            )
    return rows


@dataclass(frozen=True)
class Comparison:
    """The interquartile means of the systems that have runs of the same games."""

    games: tuple[str, ...]
    tables: dict[str, Table]
    iqms: dict[str, Estimate]

    def improvements(self, ours: str) -> dict[str, Estimate]:
        """Return P(ours scores more) against each other system."""
        return {
            system: improvement(self.tables[ours], table)
            for system, table in self.tables.items()
            if system != ours
        }

    def is_ahead(self, ours: str, factor: float = 1.0) -> dict[str, bool]:
        """Return, for each other system, whether the interquartile mean of `ours` is at least
        `factor` times the other's and the intervals have no point in common.
        """
        return {
            system: self.iqms[ours].value >= factor * other.value and apart(self.iqms[ours], other)
            for system, other in self.iqms.items()
            if system != ours
        }


def compare(runs: Runs, moment: str, evaluation: str) -> list[Comparison]:
    """Return a comparison for each different set of games, the largest set first: all systems that
    have runs of all these games. So a system that played two games is compared on those two.
    """
    tables = {system: scores(runs, system, moment, evaluation) for system in runs}
    sets = {tuple(sorted(table)) for table in tables.values() if table}
    comparisons = []
    for games in sorted(sets, key=lambda games: (-len(games), games)):
        chosen: dict[str, Table] = {
            system: {game: table[game] for game in games}
            for system, table in tables.items()
            if set(games) <= set(table)
        }
        iqms = {system: iqm(table) for system, table in chosen.items()}
        comparisons.append(Comparison(games, chosen, iqms))
    return comparisons


def comparison_rows(comparison: Comparison, ours: str) -> list[tuple[str, ...]]:
    """Return a row for each system: system, runs, IQM with its interval, P(ours is better)."""
    better = comparison.improvements(ours) if ours in comparison.tables else {}
    return [
        (
            title(system),
            str(sum(len(runs) for runs in comparison.tables[system].values())),
            str(estimate),
            str(better[system]) if system in better else "–",
        )
        for system, estimate in comparison.iqms.items()
    ]


def core_shares(records: Sequence[dict[str, Any]]) -> tuple[float, float]:
    """Return the lowest and the median share of its core that a run had while it trained. A low
    share says that something else was running on the machine.
    """
    ends = [record["result"]["end"] for record in records if record["result"].get("end")]
    shares = [end["seconds"] / end["wall_s"] for end in ends if end["wall_s"]]
    return (float(min(shares)), float(np.median(shares))) if shares else (0.0, 0.0)
