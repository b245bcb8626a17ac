"""Delivers batches to the learner: sampled over all shards in proportion to their total priority,
requested ahead of time, with new priorities sent back.

A *round* is one or more batches requested together: one call to each shard instead of one call
per batch (a call costs 0.5 to 0.8 ms). Up to two rounds are requested at a time: one is in transit
while the learner uses the other.

How frames reach the learner depends on its node, on `frames_on` and on the shard's storage. On the
shard's node the learner reads the shard's memory, or keeps a copy of this memory on its device.
From another node, or from a shard that stores frames compressed, the frames of a transition are
sent without repeats: compressed, or as `compression_choice` decides.
"""

import time
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np
import ray
import torch
from ray.exceptions import RayError, RayTaskError

from genray.distributed.compression_choice import CompressionChoice
from genray.distributed.messages import Published, Reply, Request, ShardCounts
from genray.distributed.shard_records import ShardRecord, ShardRecords
from genray.rl.agent import split_by_mass
from genray.rl.chunk import PlacedSample, SlicedSample
from genray.rl.device_frames import DeviceFrames, empty_batch
from genray.rl.frame_store import unpack
from genray.rl.limiter import SamplesPerInsert
from genray.rl.transfer import AnySample, DeviceSample, empty_sample

ROUNDS_IN_FLIGHT = 2  # one in transit while the learner uses the other
POLL_S = 0.05  # how long a call waits for inserts when no batch may be sampled


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

    `next_round` returns None while no round is in flight and the limiter allows no samples. For a
    round in flight, it waits without a time limit.

    Args:
        shards: handles of the M shard actors.
        limiter: limits the ratio of samples to inserted transitions.
        batch_size: transitions in a batch.
        rng: splits a batch over the shards.
        round_batches: batches in a round; None: chosen by the batch size.
        epoch: the epoch of this incarnation of the learners.
        learners: number of learners that sample as much as this one, at the same time, under one
            limiter.
        leads: whether this learner sends the insert limit and the weights to the shards.
        device, frames_on: where the learner computes, and where its batches are assembled (see
            LearnerConfig).
        sample_transitions: transitions of a sample, which the limiter counts; 1 unless a sequence.
        returns_at: gives (n, γ) of returns after a number of updates; None: neither is annealed.
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
        returns_at: Callable[[int], tuple[int, float]] | None = None,
        sample_transitions: int = 1,
    ):
        self._returns_at, self._sample_transitions = returns_at, sample_transitions
        self._epoch, self._learners, self._leads = epoch, learners, leads
        self._device, self._frames_on = torch.device(device), frames_on
        self._records = ShardRecords(shards, limiter)
        self.limiter, self._batch_size, self._rng = limiter, batch_size, rng
        self.batches_per_round = round_batches or batches_per_round(batch_size)
        self._rounds: deque[_Round] = deque()
        self.updates = 0
        self.published: Published | None = None
        self._compression = CompressionChoice()

    @property
    def size(self) -> int:
        """Transitions in all live shards."""
        return self._records.size

    @property
    def weight_lag(self) -> float:
        """Mean age, in updates, of the weights that collectors use."""
        return self._records.weight_lag

    @property
    def lost_transitions(self) -> int:
        """Transitions lost with dead shards, since the run began."""
        return self._records.lost_transitions

    @lost_transitions.setter
    def lost_transitions(self, count: int) -> None:
        """Transitions lost with dead shards since the run began."""
        self._records.lost_transitions = count

    @property
    def events(self) -> list[str]:
        """One line for each death of a shard that no report has contained yet."""
        return self._records.events

    def take_events(self) -> list[str]:
        """Return `events`, and begin an empty list."""
        events, self._records.events = self._records.events, []
        return events

    @property
    def _round_samples(self) -> int:
        """Transitions of a round, of all learners together."""
        return self.batches_per_round * self._transitions(self._batch_size)

    def _transitions(self, samples: int) -> int:
        """Return how many transitions the limiter counts for samples of each learner."""
        return samples * self._learners * self._sample_transitions

    @property
    def idle(self) -> bool:
        """Whether nothing is in flight and the limiter allows no further samples."""
        return not self._rounds and not self._may_draw()

    def in_flight_samples(self) -> int:
        """Return the transitions of rounds in flight, of all learners together."""
        return self._transitions(sum(int(round_.counts_MU.sum()) for round_ in self._rounds))

    def next_round(self) -> list[Batch] | None:
        """Return the next round's batches; None (after up to POLL_S) if the limiter allows none."""
        while len(self._rounds) < ROUNDS_IN_FLIGHT and self._may_draw():
            self._send_round()
        if self._rounds:
            return self._receive(self._rounds.popleft())
        self._poll()
        return None

    def _may_draw(self) -> bool:
        # Any size above 0 is enough, since sampling is with replacement. Waiting for a larger
        # size than the limiter requires could last forever.
        return self.limiter.samples_allowed() >= self._round_samples and self.size > 0

    def _send_round(self) -> None:
        # Split each batch over the shards, in proportion to their total priority.
        totals = [record.total for record in self._records]
        split = [
            split_by_mass(self._batch_size, totals, self._rng)
            for _ in range(self.batches_per_round)
        ]
        counts_MU = np.array([counts for counts, _ in split]).T
        # The samples count when they are requested; `_receive` takes back those that did not come.
        self.limiter.sampled += self._round_samples
        packed = (
            self._compression.choose() if any(record.may_pack for record in self._records) else None
        )
        # Every shard gets its insert limit with every round, even if the round takes nothing from
        # it: the shard may have just restarted. A shard that was down recently is left out.
        now = time.monotonic()
        replies = {
            index: record.actor.sample.remote(
                self._request(record, tuple(counts_MU[index].tolist()), packed)
            )
            for index, record in enumerate(self._records)
            if counts_MU[index].any() or now >= record.down_until
        }
        self._rounds.append(_Round(counts_MU, split[0][1], replies, packed))

    def _request(
        self, record: ShardRecord, counts: tuple[int, ...] = (), packed: bool | None = None
    ) -> Request:
        """Build a shard's request, with the priorities that have accumulated for the shard."""
        keys, deltas, record.keys, record.deltas = record.keys, record.deltas, [], []
        # The shards share the allowed inserts equally. Limits are absolute counts, so a repeated
        # or reordered request does no harm.
        allowed = self.limiter.inserts_allowed() / len(self._records)
        return Request(
            counts=counts,
            returns=self._returns_at(self.updates) if self._returns_at else None,
            places=record.frames is not None,
            packed=packed is not False,
            key_B=np.concatenate(keys) if keys else np.empty(0, np.int64),
            delta_B=np.concatenate(deltas) if deltas else np.empty(0, np.float32),
            insert_limit=(record.counts.inserted if record.counts else 0) + allowed
            if self._leads
            else None,
            updates=self.updates,
            published=self.published,
            epoch=self._epoch,
        )

    def _receive(self, round_: _Round) -> list[Batch]:
        """Wait for a round and assemble its batches.

        The round is dropped if a shard that it sampled from returns no usable transitions, for
        example because the shard has died.
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
                self._records.mark_down(index)
                continue
            self._records.note(index, reply.counts)
            # The places cannot be read if this process closed the shard's memory after the request.
            lost = self._records[index].frames is None and isinstance(reply.drawn, PlacedSample)
            if reply.drawn is not None and not lost:
                replies[index] = reply
        if round_.packed is not None:
            self._compression.note(round_.packed, time.monotonic() - asked)
        if any(index not in replies for index in np.flatnonzero(round_.counts_MU.any(axis=1))):
            # One part is missing: drop the round, and let the limiter allow its samples again.
            self.limiter.sampled -= self._transitions(int(round_.counts_MU.sum()))
            return []
        drawn = {index: reply.drawn for index, reply in replies.items() if reply.drawn is not None}
        # Batch u of shard m is in rows starts_MU[m, u] to ends_MU[m, u] of the shard's reply.
        ends_MU = round_.counts_MU.cumsum(axis=1)
        starts_MU = ends_MU - round_.counts_MU
        batches = []
        # If all transitions come from one shard, one gather assembles the whole round. For 32
        # transitions, the overhead of a call equals the time of its work.
        if len(drawn) == 1:
            [index] = drawn
            sample, whole_B = self._gather(drawn, round_.shares)
            for start, end in zip(starts_MU[index], ends_MU[index]):
                sizes = {index: int(end - start)}
                batches.append(
                    self._batch(sample.rows(slice(start, end)), whole_B[start:end], sizes, replies)
                )
            return self._drop_empty(batches)
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
        return self._drop_empty(batches)

    def _drop_empty(self, batches: list[Batch]) -> list[Batch]:
        """Drop batches whose transitions were all overwritten, and allow their samples again."""
        filled = [batch for batch in batches if batch.sample.size]
        dropped = len(batches) - len(filled)
        self.limiter.sampled -= dropped * self._transitions(self._batch_size)
        return filled

    def _gather(
        self, drawn: dict[int, PlacedSample | SlicedSample], shares: list[float]
    ) -> tuple[AnySample, np.ndarray]:
        """Assemble transitions from the shards' memory or from the frames that were sent.

        Returns (the sample, bool [B]: which transitions are whole). A transition that the shard
        overwrote meanwhile is not whole.
        """
        layout = next(record.counts.layout for record in self._records if record.counts)
        count = sum(draw.size for draw in drawn.values())
        sample = empty_batch(count, layout, self._device, self._frames_on)
        whole_B = np.ones(count, bool)
        start = 0
        for index, draw in drawn.items():
            here = slice(start, start + draw.size)
            part = sample.rows(here)
            if isinstance(draw, PlacedSample):
                whole_B[here] = self._read(self._records[index], draw, part)
            elif isinstance(part, DeviceSample):
                host = empty_sample(draw.size, layout, self._device)
                unpack(draw, layout, host)
                part.fill(host)
            else:
                unpack(draw, layout, part)
            part.probability_B[:] *= shares[index]
            start += draw.size
        return sample, whole_B

    def _read(self, record: ShardRecord, placed: PlacedSample, out: AnySample) -> np.ndarray:
        """Fill `out` from the shard's memory or its copy; return which rows are whole, bool [B]."""
        frames = record.frames
        assert frames is not None, "_receive leaves out what cannot be read"
        if not isinstance(out, DeviceSample):
            return frames.gather(placed, out)
        if record.copy is None:
            record.copy = DeviceFrames(frames.layout, frames.frame_LCP, self._device)
        record.copy.gather(placed, out)
        return frames.not_overwritten(placed)

    def _batch(
        self,
        sample: AnySample,
        whole_B: np.ndarray,
        sizes: dict[int, int],
        replies: dict[int, Reply],
    ) -> Batch:
        """Make a batch of the transitions that were not overwritten; it may be smaller than
        requested.
        """
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
            record = self._records[index]
            if record.counts and record.counts.incarnation == incarnation:
                record.keys.append(batch.sample.key_B[start : start + rows])
                record.deltas.append(delta_B[start : start + rows])
            start += rows

    def _poll(self) -> None:
        """Send every shard its insert limit and wait up to POLL_S for inserts."""
        now = time.monotonic()
        missing = self.limiter.inserts_needed(self._round_samples) / len(self._records)
        waiting = {}
        for index, record in enumerate(self._records):
            if now >= record.down_until:
                until = (record.counts.inserted if record.counts else 0) + int(np.ceil(missing))
                waiting[record.actor.wait_for.remote(self._request(record), until, POLL_S)] = index
        if not waiting:
            time.sleep(POLL_S)
        for reference, index in waiting.items():
            try:
                self._records.note(index, ray.get(reference))
            except RayTaskError:
                raise
            except RayError:
                self._records.mark_down(index)

    def refresh(self, absent: Collection[int] = ()) -> None:
        """Send priorities, limit and weights to all shards, and read their counts, without waiting
        for inserts.

        The coordinator found the `absent` shards to be dead: their transitions count as lost.
        """
        for index, record in enumerate(self._records):
            if index in absent:
                self._records.write_off(index)
            else:
                self._records.note(
                    index, ray.get(record.actor.wait_for.remote(self._request(record), 0, 0.0))
                )

    def adopt(self) -> None:
        """Take over the shards' counts after a checkpoint was loaded, without counting inserts."""
        inserted = self.limiter.inserted
        for record in self._records:
            record.copy = None  # its frames were replaced by those of the checkpoint
        self.refresh()
        self.limiter.inserted = inserted

    def state(self) -> list[ShardCounts | None]:
        """Return each shard's last counts, from which another learner can continue."""
        return self._records.state()

    def restore(self, state: list[ShardCounts | None]) -> None:
        """Continue from `state`; the next `refresh` counts later inserts and losses."""
        self._records.restore(state)


def batches_per_round(batch_size: int) -> int:
    """Return how many batches a round has. Small batches share a call, whose time dominates."""
    return max(1, 128 // batch_size)
