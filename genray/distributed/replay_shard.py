"""Runs a replay shard as a Ray actor: a `rl.replay.ReplayShard` with asynchronous methods.

All methods are coroutines on one thread, so the data of the shard need no lock. Only `add` and
`wait_for` wait for other calls.
"""

import asyncio
import contextlib
import secrets
from collections import deque
from typing import Any

import numpy as np
import ray

from genray.distributed.fence import Epochs, Fence
from genray.distributed.ledger import Ledger
from genray.distributed.messages import Published, Receipt, Reply, Request, ShardCounts
from genray.distributed.shared_frames import SharedFrames
from genray.rl.chunk import Chunk, PlacedSample, SlicedSample
from genray.rl.replay import ReplayConfig, ReplayShard, ShardLayout
from genray.runs.storage import as_place, reading, writing


class ReplayShardActor:
    """Stores the transitions of one shard and returns samples of them.

    The learner's requests set how many transitions the shard may accept; further chunks wait. The
    shard accepts only the latest incarnation of each collector and of the learners. After a restart
    it accepts no chunks until the coordinator has sent the current epochs (fence.py).

    Args:
        config: the kind of store, and the exponents of priorities.
        layout: the shard's size and shapes.
        seed: the entropy of the shard's random numbers; its last number is the shard's index.
        ledger: a directory that records chunks, for tests; None: no record.
    """

    def __init__(
        self,
        config: ReplayConfig,
        layout: ShardLayout,
        seed: tuple[int, ...],
        ledger: str | None = None,
    ):
        self._shared = SharedFrames(layout) if config.replay_store == "raw" else None
        self._shard = ReplayShard(
            config, layout, seed=np.random.SeedSequence(seed), frames=self._shared
        )
        self._incarnation = secrets.randbits(62)
        self._insert_limit = 0.0
        self._admits_all = False
        # All epochs are 0 when the run starts. A restarted shard has to wait for the broadcast.
        self._fence = Fence(
            layout.sources, has_epochs=not ray.get_runtime_context().was_current_actor_reconstructed
        )
        self._hurried: set[int] = set()  # incarnations of collectors that are about to leave
        self._ledger = Ledger(ledger, f"shard-{seed[-1]}")
        self._published: Published | None = None
        self._updates = 0
        self._lags: deque[int] = deque(maxlen=64)
        self._changed = asyncio.Condition()

    async def add(self, chunk: Chunk, epoch: int = 0) -> Receipt:
        """Store a chunk as soon as the limit allows it, unless its collector is stale.

        A chunk that is sent twice is stored once.
        """
        async with self._changed:
            await self._changed.wait_for(lambda: self._fence.has_epochs and self._may_insert(chunk))
            # Check this after the wait, because the collector's incarnation may have become stale
            # while its chunk waited.
            accepted = self._fence.accepts_chunk(chunk.source, epoch, chunk.incarnation)
            fate = "refused"
            if accepted:
                known = self._shard.heads()[chunk.source]
                self._shard.add(chunk)
                fate = "stored" if self._shard.heads()[chunk.source] > known else "duplicate"
                self._lags.append(max(0, self._updates - chunk.weight_version))
                self._changed.notify_all()
            self._ledger.chunk(fate, chunk, epoch, life=self._incarnation)
        return Receipt(accepted=accepted, published=self._published)

    def _may_insert(self, chunk: Chunk) -> bool:
        return (
            self._admits_all
            or self._shard.inserted < self._insert_limit
            or chunk.incarnation in self._hurried
        )

    async def enter(self, source: int, incarnation: int) -> Published | None:
        """Register a collector's new incarnation, so that chunks of its earlier ones are refused.

        Returns the newest weights; None if the learner has not published any.
        """
        self._fence.enter(source, incarnation)
        return self._published

    async def accept_leaving(self, incarnation: int) -> None:
        """Accept chunks of a collector that has to stop, even beyond the limit."""
        async with self._changed:
            self._hurried.add(incarnation)
            self._changed.notify_all()

    async def set_epochs(self, epochs: Epochs) -> tuple[int, int]:
        """Receive the coordinator's epochs; return (this shard's incarnation, the number of writes
        that it has refused).
        """
        async with self._changed:
            self._fence.receive(epochs)
            self._changed.notify_all()
        return self._incarnation, self._fence.refused

    async def accept_beyond_limit(self, everything: bool) -> None:
        """Accept all chunks even beyond the limit if `everything`; otherwise keep the limit again.

        Before a checkpoint, all chunks in flight have to arrive. As the coordinator starts no new
        chunks meanwhile, the limit is exceeded by few chunks, and the learner catches up later.
        """
        async with self._changed:
            self._admits_all = everything
            self._changed.notify_all()

    async def published(self) -> Published | None:
        """Return the newest weights; None if the learner has not published any."""
        return self._published

    async def sample(self, request: Request) -> Reply:
        """Apply the request's priorities, limit and weights; return the requested transitions."""
        current = await self._apply(request)
        count = sum(request.counts)
        drawn: PlacedSample | SlicedSample | None = None
        if current and count and self._shard.total > 0:
            shuffled = len(request.counts) > 1
            if request.returns:
                self._shard.returns = request.returns
            if request.places and self._shared:
                drawn = self._shard.sample_places(count, shuffled=shuffled)
            else:
                drawn = self._shard.sample_slices(count, packed=request.packed, shuffled=shuffled)
        return Reply(counts=self._counts(), drawn=drawn)

    async def wait_for(self, request: Request, inserted: int, timeout_s: float) -> ShardCounts:
        """Apply the request; then wait until this shard has accepted `inserted` transitions since
        its start, or for `timeout_s`. Returns the shard's counts.
        """
        await self._apply(request)
        async with self._changed:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(
                    self._changed.wait_for(lambda: self._shard.inserted >= inserted),
                    timeout=timeout_s,
                )
        return self._counts()

    async def _apply(self, request: Request) -> bool:
        """Apply a request's priorities, weights and limit; return True.

        A request of a stale learner is not applied; the method then returns False.
        """
        if not self._fence.accepts_learner(
            request.epoch, len(request.key_B) > 0 or request.published is not None
        ):
            return False
        if len(request.key_B):
            self._shard.update(request.key_B, request.delta_B)
        if request.published is not None:
            self._published = request.published
        self._updates = request.updates
        if request.insert_limit is not None and request.insert_limit != self._insert_limit:
            async with self._changed:
                self._insert_limit = request.insert_limit
                self._changed.notify_all()
        return True

    def _counts(self) -> ShardCounts:
        return ShardCounts(
            incarnation=self._incarnation,
            inserted=self._shard.inserted,
            size=self._shard.size,
            total=self._shard.total,
            weight_lag=float(np.mean(self._lags)) if self._lags else 0.0,
            nbytes=self._shard.nbytes,
            layout=self._shard.layout,
            address=self._shared.address if self._shared else None,
        )

    async def counts(self) -> ShardCounts:
        """Return the shard's counts."""
        return self._counts()

    async def stats(self) -> dict[str, Any]:
        """Return the counts as a dictionary, for users and tests."""
        return {
            name: value
            for name, value in vars(self._counts()).items()
            if name not in ("layout", "address")
        }

    async def heads(self) -> dict[int, int]:
        """Return {collector: number of rows written so far in each of its lanes}."""
        return self._shard.heads()

    async def save(self, folder: str) -> dict[str, Any]:
        """Write the shard's arrays into `folder`; return the rest of its state as JSON values."""
        with writing(as_place(folder)) as local:
            return self._shard.save(local)

    async def load(self, folder: str, state: dict[str, Any]) -> None:
        """Continue from the arrays that `save` wrote and the state that it returned."""
        with reading(as_place(folder)) as local:
            self._shard.load(local, state)
