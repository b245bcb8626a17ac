"""Tests the feed with real actors: batches have the rows that the shards received, on each path of
frames.
"""

from typing import Any

import numpy as np
import pytest
import ray

from genray.distributed import feed as feed_module
from genray.distributed.feed import Batch, Feed
from genray.distributed.messages import Request
from genray.distributed.replay_shard import ReplayShardActor
from genray.distributed.shared_frames import AttachedFrames
from genray.rl.limiter import SamplesPerInsert
from genray.rl.replay import ReplayConfig, ShardLayout
from tests.oracles import InventedStream, NaiveReplay, assert_row, expected_sample

pytestmark = [pytest.mark.ray, pytest.mark.timeout(180)]

SHARDS, BATCH, ROUND = 2, 32, 4


class Given:
    """Two shards with three rounds of a ring in each, and a list of all rows that they received."""

    def __init__(self, store: Any):
        self.actors, self.streams, self.expected = [], [], []
        for index in range(SHARDS):
            layout = ShardLayout(
                sources=(index,),
                lanes_per_source=2,
                rows=40,
                frame_shape=InventedStream.frame_shape,
                stack=4,
                stack_start="blank",
                past_actions=2,
                n_step=3,
            )
            remote = ray.remote(ReplayShardActor).options(num_cpus=0, max_concurrency=100)
            actor = remote.remote(ReplayConfig(replay_store=store), layout, (index,))
            stream = InventedStream(index, source=index, num_lanes=2, n_step=3)
            naive = NaiveReplay(layout, 3)
            ray.get(actor.wait_for.remote(Request(insert_limit=float("inf")), 0, 0.0))
            for _ in range(6):
                chunk = stream.chunk(20)
                ray.get(actor.add.remote(chunk))
                naive.add(stream, chunk)
            self.actors.append(actor)
            self.streams.append(stream)
            self.expected.append(
                {key: expected_sample(layout, origin) for key, origin in naive.live().items()}
            )

    def check(self, batch: Batch) -> int:
        start = 0
        for shard, _, rows in batch.parts:
            for i in range(start, start + rows):
                assert_row(batch.sample, i, self.expected[shard][int(batch.sample.key_B[i])])
            start += rows
        assert start == batch.sample.size
        return start


class Always:
    """Replaces `CompressionChoice` by a fixed setting."""

    def __init__(self, packed: bool):
        self.packed, self.noted = packed, 0

    def choose(self) -> bool:
        return self.packed

    def note(self, packed: bool, waited_s: float) -> None:
        assert packed == self.packed and waited_s >= 0
        self.noted += 1


@pytest.fixture(scope="module")
def given(ray_here) -> dict[str, Given]:
    return {store: Given(store) for store in ("raw", "lz4")}


@pytest.mark.parametrize(
    ("way", "shards", "delta"),
    [
        ("shared", 2, 1.0), ("packed", 2, 2.0), ("plain", 2, 3.0), ("lz4", 2, 1.0),
        ("shared", 1, 4.0), ("plain", 1, 5.0), ("lz4", 1, 6.0),
        ("copied", 2, 7.0), ("copied", 1, 8.0), ("sent to the device", 2, 9.0),
    ],
)  # fmt: skip
def test_batches_hold_what_the_shards_were_given(
    given, monkeypatch: pytest.MonkeyPatch, way: str, shards: int, delta: float
):
    # as on another node, which cannot open the memory
    if way in ("packed", "plain", "sent to the device"):
        monkeypatch.setattr(AttachedFrames, "attach", lambda address: None)
    wire = Always(way != "plain")
    monkeypatch.setattr(feed_module, "CompressionChoice", lambda: wire)
    one = given["lz4" if way == "lz4" else "raw"]
    limiter = SamplesPerInsert(ratio=0.0, min_size=1, tolerance=0.0)
    frames_on = "device" if way in ("copied", "sent to the device") else "host"
    feed = Feed(
        one.actors[:shards], limiter, BATCH, np.random.default_rng(0), ROUND, frames_on=frames_on
    )
    feed.refresh()
    assert all(
        (record.frames is not None) == (way in ("shared", "copied")) for record in feed._records
    )
    checked, met = 0, set()
    while checked < 6_000:
        batches = feed.next_round()
        assert batches is not None and len(batches) == ROUND
        for batch in batches:
            checked += one.check(batch)
            met |= {shard for shard, _, _ in batch.parts}
            feed.send_back(batch, np.full(batch.sample.size, delta, np.float32))
    assert met == set(range(shards))
    assert (wire.noted > 0) == (way in ("packed", "plain", "sent to the device"))
    assert all((record.copy is not None) == (way == "copied") for record in feed._records)
    feed.refresh()  # the last priorities
    # Every transition has been drawn by now: the mass says that priorities found their way back.
    for record in feed._records:
        assert record.counts and record.counts.total == pytest.approx(
            record.counts.size * (delta + 1e-3) ** 0.6, rel=1e-3
        )


def test_feed_draws_again_after_a_batch_was_overwritten(ray_here):
    """With a small ring and fast collectors, the learner still receives no batch without rows."""
    given = Given("raw")
    for shards in (1, 2):
        limiter = SamplesPerInsert(ratio=0.0, min_size=1, tolerance=0.0)
        feed = Feed(given.actors[:shards], limiter, BATCH, np.random.default_rng(0), ROUND)
        feed.refresh()
        feed._send_round()
        feed._send_round()
        ray.get([reply for round_ in feed._rounds for reply in round_.replies.values()])
        for actor, stream in zip(given.actors, given.streams):
            ray.get([actor.add.remote(stream.chunk(20)) for _ in range(3)])
        assert feed._receive(feed._rounds.popleft()) == []
        assert limiter.sampled == feed.in_flight_samples() == ROUND * BATCH
