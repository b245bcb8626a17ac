"""Tests the copy of frames on the learner's device: its transitions are those of the shard."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from genray.errors import ConfigError
from genray.rl.agent import LocalAgent
from genray.rl.device_frames import DeviceFrames
from genray.rl.replay import ReplayShard, ShardLayout
from genray.rl.transfer import DeviceSample
from tests.helpers.shards import CONFIG, GEOMETRIES, stream
from tests.oracles import (
    LAYOUT,
    InventedStream,
    NaiveReplay,
    assert_row,
    expected_sample,
    full_state,
)
from tests.rl.test_agent import CATCH, advance, assert_same, played

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


class Pair:
    """A shard, a copy of its frames, and a list of all rows."""

    def __init__(self, layout: ShardLayout, device: str = "cpu", seed: int = 0):
        self.layout, self.device = layout, torch.device(device)
        self.shard, self.naive = (
            ReplayShard(CONFIG, layout, seed=seed),
            NaiveReplay(layout, layout.n_step),
        )
        self.copy = DeviceFrames(layout, self.shard.frame_LCP, self.device)
        wait = layout.stack - 1 if layout.stack_start == "wait" else 0
        self.streams = {
            source: stream(layout, seed + source + 1, source, wait=wait)
            for source in layout.sources
        }

    def add(self, source: int, rows: int) -> None:
        chunk = self.streams[source].chunk(rows)
        self.shard.add(chunk)
        self.naive.add(self.streams[source], chunk)

    def draw(self, count: int) -> DeviceSample:
        out = DeviceSample.empty(count, self.layout, self.device)
        self.copy.gather(self.shard.sample_places(count), out)
        return out

    def check(self, count: int) -> int:
        """Draw transitions, compare them with the list, and return their number."""
        if not self.shard.size:
            return 0
        batch, live = self.draw(count), self.naive.live()
        fields = vars(batch) | {
            name: getattr(batch, name).cpu().numpy() for name in ("obs_BSHW", "next_obs_BSHW")
        }
        for i, key in enumerate(batch.key_B.tolist()):
            assert_row(fields, i, expected_sample(self.layout, live[key]))
        return count


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("shape", GEOMETRIES, ids=range(len(GEOMETRIES)))
def test_batches_hold_what_the_list_of_everything_holds(shape: ShardLayout, device: str):
    """3,072 transitions of each of seven geometries are compared, 21,504 in all, with wraps,
    several lanes, ends of episodes, and rows that are never drawn.
    """
    pair, rng, checked = Pair(shape, device), np.random.default_rng(shape.rows), 0
    most_rows = shape.rows - shape.n_step - shape.lookback - 1
    while checked < 3_072:
        # sometimes the ring wraps between two draws
        for _ in range(int(rng.choice([1, 1, 1, 9]))):
            pair.add(int(rng.choice(shape.sources)), int(rng.integers(1, most_rows + 1)))
        checked += pair.check(128)
    assert min(one.first_row for one in pair.streams.values()) > 3 * shape.rows


def test_device_frames_copy_each_frame_once(monkeypatch: pytest.MonkeyPatch):
    pair, sent = Pair(LAYOUT), []
    really_send = DeviceFrames._send

    def counted(self, array):
        sent.append(array.size if array.dtype == np.uint8 else 0)
        return really_send(self, array)

    monkeypatch.setattr(DeviceFrames, "_send", counted)
    for _ in range(50):
        for source in LAYOUT.sources:
            pair.add(source, 12)
        for _ in range(4):
            pair.check(64)
    pixels = int(np.prod(LAYOUT.frame_shape))
    came = (
        sum(LAYOUT.lanes_per_source * pair.streams[source].first_row for source in LAYOUT.sources)
        * pixels
    )
    assert 0.98 * came < sum(sent) <= came  # the newest rows have not been drawn


def test_comparison_notices_one_wrong_pixel():
    pair = Pair(LAYOUT)
    for source in LAYOUT.sources:
        pair.add(source, 30)
    pair.check(200)
    pair.copy._frame_NP[12, 3] ^= 1
    with pytest.raises(AssertionError):
        pair.check(500)


def test_frames_of_any_size_do():
    """The bytes of a frame need not be a multiple of a number."""
    layout = replace(LAYOUT, frame_shape=(5, 7), sources=(0,))
    rng = np.random.default_rng(0)
    shard = ReplayShard(CONFIG, layout)
    chunk = InventedStream(1, source=0, num_lanes=2, n_step=3).chunk(30)
    shard.add(replace(chunk, frame_ETHW=rng.integers(256, size=(2, 30, 5, 7), dtype=np.uint8)))
    out = DeviceSample.empty(100, layout, torch.device("cpu"))
    state = shard._rng.bit_generator.state
    wanted = shard.sample(100)
    shard._rng.bit_generator.state = state
    DeviceFrames(layout, shard.frame_LCP, torch.device("cpu")).gather(shard.sample_places(100), out)
    np.testing.assert_array_equal(out.obs_BSHW.numpy(), wanted.obs_BSHW)
    np.testing.assert_array_equal(out.next_obs_BSHW.numpy(), wanted.next_obs_BSHW)


# --- in the algorithm -----------------------------------------------------------------------------

ON_DEVICE = replace(CATCH, learner=replace(CATCH.learner, frames_on="device"))


def test_learner_results_do_not_depend_on_frames_on(tmp_path):
    """A run in one process is equal with frames on the host and on the device, also after a load,
    which replaces the frames behind the copy.
    """
    host, device = played(CATCH, 600), played(ON_DEVICE, 600)
    assert_same(full_state(host), full_state(device))
    host.save(tmp_path)
    again = played(replace(ON_DEVICE, run=replace(CATCH.run, seed=9)), 320)
    again.load(tmp_path)
    for one in (host, again):
        advance(one, 900)
    assert_same(full_state(host), full_state(again))
    for one in (host, device, again):
        one.close()


def test_compressed_frames_cannot_be_copied():
    with pytest.raises(
        ConfigError,
        match="--frames-on device: needs uncompressed frames in the replay; use --replay-store raw",
    ):
        LocalAgent(replace(ON_DEVICE, replay=replace(CATCH.replay, replay_store="lz4")))
