"""The books of a run: what the collectors made, and what became of it.

    transitions made = accepted by the shards + lost
    agent steps      = rows in the shards' rings, ever, of all lanes + those of lost chunks

Both hold exactly whenever nothing is on its way (`Coordinator.settle`), as long as no shard has
died: what a shard took to its grave is counted by the learner, from the last that the shard
told.
"""

from collections.abc import Iterable
from typing import Any

from genray.distributed.messages import CollectReport, ShardCounts


class Tally:
    """Counts by reports of the collectors, corrected by what the shards hold."""

    def __init__(self, collectors: int, shards: int, lanes: int):
        self._lanes = lanes
        self._steps = [0] * collectors  # those that should be rows of the shard's present life
        self._lives: list[int | None] = [None] * shards
        # transitions that the present life of a shard should have accepted
        self._expected = [0] * shards
        self.steps = 0
        self.made = 0
        self.lost = 0
        """Made, but never stored: their shard was down, or their collector died with them."""

    def begin(self, shard: int, counts: ShardCounts, rows: dict[int, int]) -> None:
        """Where a shard stands; `rows` are those ever written in each of a collector's lanes."""
        self._lives[shard], self._expected[shard] = counts.incarnation, counts.inserted
        for collector, written in rows.items():
            self._steps[collector] = written * self._lanes

    def add(self, collector: int, report: CollectReport) -> None:
        shard = collector % len(self._lives)
        self.steps += report.steps
        self._steps[collector] += report.steps
        self.made += report.transitions
        self.lost += report.lost_transitions
        self._expected[shard] += report.transitions - report.lost_transitions

    def balance(self, shard: int, counts: ShardCounts, rows: dict[int, int]) -> None:
        """Correct the counts by a shard's, while nothing is on its way to it.

        A collector that died may have shipped a chunk that it never reported, or reported one
        that never arrived.
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
        return {"steps": self.steps, "made_transitions": self.made}

    def restore(self, state: dict[str, Any], accepted: Iterable[int]) -> None:
        """Continue from `state`; `accepted` by each shard of the checkpoint, for one that holds
        no books.
        """
        self.steps = state["steps"]
        self.made = state.get("made_transitions", sum(accepted))
        self.lost = state.get("lost_transitions", 0)
