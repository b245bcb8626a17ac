"""Keeps collecting and learning in proportion by limiting the number of samples per insert.

Ape-X's collectors and learner run at their own speeds. Without a limit, a fast learner overfits a
small replay, and fast collectors overwrite transitions that were never sampled. The limiter makes
the faster side wait, so that on average every inserted transition is sampled `ratio` times (for
example, batches of 32 and one update per 4 agent steps give 32/4 = 8).
"""

import math
from dataclasses import dataclass


@dataclass
class SamplesPerInsert:
    """Decides whether collectors may insert and whether the learner may sample.

    Collectors may insert while `inserts_allowed() > 0`. The learner may sample while
    `samples_allowed()` is at least the number of its next samples, b.

    If `tolerance` ≥ b/ratio, collectors and learner are never blocked at the same time. If the
    learner is blocked, then ratio·(inserted − min_size) − sampled < b, and therefore inserted <
    min_size + sampled/ratio + b/ratio, so collectors may insert. `for_run` chooses such a
    tolerance; a smaller one could cause a deadlock. Collectors check the limit before they insert a
    chunk, so one chunk may exceed the limit; the learner may then sample more.

    Reverb's `SampleToInsertRatio` (https://arxiv.org/abs/2102.04736) is similar. Departure:
    transitions are counted over *all* shards together. A limit for each shard would slow down the
    collectors of a shard that is sampled less because its total priority is small.
    """

    ratio: float
    """Samples per inserted transition; 0: no limit after the first `min_size` inserts, for
    collectors or for the learner (as in the Ape-X paper).
    """
    min_size: int
    """Number of transitions that are inserted before the first sample."""
    tolerance: float
    """Number of inserts by which collectors may be ahead of the learner."""
    inserted: int = 0
    sampled: int = 0

    @classmethod
    def for_run(
        cls, ratio: float, min_size: int, chunk: int, sources: int, round_samples: int
    ) -> "SamplesPerInsert":
        """Make a limiter for `sources` collectors that insert `chunk` transitions at once, and for
        a learner that draws `round_samples` samples at once.
        """
        ahead = chunk * sources + (round_samples / ratio if ratio else 0)
        return cls(ratio=ratio, min_size=min_size, tolerance=ahead)

    def inserts_allowed(self) -> float:
        """Return how many transitions may be inserted now; if ≤ 0, collectors must wait."""
        if not self.ratio:
            return math.inf
        return self.min_size + self.tolerance + self.sampled / self.ratio - self.inserted

    def samples_allowed(self) -> float:
        """Return how many samples may be drawn now; if fewer than needed, the learner must wait."""
        if self.inserted < self.min_size:
            return 0.0
        if not self.ratio:
            return math.inf
        return self.ratio * (self.inserted - self.min_size) - self.sampled

    def inserts_needed(self, samples: int) -> int:
        """Return how many more transitions must be inserted before `samples` may be drawn."""
        missing = self.min_size - self.inserted
        if self.ratio:
            allowed = self.ratio * (self.inserted - self.min_size) - self.sampled
            missing = max(missing, math.ceil((samples - allowed) / self.ratio))
        return max(0, missing)

    def lose(self, lost: int, remaining: int) -> None:
        """Reduce `inserted` after a shard with `lost` transitions has died, so that learning waits
        until the replay contains `min_size` transitions again.

        `remaining`: the number of transitions in the other shards.
        """
        self.inserted -= min(lost, max(0, self.min_size - remaining))

    def state(self) -> dict[str, float]:
        """Return the counts for a checkpoint."""
        return {"ratio": self.ratio, "inserted": self.inserted, "sampled": self.sampled}

    def restore(self, state: dict[str, float]) -> None:
        """Continue from `state`. If the ratio has changed, scale `sampled` as if the new ratio had
        applied from the start.

        If the saved ratio is 0, `sampled` is set to the number that the new ratio allows: without a
        limit, the numbers of inserts and samples were unrelated.
        """
        self.inserted, self.sampled = int(state["inserted"]), int(state["sampled"])
        if self.ratio and not state["ratio"]:
            self.sampled = int(self.ratio * max(0, self.inserted - self.min_size))
        elif self.ratio and self.ratio != state["ratio"]:
            self.sampled = int(self.sampled * self.ratio / state["ratio"])

    @property
    def actual(self) -> float:
        """Samples per insert so far; the first `min_size` inserts are not counted."""
        return self.sampled / max(1, self.inserted - self.min_size)
