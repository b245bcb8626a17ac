"""A shard against a list of everything that ever came: contents, gaps, priorities, sampling, checkpoints."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from scipy import stats

from genray.errors import CheckpointError, ConfigError, RunFault
from genray.rl import targets
from genray.rl.agent import split_by_mass
from genray.rl.chunk import BlockSample, Sample
from genray.rl.config import DQNConfig
from genray.rl.replay import ReplayConfig, ReplayShard, ShardLayout
from tests.oracles import LAYOUT, InventedStream, NaiveReplay, expected_sample

CONFIG = ReplayConfig()


def layout(**changes) -> ShardLayout:
    return replace(LAYOUT, **{"sources": (0,), "past_actions": 0, **changes})


def stream(shape: ShardLayout, seed: int, source: int = 0, **kwargs) -> InventedStream:
    return InventedStream(seed, source=source, num_lanes=shape.lanes_per_source, n_step=shape.n_step, **kwargs)


def drawable_keys(shard: ReplayShard) -> set[int]:
    """The keys of all leaves with weight, by drawing until nothing new can come."""
    masses = np.arange(len(shard._tree.state()))
    leaves = np.flatnonzero(shard._tree.get(masses) > 0)
    sampled: set[int] = set()
    while len(sampled) < len(leaves):
        sampled |= set(shard.sample(4 * len(leaves)).key_B.tolist())
    return sampled


def compare(shard: ReplayShard, naive: NaiveReplay) -> int:
    """All that the shard can give is what the list says, and nothing is missing; returns how many draws it compared."""
    live = naive.live()
    assert shard.size == len(live)
    assert np.count_nonzero(shard._tree.state()) == len(live)
    assert shard._valid_LC.sum() == len(live)
    if not live:
        return 0
    batch, blocks = shard.sample(64), shard.sample_blocks(64)
    for i, key in enumerate(batch.key_B.tolist()):
        assert key in live, "a transition that is not there any more, or never was"
        for name, value in expected_sample(shard.layout, live[key]).items():
            np.testing.assert_array_equal(getattr(batch, name)[i], value, err_msg=name)
        leaf = shard.config.priority_epsilon + live[key][0].deltas[live[key][1]][live[key][2]]
        expected = leaf**shard.config.alpha / shard.total
        assert batch.probability_B[i] == pytest.approx(expected, rel=1e-6)
    stack = shard.layout.stack
    stacks = blocks.stacks(stack)
    for i, key in enumerate(blocks.key_B.tolist()):
        wanted, k = expected_sample(shard.layout, live[key]), int(blocks.horizon_B[i])
        block_THW = blocks.block_BTHW[i]
        np.testing.assert_array_equal(block_THW[:stack], wanted["obs_BSHW"])
        np.testing.assert_array_equal(block_THW[k : k + stack], wanted["next_obs_BSHW"])
        for name, value in wanted.items():
            if name != "next_obs_BSHW" or wanted["discount_B"]:  # after a termination it means nothing
                np.testing.assert_array_equal(getattr(stacks, name)[i], value, err_msg=name)
    return 128


GEOMETRIES = [
    layout(),
    layout(rows=17, stack=1, n_step=1),
    layout(rows=33, stack_start="repeat", n_step=5),
    layout(rows=29, stack=3, past_actions=6),
    layout(rows=31, lanes_per_source=1, n_step=2, past_actions=2, stack_start="repeat"),
    layout(rows=50, sources=(1, 4), n_step=3),
    layout(rows=40, stack_start="wait", n_step=10),
]


@pytest.mark.parametrize("store", ["raw", "lz4"])
@pytest.mark.parametrize("shape", GEOMETRIES, ids=range(len(GEOMETRIES)))
def test_holds_what_a_list_of_everything_holds_through_many_wraps(shape: ShardLayout, store: Literal["raw", "lz4"]):
    """Episodes that terminate, are cut and lose lives at random; chunks of any length; five times round the ring."""
    rng = np.random.default_rng(shape.rows)
    shard, naive = ReplayShard(replace(CONFIG, replay_store=store), shape), NaiveReplay(shape, shape.n_step)
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
    assert checked > 500
    assert shard.inserted == added > 100


def test_memory_given_beforehand_is_filled_like_fresh_memory():
    """The same draws, with and without `out`, through several batches: nothing of the one before shines through."""
    for kind, frames in (("sample", 4), ("sample_blocks", 7)):
        (fresh, _), (reused, _) = filled(chunks=3), filled(chunks=3)
        make = Sample.empty if kind == "sample" else BlockSample.empty
        out = make(50, frames, InventedStream.frame_shape, 0)
        for array in vars(out).values():
            array.fill(99)
        for _ in range(5):
            wanted = getattr(fresh, kind)(50)
            got = getattr(reused, kind)(50, out)
            assert got is out
            for name, array in vars(wanted).items():
                np.testing.assert_array_equal(getattr(got, name), array, err_msg=name)


def test_any_part_of_a_shuffled_draw_is_a_fair_batch():
    """The same transitions as in the tree's order; the first quarter comes from all over the ring, not from its first lane."""
    (ordered, _), (shuffled, _) = filled(chunks=3), filled(chunks=3)
    one, other = ordered.sample(64), shuffled.sample(64, shuffled=True)
    assert sorted(one.key_B.tolist()) == sorted(other.key_B.tolist()) != other.key_B.tolist()
    part = [shuffled.sample_places(64, shuffled=True).leaf_B[:16] for _ in range(200)]
    in_first_lane = float(np.mean(np.array(part) < shuffled.layout.rows))
    share = float(shuffled._tree.get(np.arange(shuffled.layout.rows)).sum() / shuffled.total)
    assert abs(in_first_lane - share) < 0.05
    assert (ordered.sample_places(64).leaf_B[:16] < ordered.layout.rows).all()


