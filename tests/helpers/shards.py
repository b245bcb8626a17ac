"""Shards filled with invented streams, and all that they can give beside what a list of
everything holds.
"""

from dataclasses import replace

import numpy as np
import pytest

from genray.rl.replay import ReplayConfig, ReplayShard, ShardLayout
from tests.oracles import LAYOUT, InventedStream, NaiveReplay, assert_row, expected_sample

CONFIG = ReplayConfig()


def layout(**changes) -> ShardLayout:
    return replace(LAYOUT, **{"sources": (0,), "past_actions": 0, **changes})


def stream(shape: ShardLayout, seed: int, source: int = 0, **kwargs) -> InventedStream:
    return InventedStream(
        seed, source=source, num_lanes=shape.lanes_per_source, n_step=shape.n_step, **kwargs
    )


def drawable_keys(shard: ReplayShard) -> set[int]:
    """The keys of all leaves with weight, by drawing until nothing new can come."""
    masses = np.arange(len(shard._tree.state()))
    leaves = np.flatnonzero(shard._tree.get(masses) > 0)
    sampled: set[int] = set()
    while len(sampled) < len(leaves):
        sampled |= set(shard.sample(4 * len(leaves)).key_B.tolist())
    return sampled


def compare(shard: ReplayShard, naive: NaiveReplay) -> int:
    """All that the shard can give is what the list says, and nothing is missing; returns how
    many draws it compared.
    """
    live = naive.live()
    assert shard.size == len(live)
    assert np.count_nonzero(shard._tree.state()) == len(live)
    assert shard._valid_LC.sum() == len(live)
    if not live:
        return 0
    batch = shard.sample(64)
    for i, key in enumerate(batch.key_B.tolist()):
        assert key in live, "a transition that is not there any more, or never was"
        assert_row(batch, i, expected_sample(shard.layout, live[key]))
        leaf = shard.config.priority_epsilon + live[key][0].deltas[live[key][1]][live[key][2]]
        expected = leaf**shard.config.alpha / shard.total
        assert batch.probability_B[i] == pytest.approx(expected, rel=1e-6)
    return 64


GEOMETRIES = [
    layout(),
    layout(rows=17, stack=1, n_step=1),
    layout(rows=33, stack_start="repeat", n_step=5),
    layout(rows=29, stack=3, past_actions=6),
    layout(rows=31, lanes_per_source=1, n_step=2, past_actions=2, stack_start="repeat"),
    layout(rows=50, sources=(1, 4), n_step=3),
    layout(rows=40, stack_start="wait", n_step=10),
    layout(rows=37, n_step=5, later=5),
]


def filled(
    seed: int = 1, config: ReplayConfig = CONFIG, chunks: int = 1, **changes
) -> tuple[ReplayShard, InventedStream]:
    shape = layout(**changes)
    shard, source = (
        ReplayShard(config, shape, seed=seed),
        stream(shape, seed, changes.get("sources", (0,))[0]),
    )
    for _ in range(chunks):
        shard.add(source.chunk(20))
    return shard, source


def leaf_of(shard: ReplayShard, key_B: np.ndarray) -> np.ndarray:
    row_B, lane_B = np.divmod(key_B, shard.layout.lanes)
    return lane_B * shard.layout.rows + row_B % shard.layout.rows
