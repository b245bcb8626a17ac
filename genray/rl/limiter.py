"""Controls the flow between collecting and learning by the number of samples per insert.

Ape-X's collectors and learner run at their own speeds. Without a limit, a fast learner overfits a
small replay, and fast collectors overwrite transitions that were never sampled. One ratio links
them: on average every inserted transition is sampled `ratio` times (batch 32, one update per 4
agent steps: 32/4 = 8).
"""

import math
from dataclasses import dataclass


@dataclass
class SamplesPerInsert:
    """Decides who may continue: collectors while `inserts_allowed() > 0`, the learner while
    `samples_allowed()` is at least its next number of samples.

    The two are never blocked at once. If the learner may not sample its next b samples, then
    ratio·(inserted − min_size) − sampled < b, so inserted < min_size + sampled/ratio + b/ratio,
    and collectors may insert as long as `tolerance` ≥ b/ratio. A smaller tolerance would cause a
    deadlock; `for_run` chooses it large enough. Collectors check before a chunk and may exceed the
    limit by that chunk, which only lets the learner sample more.

    As Reverb's `SampleToInsertRatio` (https://arxiv.org/abs/2102.04736), but counted over *all*
    shards together: a limit per shard would slow down the collectors of a shard that has less
    total priority.
    """

    ratio: float
    """Samples per inserted transition; 0: no limit after `min_size` (a free-running learner, as in
    the Ape-X paper).
    """
    min_size: int
    """Transitions in the replay before the first sample."""
    tolerance: float
    """Number of inserts that collectors may be ahead of the learner."""
    inserted: int = 0
    sampled: int = 0

    @classmethod
    def for_run(
        cls, ratio: float, min_size: int, chunk: int, sources: int, round_samples: int
    ) -> "SamplesPerInsert":
        """Make a limiter for `sources` collectors that insert `chunk` transitions at once, and a
        learner that samples rounds of `round_samples`.
        """
        ahead = chunk * sources + (round_samples / ratio if ratio else 0)
        return cls(ratio=ratio, min_size=min_size, tolerance=ahead)

    def inserts_allowed(self) -> float:
        """Return how many transitions may be inserted now; ≤ 0: wait for the learner."""
        if not self.ratio:
            return math.inf
        return self.min_size + self.tolerance + self.sampled / self.ratio - self.inserted

    def samples_allowed(self) -> float:
        """Return how many samples may be drawn now; if fewer than a batch, wait for collectors."""
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
        """Account for `lost` transitions of a dead shard, with `remaining` left: learning waits
        until the replay contains `min_size` again.
        """
        self.inserted -= min(lost, max(0, self.min_size - remaining))

    def state(self) -> dict[str, float]:
        """Return the counts for a checkpoint."""
        return {"ratio": self.ratio, "inserted": self.inserted, "sampled": self.sampled}

    def restore(self, state: dict[str, float]) -> None:
        """Continue from `state`; with a changed ratio, as if it had applied from the start.

        After a ratio of 0 the counts start balanced, because a free-running learner's lead or lag
        has no meaning.
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
