"""Tests a shard against a list of all rows: contents and gaps."""

from dataclasses import replace
from typing import Literal

import numpy as np
import pytest

from genray.rl.chunk import Sample
from genray.rl.replay import ReplayShard, ShardLayout
from tests.helpers.shards import CONFIG, GEOMETRIES, compare, filled, layout, leaf_of, stream
from tests.oracles import InventedStream, NaiveReplay


@pytest.mark.parametrize("store", ["raw", "lz4"])
@pytest.mark.parametrize("shape", GEOMETRIES, ids=range(len(GEOMETRIES)))
def test_holds_what_a_list_of_everything_holds_through_many_wraps(
    shape: ShardLayout, store: Literal["raw", "lz4"]
):
    """Episodes terminate, are truncated and lose lives at random. Chunks have all lengths, and the
    ring wraps five times.
    """
    rng = np.random.default_rng(shape.rows)
    shard, naive = (
        ReplayShard(replace(CONFIG, replay_store=store), shape),
        NaiveReplay(shape, shape.n_step),
    )
    wait = shape.stack - 1 if shape.stack_start == "wait" else 0
    life_loss = "terminal" if shape.rows % 2 else "ignore"
    streams = {s: stream(shape, s + 1, s, wait=wait, life_loss=life_loss) for s in shape.sources}
    most_rows = shape.rows - shape.n_step - shape.lookback - 1
    checked, added = 0, 0
    while min(one.first_row for one in streams.values()) < 5 * shape.rows:
        source = int(rng.choice(shape.sources))
        chunk = streams[source].chunk(int(rng.integers(1, most_rows + 1)))
        added += shard.add(chunk)
        naive.add(streams[source], chunk)
        checked += compare(shard, naive)
    assert checked > 250
    assert shard.inserted == added > 100


def test_memory_given_beforehand_is_filled_like_fresh_memory():
    """Draws with and without `out` are equal for several batches, so no values of an earlier batch
    remain.
    """
    (fresh, _), (reused, _) = filled(chunks=3), filled(chunks=3)
    out = Sample.empty(50, 4, InventedStream.frame_shape, 0)
    for array in vars(out).values():
        array.fill(99)
    for _ in range(5):
        wanted, got = fresh.sample(50), reused.sample(50, out)
        assert got is out
        for name, array in vars(wanted).items():
            np.testing.assert_array_equal(getattr(got, name), array, err_msg=name)


def test_any_part_of_a_shuffled_draw_is_a_fair_batch():
    """The transitions are those in the tree's order. The first quarter comes from the whole ring,
    not from the first lane.
    """
    (ordered, _), (shuffled, _) = filled(chunks=3), filled(chunks=3)
    one, other = ordered.sample(64), shuffled.sample(64, shuffled=True)
    assert sorted(one.key_B.tolist()) == sorted(other.key_B.tolist()) != other.key_B.tolist()
    part = [shuffled.sample_places(64, shuffled=True).leaf_B[:16] for _ in range(200)]
    in_first_lane = float(np.mean(np.array(part) < shuffled.layout.rows))
    share = float(shuffled._tree.get(np.arange(shuffled.layout.rows)).sum() / shuffled.total)
    assert abs(in_first_lane - share) < 0.05
    assert (ordered.sample_places(64).leaf_B[:16] < ordered.layout.rows).all()


def test_priorities_may_come_in_memory_that_cannot_be_written():
    """Ray passes read-only arrays."""
    shard, _ = filled()
    key_B, delta_B = shard.sample(10).key_B, np.full(10, 2.0, np.float32)
    for array in (key_B, delta_B):
        array.flags.writeable = False
    shard.update(key_B, delta_B)
    assert (
        shard._tree.get(leaf_of(shard, key_B)) == (2.0 + CONFIG.priority_epsilon) ** CONFIG.alpha
    ).all()


def test_replay_observations_do_not_cross_a_gap():
    """A shard of two collectors receives lost chunks, repeated chunks and restarted collectors at
    random.
    """
    rng = np.random.default_rng(0)
    shape = layout(sources=(0, 1), rows=60, past_actions=5)
    shard, naive = ReplayShard(CONFIG, shape), NaiveReplay(shape, shape.n_step)
    streams = {source: stream(shape, source + 1, source) for source in shape.sources}
    seen = dict.fromkeys(["lost", "restarted", "repeated"], 0)
    seeds = iter(range(100, 200))
    for _ in range(80):
        source = int(rng.integers(2))
        chunk = streams[source].chunk(int(rng.integers(4, 20)))
        event = rng.random()
        if event < 0.15:
            seen["lost"] += 1
            continue
        if event < 0.25:
            seen["restarted"] += 1
            streams[source] = stream(shape, next(seeds), source)
            continue
        shard.add(chunk)
        naive.add(streams[source], chunk)
        if event > 0.8:
            seen["repeated"] += 1
            before = shard.inserted, shard.size, shard.total, shard._tree.state().tolist()
            assert shard.add(chunk) == 0
            assert before == (shard.inserted, shard.size, shard.total, shard._tree.state().tolist())
        compare(shard, naive)
    assert min(seen.values()) >= 4, seen


def test_replay_stacks_after_a_gap_belong_to_one_incarnation():
    """The pixels show that the rows of a stack follow one another in one stream, or are blank."""
    shape = layout(rows=200)
    shard = ReplayShard(CONFIG, shape)
    first, second = stream(shape, 7), stream(shape, 8)
    for chunk in (first.chunk(30), first.chunk(30)):
        shard.add(chunk)
    first.chunk(10)  # lost
    shard.add(first.chunk(30))
    shard.add(second.chunk(30))  # the collector died and restarted
    batch = shard.sample(3000)
    for obs_BSHW in (batch.obs_BSHW, batch.next_obs_BSHW):
        tag_BS = obs_BSHW[:, :, 0, 0].astype(int)
        row_BS = obs_BSHW[:, :, 0, 2].astype(int) * 256 + obs_BSHW[:, :, 0, 3]
        drawn_BS = obs_BSHW[:, :, 0, 4] == 255  # blank frames are 0
        assert set(tag_BS[:, -1].tolist()) == {first.tag, second.tag}
        for older, newer in zip(range(3), range(1, 4)):
            both_B = drawn_BS[:, older]
            assert both_B.mean() > 0.5
            assert (tag_BS[both_B, older] == tag_BS[both_B, newer]).all()
            assert (row_BS[both_B, older] + 1 == row_BS[both_B, newer]).all()


def test_replay_of_a_restarted_shard_accepts_a_stream_in_its_middle():
    """A new shard receives row 90 of a stream. The first rows only serve as history and have no
    returns.
    """
    shape = layout(rows=100)
    old = stream(shape, 3)
    for _ in range(3):
        old.chunk(30)
    shard, naive = ReplayShard(CONFIG, shape), NaiveReplay(shape, shape.n_step)
    for _ in range(5):
        chunk = old.chunk(30)
        shard.add(chunk)
        naive.add(old, chunk)
        assert compare(shard, naive) > 0
        if shard.inserted == shard.size:  # nothing was overwritten yet
            assert min(naive.live()) // shape.lanes <= 3  # its own row 0 is the stream's row 90
