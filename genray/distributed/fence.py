"""Which writers a shard listens to: of each collector, and of the learners, the latest life alone.

A host that was cut off keeps its actors running, and they go on writing when the cable is back,
beside the replacements that Ray has started meanwhile. Every life therefore has an *epoch*, a
number that only grows, given by the coordinator; a shard refuses whoever is older than the
newest epoch that it has heard of (a fencing token: Kleppmann 2016,
https://martin.kleppmann.com/2016/02/08/how-to-do-distributed-locking.html).
"""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Epochs:
    """The epochs in force, as the coordinator tells them."""

    collectors: dict[int, int]
    learner: int


class Fence:
    """One shard's view. Epochs never fall here, whatever arrives late or twice."""

    def __init__(self, sources: Iterable[int], told: bool = True):
        """`sources`: the collectors that write to this shard. `told`: no epoch has been raised
        yet, so that none is missed.
        """
        self._epoch = dict.fromkeys(sources, 0)
        self._owner: dict[int, int] = {}  # the incarnation whose chunks count
        self.learner = 0
        self.told = told
        """False: a shard that has just restarted knows no epochs; nobody may be let in until the
        coordinator has spoken.
        """
        self.refused = 0
        """Writes of stale lives that were turned away: chunks, and learners' requests with
        priorities or weights.
        """

    def tell(self, epochs: Epochs) -> None:
        """The coordinator's word."""
        for source, epoch in epochs.collectors.items():
            if source in self._epoch:
                self._raise(source, epoch)
        self.learner = max(self.learner, epochs.learner)
        self.told = True

    def enter(self, source: int, incarnation: int) -> None:
        """A collector's new life announces itself, once and before anything else: its
        predecessor writes no more.

        This closes the time between Ray's restart and the coordinator's notice of it.
        """
        self._owner[source] = incarnation

    def admits_chunk(self, source: int, epoch: int, incarnation: int) -> bool:
        """May this life of a collector write? A newer epoch than any heard of is believed: only
        the coordinator gives one.

        Of two lives in one epoch, the one that entered last counts.
        """
        if epoch >= self._epoch[source]:
            self._raise(source, epoch)
            if self._owner.setdefault(source, incarnation) == incarnation:
                return True
        self.refused += 1
        return False

    def admits_learner(self, epoch: int, writes: bool) -> bool:
        """May this learner draw, and set priorities and weights? `writes`: the request would
        change something.
        """
        if epoch >= self.learner:
            self.learner = epoch
            return True
        self.refused += writes
        return False

    def _raise(self, source: int, epoch: int) -> None:
        if epoch > self._epoch[source]:
            self._epoch[source] = epoch
            self._owner.pop(source, None)
