"""The learner's feed: batches drawn over all shards by mass, asked for ahead of time, priorities
riding back.

A *round* is a few batches asked for at once: one call to each shard instead of one a batch (a
call costs 0.5 to 0.8 ms). Two rounds are in flight, so that the next one travels while the last
is learned from.

Where the learner stands decides how frames come, and nobody has to choose: on the shard's node
it reads the shard's memory, or keeps a copy of it on its device; elsewhere, or where the shard
keeps them compressed, each frame comes once, compressed (`wire.py`).
"""

import time
from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, field, replace

import numpy as np
import ray
import torch
from ray.exceptions import RayError, RayTaskError

from genray.distributed.compression_choice import Wire
from genray.distributed.messages import Published, Reply, Request, ShardCounts
from genray.distributed.shared_frames import AttachedFrames
from genray.rl.agent import split_by_mass
from genray.rl.chunk import PlacedSample, SlicedSample
from genray.rl.device_frames import DeviceFrames, room
from genray.rl.frame_store import unpack
from genray.rl.limiter import SamplesPerInsert
from genray.rl.transfer import AnySample, DeviceSample, empty_sample

ROUNDS_IN_FLIGHT = 2
POLL_S = 0.05


@dataclass
class _Peer:
    """What the feed knows of one shard."""

    actor: ray.actor.ActorHandle
    counts: ShardCounts | None = None
    """The last that it told."""
    frames: AttachedFrames | None = None
    """The shard's memory, where it is on this node."""
    frames_of: int | None = None
    """The incarnation for which that has been tried."""
    copy: DeviceFrames | None = None
    """What of it is on the learner's device."""
    written_off: ShardCounts | None = None
    """What it held when it was given up for dead without having come back."""
    down: bool = False
    down_until: float = 0.0
    keys: list[np.ndarray] = field(default_factory=list)
    deltas: list[np.ndarray] = field(default_factory=list)

    @property
    def total(self) -> float:
        return self.counts.total if self.counts and not self.down else 0.0

    @property
    def size(self) -> int:
        return self.counts.size if self.counts and not self.down else 0

    @property
    def may_pack(self) -> bool:
        """Its frames have to travel, and lie there as they are."""
        return self.frames is None and self.counts is not None and self.counts.address is not None


@dataclass
class Batch:
    """One batch and where its parts came from, so that priorities find their way back."""

    sample: AnySample
    parts: list[tuple[int, int, int]]
    """(shard, its incarnation, rows)"""


@dataclass
class _Round:
    counts_MU: np.ndarray  # transitions of each shard for each of the round's batches
    shares: list[float]
    replies: dict[int, ray.ObjectRef]
    packed: bool | None
    """Whether frames that lie as they are on another node come compressed; None: there are none
    such.
    """


