"""Keeps the learner's record of each replay shard: the shard's counts, and access to its frames.

A shard may die and restart empty, or not be reachable for a while. The records recognise both cases
from the shard's answers, correct the limiter, and count the lost transitions.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import ray

from genray.distributed.messages import ShardCounts
from genray.distributed.shared_frames import AttachedFrames
from genray.rl.device_frames import DeviceFrames
from genray.rl.limiter import SamplesPerInsert


@dataclass
class ShardRecord:
    """What the learner knows about one shard."""

    actor: ray.actor.ActorHandle
    counts: ShardCounts | None = None
    """The shard's last counts; None before its first answer, and after it has lost its data."""
    frames: AttachedFrames | None = None
    """The shard's frames, if this process can read the shard's memory."""
    frames_of: int | None = None
    """The incarnation of the shard for which `frames` was set."""
    copy: DeviceFrames | None = None
    """The copy of `frames` on the learner's device."""
    written_off: ShardCounts | None = None
    """The last counts of a shard that was given up as dead and has not answered since."""
    down: bool = False
    """Whether the last call to the shard failed."""
    down_until: float = 0.0
    """Time (`time.monotonic`) at which the shard gets the next request, if it is down."""
    keys: list[np.ndarray] = field(default_factory=list)
    """Keys of transitions whose new priorities have not been sent to the shard yet."""
    deltas: list[np.ndarray] = field(default_factory=list)
    """The new |δ| of these transitions."""

    @property
    def total(self) -> float:
        """The shard's total priority; 0 while it is down."""
        return self.counts.total if self.counts and not self.down else 0.0

    @property
    def size(self) -> int:
        """The shard's number of transitions; 0 while it is down."""
        return self.counts.size if self.counts and not self.down else 0

    @property
    def may_pack(self) -> bool:
        """Whether the shard's frames are sent to the learner and are stored uncompressed. Such
        frames may be compressed before they are sent.
        """
        return self.frames is None and self.counts is not None and self.counts.address is not None


class ShardRecords:
    """The records of all M shards, by index.

    Args:
        shards: handles of the shard actors.
        limiter: the learner's limiter, whose inserts are kept up to date.
    """

    def __init__(self, shards: list[ray.actor.ActorHandle], limiter: SamplesPerInsert):
        self._records = [ShardRecord(shard) for shard in shards]
        self._limiter = limiter
        self.lost_transitions = 0
        self.events: list[str] = []
        """One message for each lost shard, for the user."""

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[ShardRecord]:
        return iter(self._records)

    def __getitem__(self, index: int) -> ShardRecord:
        return self._records[index]

    @property
    def size(self) -> int:
        """Number of transitions in all shards that are not down."""
        return sum(record.size for record in self)

    @property
    def weight_lag(self) -> float:
        """Mean over the shards of `ShardCounts.weight_lag`, in updates."""
        lags = [record.counts.weight_lag for record in self if record.counts]
        return float(np.mean(lags)) if lags else 0.0

    def state(self) -> list[ShardCounts | None]:
        """Return each shard's last counts, from which the records of a new learner continue."""
        return [replace(record.counts, address=None) if record.counts else None for record in self]

    def restore(self, state: list[ShardCounts | None]) -> None:
        """Continue from `state`. The shards' next answers then show later inserts and losses."""
        for record, counts in zip(self, state, strict=True):
            record.counts = counts

    def note(self, index: int, counts: ShardCounts) -> None:
        """Update a shard's record and the limiter from `counts`, an answer of the shard."""
        record = self[index]
        before, record.down = record.counts, False
        if (gone := record.written_off) is not None:
            record.written_off = None
            if gone.incarnation == counts.incarnation:  # the shard was only unreachable
                self.lost_transitions -= gone.size
                before = gone
        if before and before.incarnation != counts.incarnation:
            # Another incarnation: the shard died, and its transitions are lost.
            self._lose(index, before.size)
            before = None
        if before is None or counts.inserted >= before.inserted:  # replies may arrive out of order
            self._limiter.inserted += counts.inserted - (before.inserted if before else 0)
            record.counts = counts
        if record.frames_of != counts.incarnation:
            # Open the shard's memory once per incarnation.
            record.frames = AttachedFrames.attach(counts.address) if counts.address else None
            record.frames_of, record.copy = counts.incarnation, None

    def mark_down(self, index: int) -> None:
        """Mark a shard whose call failed, and send it no requests for 0.5 s.

        The shard's next answer shows whether its data are lost.
        """
        record = self[index]
        record.down, record.down_until = True, time.monotonic() + 0.5
        # Do not keep the memory open, because a dead shard's memory is freed only when no process
        # maps it.
        record.frames, record.frames_of = None, None
        record.copy = None

    def write_off(self, index: int) -> None:
        """Count the transitions of a shard that does not answer as lost."""
        self.mark_down(index)
        if (counts := self[index].counts) is not None:
            self._lose(index, counts.size, "does not come back")
            self[index].written_off = counts

    def _lose(self, index: int, size: int, what: str = "died") -> None:
        record = self[index]
        record.counts, record.keys, record.deltas = None, [], []
        self.lost_transitions += size
        self._limiter.lose(size, remaining=self.size)
        self.events.append(
            f"replay shard {index} {what}: {size:,} transitions lost; it restarts empty and refills"
        )
