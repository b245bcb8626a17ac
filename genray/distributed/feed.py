"""Delivers batches to the learner: sampled over all shards in proportion to their total priority,
requested ahead of time, with new priorities sent back.

A *round* is a few batches requested at once: one call to each shard instead of one per batch (a
call costs 0.5 to 0.8 ms). Two rounds are in flight, so that the next round travels while the
learner uses the last one.

How frames reach the learner depends on its node, without any option. On the shard's node the
learner reads the shard's memory, or keeps a copy of this memory on its device. From another node,
and from a shard that stores frames compressed, each frame is sent once: compressed, or as
`compression_choice` decides.
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
from genray.rl.device_frames import DeviceFrames, empty_batch
from genray.rl.frame_store import unpack
from genray.rl.limiter import SamplesPerInsert
from genray.rl.transfer import AnySample, DeviceSample, empty_sample

ROUNDS_IN_FLIGHT = 2  # one in transit while the learner uses the other
POLL_S = 0.05  # how long a call waits for inserts when no batch may be sampled


@dataclass
class _Peer:
    """The feed's record of one shard."""

    actor: ray.actor.ActorHandle
    counts: ShardCounts | None = None
    """The shard's last answer."""
    frames: AttachedFrames | None = None
    """The shard's memory, if the shard is on this node."""
    frames_of: int | None = None
    """The shard's incarnation for which `frames` was last opened, or found to be out of reach."""
    copy: DeviceFrames | None = None
    """The copy of `frames` on the learner's device."""
    written_off: ShardCounts | None = None
    """The counts of a shard that was given up as dead and has not answered since."""
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
        """Whether the shard's frames have to travel, and are stored uncompressed."""
        return self.frames is None and self.counts is not None and self.counts.address is not None


@dataclass
class Batch:
    """One batch, and the shards that its rows came from, so that priorities can be sent back."""

    sample: AnySample
    parts: list[tuple[int, int, int]]
    """(shard, its incarnation, rows)"""


@dataclass
class _Round:
    counts_MU: np.ndarray  # transitions of each shard for each of the round's batches
    shares: list[float]
    replies: dict[int, ray.ObjectRef]
    packed: bool | None
    """Whether uncompressed frames of another node are compressed in transit; None: no shard has
    such frames.
    """


