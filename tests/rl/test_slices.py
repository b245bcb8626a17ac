"""Tests frames in transit: slices have the frames of the list of all rows, and damage is
noticed.
"""

import pickle
from dataclasses import replace
from typing import Literal

import numpy as np
import pytest

from genray.errors import RunFault
from genray.rl.chunk import Sample, SlicedSample
from genray.rl.frame_store import unpack
from genray.rl.replay import ReplayConfig, ReplayShard, ShardLayout
from tests.oracles import LAYOUT, InventedStream, NaiveReplay, assert_row, expected_sample


def unpacked(sliced: SlicedSample, layout: ShardLayout) -> Sample:
    out = Sample.empty(
        sliced.size, layout.stack, layout.frame_shape, layout.past_actions, layout.later
    )
    for obs_BSHW in (out.obs_BSHW, out.next_obs_BSHW):
        obs_BSHW[:] = 111  # unwritten values are visible
    unpack(pickle.loads(pickle.dumps(sliced, protocol=5)), layout, out)
    return out


def filled(
    store: Literal["raw", "lz4"], noise: bool = False, layout: ShardLayout = LAYOUT
) -> ReplayShard:
    shard = ReplayShard(ReplayConfig(replay_store=store), layout, seed=7)
    stream, rng = (
        InventedStream(5, source=0, num_lanes=2, n_step=layout.n_step),
        np.random.default_rng(0),
    )
    for _ in range(3):
        chunk = stream.chunk(20)
        if noise:
            chunk = replace(
                chunk, frame_ETHW=rng.integers(256, size=chunk.frame_ETHW.shape, dtype=np.uint8)
            )
        shard.add(chunk)
    return shard


@pytest.mark.parametrize(("stack_start", "later"), [("blank", 0), ("repeat", 0), ("blank", 2)])
@pytest.mark.parametrize(("store", "packed"), [("raw", True), ("raw", False), ("lz4", True)])
def test_slices_hold_what_the_list_of_everything_holds(store, packed, stack_start, later):
    """More than 20,000 transitions of each kind of slice are compared, through many rounds of the
    ring, in parts and as a whole.
    """
    layout = replace(LAYOUT, stack_start=stack_start, later=later)
    shard, naive = (
        ReplayShard(ReplayConfig(replay_store=store), layout, seed=1),
        NaiveReplay(layout, layout.n_step),
    )
    streams = {s: InventedStream(s, source=s, num_lanes=2, n_step=3) for s in layout.sources}
    rng, checked = np.random.default_rng(1), 0
    while checked < 10_240:
        source = int(rng.choice(layout.sources))
        chunk = streams[source].chunk(int(rng.integers(5, 30)))
        shard.add(chunk)
        naive.add(streams[source], chunk)
        if not shard.size:
            continue
        expected = {key: expected_sample(layout, origin) for key, origin in naive.live().items()}
        sliced = shard.sample_slices(512, packed=packed, shuffled=True)
        for part in (slice(0, 200), slice(200, 512)):
            sample = unpacked(sliced.rows(part), layout)
            for i, key in enumerate(sample.key_B.tolist()):
                assert_row(sample, i, expected[key])
        checked += 512


def test_slices_have_each_frame_once_and_compressed():
    plain, packed = (filled("raw").sample_slices(100, packed=packed) for packed in (False, True))
    pixels = int(np.prod(LAYOUT.frame_shape))
    frames = np.minimum(plain.age_B, 3).astype(int) + 1 + plain.horizon_B
    assert len(plain.data_N) == frames.sum() * pixels
    assert len(packed.data_N) < 0.6 * len(plain.data_N)
    assert np.array_equal(packed.length_BT > 0, np.arange(7) < frames[:, None])


@pytest.mark.parametrize("packed", [True, False])
def test_noise_which_no_compression_makes_smaller_travels_too(packed):
    raw, lz4 = filled("raw", noise=True), filled("lz4", noise=True)
    wanted = raw.sample(200)
    for shard in (filled("raw", noise=True), lz4):
        sliced = shard.sample_slices(200, packed=packed)
        assert set(np.unique(sliced.length_BT)) == {0, 72}
        came = unpacked(sliced, LAYOUT)
        for name in vars(wanted):
            if name != "next_obs_BSHW":  # after a termination it means nothing
                np.testing.assert_array_equal(
                    getattr(came, name), getattr(wanted, name), err_msg=name
                )
        goes_on_B = wanted.discount_B > 0
        np.testing.assert_array_equal(
            came.next_obs_BSHW[goes_on_B], wanted.next_obs_BSHW[goes_on_B]
        )
    stored = filled("lz4", noise=True).sample(200)
    np.testing.assert_array_equal(stored.obs_BSHW, wanted.obs_BSHW)


def test_unpack_raises_for_damaged_slices():
    sliced = filled("lz4").sample_slices(50)
    length_BT, horizon_B = sliced.length_BT.copy(), sliced.horizon_B.copy()
    length_BT[7, 1] = 10**9
    horizon_B[9] = 200
    for damaged in (
        replace(sliced, data_N=np.full_like(sliced.data_N, 255)),
        replace(sliced, data_N=sliced.data_N[:-1]),
        replace(sliced, start_B=sliced.start_B - 1),
        replace(sliced, length_BT=length_BT),
        replace(sliced, length_BT=-sliced.length_BT),
        replace(sliced, horizon_B=horizon_B),
    ):
        with pytest.raises(RunFault, match="damaged"):
            unpacked(damaged, LAYOUT)
    unpacked(sliced, LAYOUT)
