"""Tests the memory of a shard, and its files."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from genray.errors import CheckpointError, ConfigError, RunFault
from genray.rl.config import DQNConfig
from genray.rl.replay import ReplayConfig, ReplayShard
from tests.helpers.shards import CONFIG, compare, filled, layout, stream
from tests.oracles import NaiveReplay


@pytest.mark.parametrize("shards", [1, 2])
def test_replay_transition_takes_at_most_7200_bytes(shards: int):
    """The bytes include frames and tree at 100,000 transitions, and are also counted for each
    transition that can be drawn.
    """
    replay = ReplayConfig(capacity=100_000, shards=shards)
    layouts = DQNConfig(replay=replay).plan_shards((84, 84))
    assert len(layouts) == shards
    # never written, so the kernel allocates no memory
    held = [ReplayShard(replay, one) for one in layouts]
    nbytes = sum(shard.nbytes for shard in held)
    assert 7056 < nbytes / replay.capacity <= 7200
    drawable = sum(one.lanes * (one.rows - one.lookback - one.n_step) for one in layouts)
    assert nbytes / drawable <= 7200


def test_replay_nbytes_are_the_bytes_of_the_arrays():
    """nbytes equals the memory of the process for a shard whose memory was written."""
    shard, _ = filled(rows=100)
    slots = shard.layout.lanes * shard.layout.rows
    per_slot = int(np.prod(shard.layout.frame_shape)) + 1 + 1 + 4 + 4 + 1 + 1 + 8
    assert per_slot * slots <= shard.nbytes <= per_slot * slots + 8 * slots / 7 + 8 * 24


def save_and_load(shard: ReplayShard, folder: Path, into: ReplayShard | None = None) -> ReplayShard:
    state = json.loads(json.dumps(shard.save(folder)))
    other = into or ReplayShard(shard.config, shard.layout, seed=999)
    other.load(folder, state)
    return other


@pytest.mark.parametrize("chunks", [0, 1, 7], ids=["empty", "partly filled", "wrapped"])
@pytest.mark.parametrize(
    ("before", "after"), [("raw", "raw"), ("raw", "lz4"), ("lz4", "raw"), ("lz4", "lz4")]
)
def test_resumes_bit_for_bit(
    tmp_path: Path, chunks: int, before: Literal["raw", "lz4"], after: Literal["raw", "lz4"]
):
    """A shard also resumes with the other kind of store."""
    shard, source = filled(chunks=chunks, config=replace(CONFIG, replay_store=before))
    into = ReplayShard(replace(CONFIG, replay_store=after), shard.layout, seed=999)
    again = save_and_load(shard, tmp_path, into=into)
    for _ in range(3):
        chunk = source.chunk(11)
        assert shard.add(chunk) == again.add(chunk)
        batches = [one.sample(32) for one in (shard, again)]
        for name in vars(batches[0]):
            np.testing.assert_array_equal(
                getattr(batches[0], name), getattr(batches[1], name), err_msg=name
            )
        for one, batch in zip((shard, again), batches):
            one.update(batch.key_B, np.linspace(0, 5, 32).astype(np.float32))
    assert (shard.size, shard.inserted, shard.total) == (again.size, again.inserted, again.total)


def test_replay_load_then_new_collector_begins_a_new_stream(tmp_path: Path):
    shard, old = filled(chunks=3)
    naive = NaiveReplay(shard.layout, shard.layout.n_step)
    replayed = stream(shard.layout, 1)
    for _ in range(3):
        naive.add(replayed, replayed.chunk(20))
    again = save_and_load(shard, tmp_path)
    fresh = stream(shard.layout, 55)
    chunk = fresh.chunk(20)
    again.add(chunk)
    naive.add(fresh, chunk)
    assert compare(again, naive) > 20
    assert old.incarnation != fresh.incarnation


def test_compressed_frames_take_no_more_memory_than_the_ring_holds():
    """The bytes of a chunk are freed when its rows are overwritten, so three and thirty rounds take
    the same memory.
    """
    shard, source = filled(config=replace(CONFIG, replay_store="lz4"), chunks=6)
    before = shard.nbytes
    for _ in range(60):
        shard.add(source.chunk(20))
    assert shard.nbytes <= before + 2 * 20 * 24  # a frame of 72 bytes gets a third of it
    rows = sum(rows for rows, _ in shard._frames._buffers[0])
    assert shard.layout.rows <= rows < shard.layout.rows + 20


def test_damaged_frames_are_not_learned_from():
    shard, _ = filled(config=replace(CONFIG, replay_store="lz4"))
    for _, buffer in shard._frames._buffers[0]:
        buffer[:] = 255
    with pytest.raises(RunFault, match="damaged"):
        shard.sample(10)


def test_replay_config_refuses_an_unknown_store():
    with pytest.raises(ConfigError, match="--replay-store zip: must be raw"):
        ReplayConfig(replay_store="zip").validate()  # type: ignore[arg-type]


def test_replay_load_refuses_another_geometry(tmp_path: Path):
    shard, _ = filled()
    with pytest.raises(
        CheckpointError, match="--capacity, --shards, --collectors and --envs-per-collector"
    ):
        save_and_load(shard, tmp_path, into=ReplayShard(CONFIG, layout(rows=41)))