def test_priorities_may_come_in_memory_that_cannot_be_written():
    """As Ray hands arrays over."""
    shard, _ = filled()
    key_B, delta_B = shard.sample(10).key_B, np.full(10, 2.0, np.float32)
    for array in (key_B, delta_B):
        array.flags.writeable = False
    shard.update(key_B, delta_B)
    assert (shard._tree.get(leaf_of(shard, key_B)) == (2.0 + CONFIG.priority_epsilon) ** CONFIG.alpha).all()


def test_no_observation_crosses_a_gap_and_nothing_is_counted_twice():
    """Lost chunks, repeated chunks and restarted collectors at random, in a shard of two collectors."""
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


def test_every_stack_after_a_gap_is_of_one_life():
    """A look at the pixels themselves: rows of a stack follow one another in one stream, or are blank."""
    shape = layout(rows=200)
    shard = ReplayShard(CONFIG, shape)
    first, second = stream(shape, 7), stream(shape, 8)
    for chunk in (first.chunk(30), first.chunk(30)):
        shard.add(chunk)
    first.chunk(10)  # lost
    shard.add(first.chunk(30))
    shard.add(second.chunk(30))  # the collector died and came back
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


def test_a_restarted_shard_takes_up_a_stream_in_its_middle():
    """A new shard meets row 90 of a stream: the first rows only serve as history, and their returns are no one's."""
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


# --- priorities -----------------------------------------------------------------------------------------------------


def filled(
    seed: int = 1, config: ReplayConfig = CONFIG, chunks: int = 1, **changes
) -> tuple[ReplayShard, InventedStream]:
    shape = layout(**changes)
    shard, source = ReplayShard(config, shape, seed=seed), stream(shape, seed, changes.get("sources", (0,))[0])
    for _ in range(chunks):
        shard.add(source.chunk(20))
    return shard, source


def leaf_of(shard: ReplayShard, key_B: np.ndarray) -> np.ndarray:
    row_B, lane_B = np.divmod(key_B, shard.layout.lanes)
    return lane_B * shard.layout.rows + row_B % shard.layout.rows


def test_new_priorities_arrive_at_their_transitions():
    shard, _ = filled()
    key_B = np.array(sorted(drawable_keys(shard)))
    delta_B = np.linspace(0.0, 3.0, len(key_B)).astype(np.float32)
    shard.update(key_B, -delta_B)  # the sign does not matter
    expected = (delta_B.astype(float) + CONFIG.priority_epsilon) ** CONFIG.alpha
    np.testing.assert_allclose(shard._tree.get(leaf_of(shard, key_B)), expected, rtol=1e-6)
    assert shard.total == pytest.approx(expected.sum())
    assert shard.dropped_updates == 0


