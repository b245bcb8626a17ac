"""Decides which writers a shard accepts: only the latest incarnation of each collector and of
the learners.

The actors of a host that was cut off from the network keep running. When the network is back,
they try to write to the same shards as their replacements. The coordinator therefore keeps an
*epoch*, a number, for each collector and one for all learners, and increases it when the actor is
replaced. A shard refuses every writer whose epoch is older than the newest one it knows (a fencing
token: Kleppmann 2016, https://martin.kleppmann.com/2016/02/08/how-to-do-distributed-locking.html).
"""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Epochs:
    """The current epochs, as the coordinator broadcasts them: one per collector, one for all
    learners.
    """

    collectors: dict[int, int]
    learner: int


class Fence:
    """Holds one shard's epochs. An epoch never decreases, even if messages arrive late or twice.

    Args:
        sources: the collectors that write to this shard.
        has_epochs: False for a restarted shard, which does not know the current epochs.
    """

    def __init__(self, sources: Iterable[int], has_epochs: bool = True):
        self._epoch = dict.fromkeys(sources, 0)
        self._owner: dict[int, int] = {}  # the incarnation whose chunks are accepted
        self.learner = 0
        self.has_epochs = has_epochs
        """False after a restart, when the shard knows no epochs. The shard accepts no chunks until
        the coordinator's next broadcast. It answers learners, because it has nothing to lose.
        """
        self.refused = 0
        """Number of refused writes of stale incarnations: chunks, and learners' requests with
        priorities or weights.
        """

    def receive(self, epochs: Epochs) -> None:
        """Take over the epochs of the coordinator's broadcast."""
        for source, epoch in epochs.collectors.items():
            if source in self._epoch:
                self._raise(source, epoch)
        self.learner = max(self.learner, epochs.learner)
        self.has_epochs = True

    def enter(self, source: int, incarnation: int) -> None:
        """Register a collector's new incarnation before its first chunk; refuse its predecessor.

        Without this call, the predecessor could write until the coordinator notices the restart.
        """
        self._owner[source] = incarnation

    def accepts_chunk(self, source: int, epoch: int, incarnation: int) -> bool:
        """Return whether this incarnation of a collector may write.

        An epoch newer than any known one is accepted, because only the coordinator assigns
        epochs. Of two incarnations in one epoch, the one that entered last may write.
        """
        if epoch >= self._epoch[source]:
            self._raise(source, epoch)
            if self._owner.setdefault(source, incarnation) == incarnation:
                return True
        self.refused += 1
        return False

    def accepts_learner(self, epoch: int, writes: bool) -> bool:
        """Return whether this learner may sample, and set priorities and weights.

        `writes`: the request would change the shard, so a refusal is counted.
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
