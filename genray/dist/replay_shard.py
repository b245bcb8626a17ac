"""A replay shard as a Ray actor: an event loop around `rl.replay.ReplayShard`.

Every method is a coroutine on one thread, so the shard itself needs no locks; only `add` and `wait_for` ever wait.
"""

import asyncio
import contextlib
import secrets
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np

from genray.dist.messages import Published, Reply, Request, ShardCounts
from genray.dist.shared_frames import SharedFrames
from genray.rl.chunk import Chunk, PlacedSample, SlicedSample
from genray.rl.replay import ReplayConfig, ReplayShard, ShardLayout


class ReplayShardActor:
    """One shard. It may accept `insert_limit` transitions, which the learner raises with every request."""

    def __init__(self, config: ReplayConfig, layout: ShardLayout, seed: tuple[int, ...]):
        self._shared = SharedFrames(layout) if config.replay_store == "raw" else None
        self._shard = ReplayShard(config, layout, seed=np.random.SeedSequence(seed), frames=self._shared)
        self._incarnation = secrets.randbits(62)
        self._insert_limit = 0.0
        self._admits_all = False
        self._published: Published | None = None
        self._updates = 0
        self._lags: deque[int] = deque(maxlen=64)
        self._changed = asyncio.Condition()

    async def add(self, chunk: Chunk) -> Published | None:
        """Accept a chunk, as soon as there is room for it; answers with the newest weights."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._admits_all or self._shard.inserted < self._insert_limit)
            self._shard.add(chunk)
            self._lags.append(self._updates - chunk.weight_version)
            self._changed.notify_all()
        return self._published

    async def admit(self, everything: bool) -> None:
        """Accept chunks beyond the limit, or no longer: before a checkpoint, what is on its way has to arrive.

        Only the chunks already made come in, and the learner catches up with them later.
        """
        async with self._changed:
            self._admits_all = everything
            self._changed.notify_all()

    async def published(self) -> Published | None:
        return self._published

    async def sample(self, request: Request) -> Reply:
        """Take in priorities, limit and weights; answer with the batches' parts."""
        await self._take_in(request)
        count = sum(request.counts)
        drawn: PlacedSample | SlicedSample | None = None
        if count and self._shard.total > 0:
            shuffled = len(request.counts) > 1
            if request.places and self._shared:
                drawn = self._shard.sample_places(count, shuffled=shuffled)
            else:
                drawn = self._shard.sample_slices(count, packed=request.packed, shuffled=shuffled)
        return Reply(counts=self._counts(), drawn=drawn)

    async def wait_for(self, request: Request, inserted: int, timeout_s: float) -> ShardCounts:
        """Answer when this shard has accepted `inserted` transitions in all, or after `timeout_s`."""
        await self._take_in(request)
        async with self._changed:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(
                    self._changed.wait_for(lambda: self._shard.inserted >= inserted), timeout=timeout_s
                )
        return self._counts()

    async def _take_in(self, request: Request) -> None:
        if len(request.key_B):
            self._shard.update(request.key_B, request.delta_B)
        if request.published is not None:
            self._published = request.published
        self._updates = request.updates
        if request.insert_limit != self._insert_limit:
            async with self._changed:
                self._insert_limit = request.insert_limit
                self._changed.notify_all()

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
        return self._counts()

    async def stats(self) -> dict[str, Any]:
        """Counts for people and tests."""
        return {name: value for name, value in vars(self._counts()).items() if name not in ("layout", "address")}

    async def heads(self) -> dict[int, int]:
        """Rows written so far for each collector."""
        return self._shard.heads()

    async def save(self, folder: str) -> dict[str, Any]:
        return self._shard.save(Path(folder))

    async def load(self, folder: str, state: dict[str, Any]) -> None:
        self._shard.load(Path(folder), state)