def test_late_priorities_for_overwritten_rows_are_dropped_and_counted():
    """Keys drawn before the ring went round: nothing that lies there now may change."""
    shard, source = filled(chunks=2)
    old_B = np.unique(shard.sample(400).key_B)
    for _ in range(6):
        shard.add(source.chunk(20))
        before = shard._tree.state()
        alive = set(old_B.tolist()) & drawable_keys(shard)
        dropped = shard.dropped_updates
        shard.update(old_B, np.full(len(old_B), 123.0, np.float32))
        changed = np.flatnonzero(shard._tree.state() != before)
        assert set(changed.tolist()) <= set(leaf_of(shard, np.array(sorted(alive), np.int64)).tolist())
        assert shard.dropped_updates - dropped == len(old_B) - len(alive)
        old_B = np.unique(np.concatenate([old_B, shard.sample(50).key_B]))
    assert shard.dropped_updates > 100


def test_keys_from_the_future_are_dropped():
    """A shard that restarted empty gets a priority for a row that it never held: the row that shares its slot stays."""
    shard, _ = filled()
    before = shard._tree.state()
    key_B = shard.sample(10).key_B + 5 * shard.layout.rows * shard.layout.lanes
    shard.update(key_B, np.full(10, 50.0, np.float32))
    np.testing.assert_array_equal(shard._tree.state(), before)
    assert shard.dropped_updates == 10


# --- sampling -------------------------------------------------------------------------------------------------------


def spread(shard: ReplayShard, seed: int) -> dict[int, float]:
    """Give every transition a priority of its own; key → p_i^α."""
    rng = np.random.default_rng(seed)
    key_B = np.array(sorted(drawable_keys(shard)))
    delta_B = rng.exponential(size=len(key_B)).astype(np.float32)
    shard.update(key_B, delta_B)
    powered = (delta_B.astype(float) + shard.config.priority_epsilon) ** shard.config.alpha
    return dict(zip(key_B.tolist(), powered.tolist()))


def frequencies(shard: ReplayShard, draws: int) -> dict[int, int]:
    """Single draws, which are independent of each other (batches are stratified)."""
    counts: dict[int, int] = {}
    for _ in range(draws):
        key = int(shard.sample(1).key_B[0])
        counts[key] = counts.get(key, 0) + 1
    return counts


@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.0])
def test_draws_follow_the_powers_of_the_priorities(alpha: float):
    shard, _ = filled(config=replace(CONFIG, alpha=alpha, priority_epsilon=0.1))
    p = spread(shard, 5)
    if alpha == 0:
        assert set(p.values()) == {1.0}  # uniform
    counts = frequencies(shard, 4000)
    total = sum(p.values())
    observed = np.array([counts.get(key, 0) for key in p])
    expected = np.array([4000 * value / total for value in p.values()])
    assert observed.sum() == 4000
    assert stats.chisquare(observed, expected).pvalue > 1e-3
    if alpha:
        assert stats.chisquare(observed, np.full(len(p), 4000 / len(p))).pvalue < 1e-6


def test_without_prioritization_draws_are_uniform_whatever_the_errors():
    shard, _ = filled(config=replace(CONFIG, prioritized=False))
    p = spread(shard, 6)
    batch = shard.sample(500)
    np.testing.assert_allclose(batch.probability_B, 1 / len(p), rtol=1e-12)
    counts = frequencies(shard, 4000)
    assert stats.chisquare([counts.get(key, 0) for key in p], np.full(len(p), 4000 / len(p))).pvalue > 1e-3


def test_draws_over_several_shards_follow_the_priorities_of_all():
    """Three shards of very different mass: P(i) = p_i^α / Σ over *all* shards, in frequency and as reported."""
    config = replace(CONFIG, priority_epsilon=0.1)
    shards = [filled(seed, config, chunks=chunks, rows=60)[0] for seed, chunks in ((1, 1), (2, 2), (3, 1))]
    p = {(m, key): value for m, shard in enumerate(shards) for key, value in spread(shard, m).items()}
    third = {key for m, key in p if m == 2}
    shards[2].update(np.array(sorted(third)), np.full(len(third), 30.0, np.float32))  # ever so surprising
    p |= {(2, key): (30.0 + 0.1) ** 0.6 for key in third}
    total = sum(p.values())
    rng, counts, batches, size = np.random.default_rng(8), dict.fromkeys(p, 0), 500, 32
    for _ in range(batches):
        split, shares = split_by_mass(size, [shard.total for shard in shards], rng)
        assert sum(split) == size
        parts = [shard.sample(n).scaled(share) for shard, n, share in zip(shards, split, shares) if n]
        batch = Sample.join(parts)
        places = [m for m, n in enumerate(split) for _ in range(n)]
        for m, key, probability in zip(places, batch.key_B.tolist(), batch.probability_B):
            counts[m, key] += 1
            assert probability == pytest.approx(p[m, key] / total, rel=1e-6)
        # The learner's weights, over the joined batch, against the formula (1/N · 1/P(i))^β / max.
        everything = sum(shard.size for shard in shards)
        raw = [(1 / everything * total / p[m, key]) ** 0.7 for m, key in zip(places, batch.key_B.tolist())]
        weight_B = targets.importance_weights(torch_of(batch.probability_B), everything, 0.7).numpy()
        np.testing.assert_allclose(weight_B, np.array(raw) / max(raw), rtol=1e-6)
    draws = batches * size
    observed = np.array(list(counts.values()))
    expected = np.array([p[place] * draws / total for place in counts])
    assert stats.chisquare(observed, expected).pvalue > 1e-3  # stratified: fits even better than chance
    mass_M = np.array([shard.total for shard in shards]) / total
    by_shard = [sum(n for (m, _), n in counts.items() if m == place) for place in range(3)]
    assert stats.chisquare(by_shard, mass_M * draws).pvalue > 1e-3
    assert stats.chisquare(by_shard, np.full(3, draws / 3)).pvalue < 1e-6