class Feed:
    """Batches from M shards. Iterating never blocks for long: `next_round` answers None while
    there is nothing to learn.
    """

    def __init__(
        self,
        shards: list[ray.actor.ActorHandle],
        limiter: SamplesPerInsert,
        batch_size: int,
        rng: np.random.Generator,
        round_batches: int | None = None,
        *,
        epoch: int = 0,
        learners: int = 1,
        leads: bool = True,
        device: str | torch.device = "cpu",
        frames_on: str = "host",
    ):
        """`learners` draw as much as this one, at the same time, under one limiter; the one that
        leads tells the shards the limit and the weights. `epoch`: this life of the learners.
        `device`, `frames_on`: where the learner works, and where its batches are put together
        (see LearnerConfig).
        """
        self._epoch, self._learners, self._leads = epoch, learners, leads
        self._device, self._frames_on = torch.device(device), frames_on
        self._peers = [_Peer(shard) for shard in shards]
        self.limiter, self._batch_size, self._rng = limiter, batch_size, rng
        self.batches_per_round = round_batches or batches_per_round(batch_size)
        self._rounds: deque[_Round] = deque()
        self.lost_transitions = 0
        self.events: list[str] = []
        self.updates = 0
        self.published: Published | None = None
        self._wire = Wire()

    @property
    def size(self) -> int:
        return sum(peer.size for peer in self._peers)

    @property
    def weight_lag(self) -> float:
        lags = [peer.counts.weight_lag for peer in self._peers if peer.counts]
        return float(np.mean(lags)) if lags else 0.0

    @property
    def _round_samples(self) -> int:
        """Of all learners together."""
        return self._batch_size * self.batches_per_round * self._learners

    @property
    def idle(self) -> bool:
        """Nothing is in flight and nothing more may be drawn."""
        return not self._rounds and not self._may_draw()

    def in_flight_samples(self) -> int:
        return self._learners * sum(int(round_.counts_MU.sum()) for round_ in self._rounds)

    def next_round(self) -> list[Batch] | None:
        """The next round's batches; None when samples per insert allows none yet (after waiting
        up to POLL_S).
        """
        while len(self._rounds) < ROUNDS_IN_FLIGHT and self._may_draw():
            self._launch()
        if self._rounds:
            return self._land(self._rounds.popleft())
        self._poll()
        return None

    def _may_draw(self) -> bool:
        # Any size will do, since draws are with replacement: asking for more than the limiter does
        # could wait for ever.
        return self.limiter.sample_room() >= self._round_samples and self.size > 0

    def _launch(self) -> None:
        split = [split_by_mass(self._batch_size, [peer.total for peer in self._peers], self._rng)
                 for _ in range(self.batches_per_round)]  # fmt: skip
        counts_MU = np.array([counts for counts, _ in split]).T
        self.limiter.sampled += self._round_samples
        packed = self._wire.choose() if any(peer.may_pack for peer in self._peers) else None
        # Every shard is told its limit with every round, also one that has nothing to give: it may
        # have just restarted.
        now = time.monotonic()
        replies = {
            index: peer.actor.sample.remote(
                self._request(peer, tuple(counts_MU[index].tolist()), packed)
            )
            for index, peer in enumerate(self._peers)
            if counts_MU[index].any() or now >= peer.down_until
        }
        self._rounds.append(_Round(counts_MU, split[0][1], replies, packed))

    def _request(
        self, peer: _Peer, counts: tuple[int, ...] = (), packed: bool | None = None
    ) -> Request:
        """Whatever the shard has to know, with the priorities that have gathered for it."""
        keys, deltas, peer.keys, peer.deltas = peer.keys, peer.deltas, [], []
        # Room for inserts is shared equally: limits are absolute counts, so a repeated or reordered
        # one does no harm.
        room = self.limiter.insert_room() / len(self._peers)
        return Request(
            counts=counts,
            places=peer.frames is not None,
            packed=packed is not False,
            key_B=np.concatenate(keys) if keys else np.empty(0, np.int64),
            delta_B=np.concatenate(deltas) if deltas else np.empty(0, np.float32),
            insert_limit=(peer.counts.inserted if peer.counts else 0) + room
            if self._leads
            else None,
            updates=self.updates,
            published=self.published,
            epoch=self._epoch,
        )

    def _land(self, round_: _Round) -> list[Batch]:
        """Wait for a round and join its parts; a round that a dead shard was part of is given up
        whole.
        """
        replies: dict[int, Reply] = {}
        asked = time.monotonic()
        for index, reference in round_.replies.items():
            try:
                reply: Reply = ray.get(reference)
            except RayTaskError:
                raise  # a fault of the shard's code, which a restart would only repeat
            except RayError:
                self._mark_down(index)
                continue
            self._note(index, reply.counts)
            lost = self._peers[index].frames is None and isinstance(reply.drawn, PlacedSample)
            if reply.drawn is not None and not lost:
                replies[index] = reply
        if round_.packed is not None:
            self._wire.note(round_.packed, time.monotonic() - asked)
        if any(index not in replies for index in np.flatnonzero(round_.counts_MU.any(axis=1))):
            self.limiter.sampled -= self._learners * int(round_.counts_MU.sum())
            return []
        drawn = {index: reply.drawn for index, reply in replies.items() if reply.drawn is not None}
        ends_MU = round_.counts_MU.cumsum(axis=1)
        starts_MU = ends_MU - round_.counts_MU
        batches = []
        # One gather for the whole round: at 32 transitions a batch, calls cost as much as their
        # work.
        if len(drawn) == 1:
            [index] = drawn
            sample, whole_B = self._gather(drawn, round_.shares)
            for start, end in zip(starts_MU[index], ends_MU[index]):
                sizes = {index: int(end - start)}
                batches.append(
                    self._batch(sample.rows(slice(start, end)), whole_B[start:end], sizes, replies)
                )
            return self._not_empty(batches)
        for starts_M, ends_M in zip(starts_MU.T, ends_MU.T):
            parts = {
                index: draw.rows(slice(starts_M[index], ends_M[index]))
                for index, draw in drawn.items()
            }
            parts = {index: part for index, part in parts.items() if part.size}
            sample, whole_B = self._gather(parts, round_.shares)
            batches.append(
                self._batch(
                    sample, whole_B, {index: part.size for index, part in parts.items()}, replies
                )
            )
        return self._not_empty(batches)

    def _not_empty(self, batches: list[Batch]) -> list[Batch]:
        """Without those of which nothing is whole: they will be drawn again."""
        filled = [batch for batch in batches if batch.sample.size]
        self.limiter.sampled -= self._learners * self._batch_size * (len(batches) - len(filled))
        return filled

    def _gather(
        self, drawn: dict[int, PlacedSample | SlicedSample], shares: list[float]
    ) -> tuple[AnySample, np.ndarray]:
        """Put what was drawn together, from the shards' memory or from the slices that came;
        bool [B]: what is whole.

        Not whole is what was overwritten meanwhile.
        """
        layout = next(peer.counts.layout for peer in self._peers if peer.counts)
        count = sum(draw.size for draw in drawn.values())
        sample = room(count, layout, self._device, self._frames_on)
        whole_B = np.ones(count, bool)
        start = 0
        for index, draw in drawn.items():
            here = slice(start, start + draw.size)
            part = sample.rows(here)
            if isinstance(draw, PlacedSample):
                whole_B[here] = self._read(self._peers[index], draw, part)
            elif isinstance(part, DeviceSample):
                host = empty_sample(draw.size, layout, self._device)
                unpack(draw, layout, host)
                part.fill(host)
            else:
                unpack(draw, layout, part)
            part.probability_B[:] *= shares[index]
            start += draw.size
        return sample, whole_B

    def _read(self, peer: _Peer, placed: PlacedSample, out: AnySample) -> np.ndarray:
        """Fill `out` from the shard's memory, or what is on the device of it; bool [B]: what is
        whole.
        """
        frames = peer.frames
        assert frames is not None, "_land leaves out what cannot be read"
        if not isinstance(out, DeviceSample):
            return frames.gather(placed, out)
        if peer.copy is None:
            peer.copy = DeviceFrames(frames.layout, frames.frame_LCP, self._device)
        peer.copy.gather(placed, out)
        return frames.still_there(placed)

    def _batch(
        self,
        sample: AnySample,
        whole_B: np.ndarray,
        sizes: dict[int, int],
        replies: dict[int, Reply],
    ) -> Batch:
        """A batch of what is whole; it may be a little smaller than it was asked for."""
        parts, start = [], 0
        for index, size in sizes.items():
            whole = int(np.count_nonzero(whole_B[start : start + size]))
            parts.append((index, replies[index].counts.incarnation, whole))
            start += size
        return Batch(sample if whole_B.all() else sample.rows(whole_B), parts)

    def send_back(self, batch: Batch, delta_B: np.ndarray) -> None:
        """Keep a batch's new |δ| for the next request to the shards that it came from."""
        start = 0
        for index, incarnation, rows in batch.parts:
            peer = self._peers[index]
            if peer.counts and peer.counts.incarnation == incarnation:
                peer.keys.append(batch.sample.key_B[start : start + rows])
                peer.deltas.append(delta_B[start : start + rows])
            start += rows

    def _poll(self) -> None:
        """Tell every shard its limit and wait a moment for inserts."""
        now = time.monotonic()
        missing = self.limiter.inserts_needed(self._round_samples) / len(self._peers)
        waiting = {}
        for index, peer in enumerate(self._peers):
            if now >= peer.down_until:
                until = (peer.counts.inserted if peer.counts else 0) + int(np.ceil(missing))
                waiting[peer.actor.wait_for.remote(self._request(peer), until, POLL_S)] = index
        if not waiting:
            time.sleep(POLL_S)
        for reference, index in waiting.items():
            try:
                self._note(index, ray.get(reference))
            except RayTaskError:
                raise
            except RayError:
                self._mark_down(index)

    def refresh(self, absent: Collection[int] = ()) -> None:
        """Learn where all shards stand, and tell them limit and weights, without waiting for
        inserts.

        Those that are `absent`, by the coordinator's word, are given up: what they held counts
        as lost.
        """
        for index, peer in enumerate(self._peers):
            if index in absent:
                self._write_off(index)
            else:
                self._note(index, ray.get(peer.actor.wait_for.remote(self._request(peer), 0, 0.0)))

    def adopt(self) -> None:
        """Take the shards' counts as they are after loading a checkpoint: nothing of it is new
        to the limiter.
        """
        inserted = self.limiter.inserted
        for peer in self._peers:
            peer.copy = None  # of frames that have been replaced
        self.refresh()
        self.limiter.inserted = inserted

    def state(self) -> list[ShardCounts | None]:
        """What each shard last told: where a learner that continues from here takes up counting."""
        return [replace(peer.counts, address=None) if peer.counts else None for peer in self._peers]

    def restore(self, state: list[ShardCounts | None]) -> None:
        """Continue from `state`: what the shards took in since then, or lost, is noticed at the
        next `refresh`.
        """
        for peer, counts in zip(self._peers, state, strict=True):
            peer.counts = counts

    def _note(self, index: int, counts: ShardCounts) -> None:
        peer = self._peers[index]
        before, peer.down = peer.counts, False
        if (gone := peer.written_off) is not None:
            peer.written_off = None
            if gone.incarnation == counts.incarnation:  # it was only out of reach
                self.lost_transitions -= gone.size
                before = gone
        if before and before.incarnation != counts.incarnation:
            self._lose(index, before.size)
            before = None
        if before is None or counts.inserted >= before.inserted:  # replies may overtake each other
            self.limiter.inserted += counts.inserted - (before.inserted if before else 0)
            peer.counts = counts
        if peer.frames_of != counts.incarnation:
            peer.frames = AttachedFrames.attach(counts.address) if counts.address else None
            peer.frames_of, peer.copy = counts.incarnation, None

    def _mark_down(self, index: int) -> None:
        """Ask no more of a shard for a while. Whether its transitions are lost shows when it
        answers again.
        """
        peer = self._peers[index]
        peer.down, peer.down_until = True, time.monotonic() + 0.5
        # a dead shard's memory is freed when nobody maps it any more
        peer.frames, peer.frames_of = None, None
        peer.copy = None

    def _write_off(self, index: int) -> None:
        self._mark_down(index)
        if (counts := self._peers[index].counts) is not None:
            self._lose(index, counts.size, "does not come back")
            self._peers[index].written_off = counts

    def _lose(self, index: int, size: int, what: str = "died") -> None:
        peer = self._peers[index]
        peer.counts, peer.keys, peer.deltas = None, [], []
        self.lost_transitions += size
        self.limiter.lose(size, remaining=self.size)
        self.events.append(
            f"replay shard {index} {what}: {size:,} transitions lost; it restarts empty and refills"
        )


def batches_per_round(batch_size: int) -> int:
    """Batches asked for in one call: small batches are bound by calls, large ones by bytes."""
    return max(1, 128 // batch_size)