class Feed:
    """Samples batches from M shards.

    `next_round` never blocks for long: it returns None while the limiter allows no samples.
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
        """`shards`: handles of the M shard actors. `limiter`: keeps samples per insert. `rng`:
        splits a batch over the shards. `round_batches`: batches per round; None: by the batch
        size. `epoch`: the epoch of this incarnation of the learners. `learners`: how many
        learners sample as much as this one, at the same time, under one limiter. `leads`: this
        learner sends the insert limit and the weights to the shards. `device`, `frames_on`:
        where the learner computes, and where its batches are assembled (see LearnerConfig).
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
        """Transitions in all live shards."""
        return sum(peer.size for peer in self._peers)

    @property
    def weight_lag(self) -> float:
        lags = [peer.counts.weight_lag for peer in self._peers if peer.counts]
        return float(np.mean(lags)) if lags else 0.0

    @property
    def _round_samples(self) -> int:
        """Samples of a round, of all learners together."""
        return self._batch_size * self.batches_per_round * self._learners

    @property
    def idle(self) -> bool:
        """Whether nothing is in flight and the limiter allows no further samples."""
        return not self._rounds and not self._may_draw()

    def in_flight_samples(self) -> int:
        """Return the samples of rounds in flight, of all learners together."""
        return self._learners * sum(int(round_.counts_MU.sum()) for round_ in self._rounds)

    def next_round(self) -> list[Batch] | None:
        """Return the next round's batches; None (after up to POLL_S) if the limiter allows none."""
        while len(self._rounds) < ROUNDS_IN_FLIGHT and self._may_draw():
            self._launch()
        if self._rounds:
            return self._land(self._rounds.popleft())
        self._poll()
        return None

    def _may_draw(self) -> bool:
        # Any size above 0 is enough, since sampling is with replacement. Waiting for a larger
        # size than the limiter requires could last forever.
        return self.limiter.samples_allowed() >= self._round_samples and self.size > 0

    def _launch(self) -> None:
        # Split each batch over the shards, in proportion to their total priority.
        split = [split_by_mass(self._batch_size, [peer.total for peer in self._peers], self._rng)
                 for _ in range(self.batches_per_round)]  # fmt: skip
        counts_MU = np.array([counts for counts, _ in split]).T
        # The samples count when they are requested; `_land` takes back those that did not come.
        self.limiter.sampled += self._round_samples
        packed = self._wire.choose() if any(peer.may_pack for peer in self._peers) else None
        # Every shard gets its insert limit with every round, even if the round takes nothing from
        # it: the shard may have just restarted. A shard that was down recently is left out.
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
        """Build a shard's request, with the priorities that have accumulated for the shard."""
        keys, deltas, peer.keys, peer.deltas = peer.keys, peer.deltas, [], []
        # The shards share the allowed inserts equally. Limits are absolute counts, so a repeated
        # or reordered request does no harm.
        allowed = self.limiter.inserts_allowed() / len(self._peers)
        return Request(
            counts=counts,
            places=peer.frames is not None,
            packed=packed is not False,
            key_B=np.concatenate(keys) if keys else np.empty(0, np.int64),
            delta_B=np.concatenate(deltas) if deltas else np.empty(0, np.float32),
            insert_limit=(peer.counts.inserted if peer.counts else 0) + allowed
            if self._leads
            else None,
            updates=self.updates,
            published=self.published,
            epoch=self._epoch,
        )

    def _land(self, round_: _Round) -> list[Batch]:
        """Wait for a round and assemble its batches.

        If a shard that the round sampled from is dead, the whole round is dropped.
        """
        replies: dict[int, Reply] = {}
        asked = time.monotonic()
        # Collect the replies, and update the record of each shard.
        for index, reference in round_.replies.items():
            try:
                reply: Reply = ray.get(reference)
            except RayTaskError:
                raise  # an error in the shard's code: a restart would not help
            except RayError:
                self._mark_down(index)
                continue
            self._note(index, reply.counts)
            # Places are useless if the shard's memory was closed since the request.
            lost = self._peers[index].frames is None and isinstance(reply.drawn, PlacedSample)
            if reply.drawn is not None and not lost:
                replies[index] = reply
        if round_.packed is not None:
            self._wire.note(round_.packed, time.monotonic() - asked)
        if any(index not in replies for index in np.flatnonzero(round_.counts_MU.any(axis=1))):
            # One part is missing: drop the round, and let the limiter allow its samples again.
            self.limiter.sampled -= self._learners * int(round_.counts_MU.sum())
            return []
        drawn = {index: reply.drawn for index, reply in replies.items() if reply.drawn is not None}
        # Batch u of shard m is in rows starts_MU[m, u] to ends_MU[m, u] of the shard's reply.
        ends_MU = round_.counts_MU.cumsum(axis=1)
        starts_MU = ends_MU - round_.counts_MU
        batches = []
        # With one shard, one gather assembles the whole round: for batches of 32 transitions, a
        # call takes as long as its work.
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
        """Drop batches without any whole transition; the limiter allows their samples again."""
        filled = [batch for batch in batches if batch.sample.size]
        self.limiter.sampled -= self._learners * self._batch_size * (len(batches) - len(filled))
        return filled

    def _gather(
        self, drawn: dict[int, PlacedSample | SlicedSample], shares: list[float]
    ) -> tuple[AnySample, np.ndarray]:
        """Assemble transitions from the shards' memory or from the frames that were sent.

        Returns (the sample, bool [B]: which transitions are whole). A transition that the shard
        overwrote meanwhile is not whole.
        """
        layout = next(peer.counts.layout for peer in self._peers if peer.counts)
        count = sum(draw.size for draw in drawn.values())
        sample = empty_batch(count, layout, self._device, self._frames_on)
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
        """Fill `out` from the shard's memory or its copy on the device; bool [B]: what is whole."""
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
        """Make a batch of the whole transitions; it may be smaller than requested."""
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
        """Send every shard its insert limit and wait up to POLL_S for inserts."""
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
        """Read all shards' counts, and send them limit and weights, without waiting for inserts.

        The coordinator found the `absent` shards to be dead: their transitions count as lost.
        """
        for index, peer in enumerate(self._peers):
            if index in absent:
                self._write_off(index)
            else:
                self._note(index, ray.get(peer.actor.wait_for.remote(self._request(peer), 0, 0.0)))

    def adopt(self) -> None:
        """Take over the shards' counts after a checkpoint was loaded; the limiter counts no new
        inserts.
        """
        inserted = self.limiter.inserted
        for peer in self._peers:
            peer.copy = None  # its frames were replaced by those of the checkpoint
        self.refresh()
        self.limiter.inserted = inserted

    def state(self) -> list[ShardCounts | None]:
        """Return each shard's last counts, from which another learner can continue."""
        return [replace(peer.counts, address=None) if peer.counts else None for peer in self._peers]

    def restore(self, state: list[ShardCounts | None]) -> None:
        """Continue from `state`; the next `refresh` counts later inserts and losses."""
        for peer, counts in zip(self._peers, state, strict=True):
            peer.counts = counts

    def _note(self, index: int, counts: ShardCounts) -> None:
        """Update a shard's record and the limiter with the shard's counts."""
        peer = self._peers[index]
        before, peer.down = peer.counts, False
        if (gone := peer.written_off) is not None:
            peer.written_off = None
            if gone.incarnation == counts.incarnation:  # the shard was alive, but unreachable
                self.lost_transitions -= gone.size
                before = gone
        if before and before.incarnation != counts.incarnation:
            # Another incarnation: the shard died, and its transitions are lost.
            self._lose(index, before.size)
            before = None
        if before is None or counts.inserted >= before.inserted:  # replies may arrive out of order
            self.limiter.inserted += counts.inserted - (before.inserted if before else 0)
            peer.counts = counts
        if peer.frames_of != counts.incarnation:
            # Open the shard's memory once per incarnation.
            peer.frames = AttachedFrames.attach(counts.address) if counts.address else None
            peer.frames_of, peer.copy = counts.incarnation, None

    def _mark_down(self, index: int) -> None:
        """Send a shard no requests for 0.5 s; its next answer shows whether its data is lost."""
        peer = self._peers[index]
        peer.down, peer.down_until = True, time.monotonic() + 0.5
        # A dead shard's memory is freed when no process maps it any more.
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
    """Return the batches of one round: small batches are limited by calls, large ones by bytes."""
    return max(1, 128 // batch_size)
