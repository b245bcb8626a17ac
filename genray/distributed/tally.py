"""Counts the steps and transitions of a run, and the transitions that were lost.

Two equations connect the counts::

    transitions made = accepted by the shards + lost
    agent steps      = rows ever written to the shards, over all lanes + rows of lost chunks

Both equations hold exactly while nothing is in flight (`Coordinator.settle`), if no shard has died.
The learner counts the transitions that are lost with a dead shard, from the shard's last counts.
"""

from collections.abc import Iterable
from typing import Any

from genray.distributed.messages import CollectReport, ShardCounts


class Tally:
    """Adds up the collectors' reports, and corrects the sums with the shards' counts.

    Args:
        collectors, shards: the number of collectors and of shards.
        lanes: the number of lanes of each collector.
    """

    def __init__(self, collectors: int, shards: int, lanes: int):
        self._lanes = lanes
        # For each collector: steps whose rows the current incarnation of its shard should have.
        self._steps = [0] * collectors
        self._lives: list[int | None] = [None] * shards
        # For each shard: transitions that its current incarnation should have accepted.
        self._expected = [0] * shards
        self.steps = 0
        self.made = 0
        self.lost = 0
        """Number of transitions that were made but never stored, because the shard was down or had
        refused them, or the collector died.
        """

    def begin(self, shard: int, counts: ShardCounts, rows: dict[int, int]) -> None:
        """Set what a shard has stored: its counts and `rows`, {collector: number of rows ever
        written in each of its lanes}.
        """
        self._lives[shard], self._expected[shard] = counts.incarnation, counts.inserted
        for collector, written in rows.items():
            self._steps[collector] = written * self._lanes

    def add(self, collector: int, report: CollectReport) -> None:
        """Add a collector's report."""
        shard = collector % len(self._lives)
        self.steps += report.steps
        self._steps[collector] += report.steps
        self.made += report.transitions
        self.lost += report.lost_transitions
        self._expected[shard] += report.transitions - report.lost_transitions

    def balance(self, shard: int, counts: ShardCounts, rows: dict[int, int]) -> None:
        """Correct the sums with a shard's counts. Nothing may be in flight to the shard.

        A collector that died may have sent a chunk that it did not report, or reported a chunk that
        did not arrive. `rows`: as in `begin`.
        """
        if counts.incarnation == self._lives[shard]:
            missing = self._expected[shard] - counts.inserted
            self.lost += max(0, missing)
            self.made += max(0, -missing)
            self.steps += sum(
                max(0, written * self._lanes - self._steps[one]) for one, written in rows.items()
            )
        self.begin(shard, counts, rows)

    def state(self) -> dict[str, int]:
        """Return the sums for a checkpoint."""
        return {"steps": self.steps, "made_transitions": self.made}

    def restore(self, state: dict[str, Any], accepted: Iterable[int]) -> None:
        """Continue from `state`. `accepted`: the number of inserts of each shard, used for an old
        checkpoint without `made_transitions`.
        """
        self.steps = state["steps"]
        self.made = state.get("made_transitions", sum(accepted))
        self.lost = state.get("lost_transitions", 0)