def torch_of(array: np.ndarray):
    import torch

    return torch.from_numpy(array)


def test_an_empty_shard_says_so():
    shard = ReplayShard(CONFIG, layout())
    assert (shard.size, shard.total) == (0, 0.0)
    with pytest.raises(ValueError, match="nothing to sample"):
        shard.sample(1)


# --- memory and checkpoints ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("shards", [1, 2])
def test_a_transition_takes_at_most_7200_bytes(shards: int):
    """Frames, tree and everything, at 100,000 transitions; counted per transition that can really be drawn, too."""
    replay = ReplayConfig(capacity=100_000, shards=shards)
    layouts = DQNConfig(replay=replay).plan_shards((84, 84))
    assert len(layouts) == shards
    held = [ReplayShard(replay, one) for one in layouts]  # never touched, so the kernel gives no memory
    nbytes = sum(shard.nbytes for shard in held)
    assert 7056 < nbytes / replay.capacity <= 7200
    drawable = sum(one.lanes * (one.rows - one.lookback - one.n_step) for one in layouts)
    assert nbytes / drawable <= 7200


def test_the_reported_bytes_are_the_arrays_bytes():
    """nbytes against what the process really maps for a shard whose memory was touched."""
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
@pytest.mark.parametrize(("before", "after"), [("raw", "raw"), ("raw", "lz4"), ("lz4", "raw"), ("lz4", "lz4")])
def test_resumes_bit_for_bit(tmp_path: Path, chunks: int, before: Literal["raw", "lz4"], after: Literal["raw", "lz4"]):
    """Also in the other store."""
    shard, source = filled(chunks=chunks, config=replace(CONFIG, replay_store=before))
    into = ReplayShard(replace(CONFIG, replay_store=after), shard.layout, seed=999)
    again = save_and_load(shard, tmp_path, into=into)
    for _ in range(3):
        chunk = source.chunk(11)
        assert shard.add(chunk) == again.add(chunk)
        batches = [one.sample(32) for one in (shard, again)]
        for name in vars(batches[0]):
            np.testing.assert_array_equal(getattr(batches[0], name), getattr(batches[1], name), err_msg=name)
        for one, batch in zip((shard, again), batches):
            one.update(batch.key_B, np.linspace(0, 5, 32).astype(np.float32))
    assert (shard.size, shard.inserted, shard.total) == (again.size, again.inserted, again.total)


def test_a_collector_that_begins_anew_after_resuming_begins_a_new_stream(tmp_path: Path):
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
    """Each chunk's bytes go when its rows are overwritten: the same after three and after thirty rounds."""
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
    for draw in (shard.sample, shard.sample_blocks):
        with pytest.raises(RunFault, match="damaged"):
            draw(10)


def test_a_store_that_is_not_there_is_refused():
    with pytest.raises(ConfigError, match="--replay-store zip: must be raw"):
        ReplayConfig(replay_store="zip").validate()  # type: ignore[arg-type]


def test_a_checkpoint_of_another_geometry_is_refused(tmp_path: Path):
    shard, _ = filled()
    with pytest.raises(CheckpointError, match="--capacity, --shards, --collectors and --envs-per-collector"):
        save_and_load(shard, tmp_path, into=ReplayShard(CONFIG, layout(rows=41)))
