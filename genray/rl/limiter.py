"""Flow control between collecting and learning: samples per insert.

Ape-X's two halves run at their own speeds. Left alone, a fast learner overfits a small replay,
and fast collectors overwrite transitions that were never seen. One number ties them: on average
every inserted transition is sampled `ratio` times (batch 32, one update per 4 agent steps: 32/4
= 8).
"""

import math
from dataclasses import dataclass


@dataclass
class SamplesPerInsert:
    """Who may go on: collectors while `insert_room() > 0`, the learner while `sample_room()`
    holds its next samples.

    Never both blocked: if the learner lacks room for its next b samples, then
    ratio·(inserted − min_size) − sampled < b, so inserted < min_size + sampled/ratio + b/ratio,
    and collectors have room as long as `tolerance` ≥ b/ratio. That is the deadlock which a
    smaller tolerance would build; `for_run` chooses it large enough. Collectors check before a
    chunk and may overshoot by that chunk, which only ever gives the learner room.

    As Reverb's `SampleToInsertRatio` (https://arxiv.org/abs/2102.04736), counted over *all*
    shards together: limiting each shard by its own counts would throttle the collectors of the
    shard that happens to hold less priority.
    """

    ratio: float
    """Samples per inserted transition; 0: no limit after `min_size` (the learner runs free, as
    in the Ape-X paper).
    """
    min_size: int
    """Transitions in the replay before the first sample."""
    tolerance: float
    """Inserts by which collectors may run ahead of the learner."""
    inserted: int = 0
    sampled: int = 0

    @classmethod
    def for_run(
        cls, ratio: float, min_size: int, chunk: int, sources: int, round_samples: int
    ) -> "SamplesPerInsert":
        """A limiter for `sources` collectors that insert `chunk` transitions at once and rounds
        of `round_samples`.
        """
        ahead = chunk * sources + (round_samples / ratio if ratio else 0)
        return cls(ratio=ratio, min_size=min_size, tolerance=ahead)

    def insert_room(self) -> float:
        """Transitions that collectors may insert now; ≤ 0: wait for the learner."""
        if not self.ratio:
            return math.inf
        return self.min_size + self.tolerance + self.sampled / self.ratio - self.inserted

    def sample_room(self) -> float:
        """Samples that the learner may draw now; less than its next batch: wait for collectors."""
        if self.inserted < self.min_size:
            return 0.0
        if not self.ratio:
            return math.inf
        return self.ratio * (self.inserted - self.min_size) - self.sampled

    def inserts_needed(self, samples: int) -> int:
        """How many more transitions must arrive before `samples` may be drawn."""
        missing = self.min_size - self.inserted
        if self.ratio:
            room = self.ratio * (self.inserted - self.min_size) - self.sampled
            missing = max(missing, math.ceil((samples - room) / self.ratio))
        return max(0, missing)

    def lose(self, lost: int, remaining: int) -> None:
        """`lost` transitions vanished with a shard, `remaining` are left: learning waits until
        `min_size` are there again.
        """
        self.inserted -= min(lost, max(0, self.min_size - remaining))

    def state(self) -> dict[str, float]:
        return {"ratio": self.ratio, "inserted": self.inserted, "sampled": self.sampled}

    def restore(self, state: dict[str, float]) -> None:
        """Continue from `state`; with another ratio than then, as if it had held from the start.

        After none at all nothing is owed: how far a free-running learner was ahead or behind
        says nothing.
        """
        self.inserted, self.sampled = int(state["inserted"]), int(state["sampled"])
        if self.ratio and not state["ratio"]:
            self.sampled = int(self.ratio * max(0, self.inserted - self.min_size))
        elif self.ratio and self.ratio != state["ratio"]:
            self.sampled = int(self.sampled * self.ratio / state["ratio"])

    @property
    def actual(self) -> float:
        """Samples per insert so far; `min_size` inserts are on the house."""
        return self.sampled / max(1, self.inserted - self.min_size)
