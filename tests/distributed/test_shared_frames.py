"""Tests that another process reads a shard's memory, and notices transitions that were overwritten
meanwhile.
"""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from genray.distributed.shared_frames import AttachedFrames, SharedFrames
from genray.rl.chunk import PlacedSample, Sample
from genray.rl.device_frames import DeviceFrames
from genray.rl.replay import ReplayConfig, ReplayShard, ShardLayout
from genray.rl.transfer import AnySample, DeviceSample
from tests.oracles import LAYOUT, InventedStream, NaiveReplay, assert_row, expected_sample

CPU = torch.device("cpu")


class Pair:
    """A shard with shared memory, a reader, and a list of all rows. `copied`: the reader keeps a
    copy of the frames on its device, here the CPU.
    """

    def __init__(self, layout: ShardLayout = LAYOUT, seed: int = 0, copied: bool = False):
        self.layout = layout
        self.shared = SharedFrames(layout)
        self.shard = ReplayShard(ReplayConfig(), layout, seed=seed, frames=self.shared)
        self.naive = NaiveReplay(layout, layout.n_step)
        self.streams = {
            s: InventedStream(seed + s, source=s, num_lanes=2, n_step=3) for s in layout.sources
        }
        attached = AttachedFrames.attach(self.shared.address)
        assert attached is not None
        self.reader = attached
        self.copy = DeviceFrames(layout, attached.frame_LCP, CPU) if copied else None

    def add(self, source: int, rows: int) -> None:
        chunk = self.streams[source].chunk(rows)
        self.shard.add(chunk)
        self.naive.add(self.streams[source], chunk)

    def gather(self, placed: PlacedSample) -> tuple[AnySample, np.ndarray]:
        if self.copy:
            there = DeviceSample.empty(placed.size, self.layout, CPU)
            self.copy.gather(placed, there)
            return there, self.reader.not_overwritten(placed)
        out = Sample.empty(
            placed.size, self.layout.stack, self.layout.frame_shape, self.layout.past_actions,
            self.layout.later,
        )  # fmt: skip
        return out, self.reader.gather(placed, out)

    def expected(self) -> dict[int, dict[str, Any]]:
        return {
            key: expected_sample(self.layout, origin) for key, origin in self.naive.live().items()
        }


@pytest.mark.parametrize("copied", [False, True])
@pytest.mark.parametrize(("stack_start", "later"), [("blank", 0), ("repeat", 3)])
def test_attached_frames_gather_equals_the_list_of_all_rows(stack_start, later, copied: bool):
    """More than 20,000 transitions under both rules are compared, through many rounds of the
    ring.
    """
    pair = Pair(replace(LAYOUT, stack_start=stack_start, later=later), copied=copied)
    rng, checked = np.random.default_rng(1), 0
    while checked < 10_240:
        pair.add(int(rng.choice(LAYOUT.sources)), int(rng.integers(5, 30)))
        if not pair.shard.size:
            continue
        expected = pair.expected()
        sample, whole_B = pair.gather(pair.shard.sample_places(512))
        assert whole_B.all()
        for i, key in enumerate(sample.key_B.tolist()):
            assert_row(sample, i, expected[key])
        checked += 512


@pytest.mark.parametrize("copied", [False, True])
def test_attached_frames_notice_overwritten_transitions(copied: bool):
    """The reader also notices rows of a copy that were overwritten before they were copied."""
    pair, rng = Pair(seed=5, copied=copied), np.random.default_rng(2)
    for source in (*LAYOUT.sources, *LAYOUT.sources):
        pair.add(source, 25)
    gone = 0
    for _ in range(30):
        placed = pair.shard.sample_places(100)
        pair.add(int(rng.choice(LAYOUT.sources)), int(rng.integers(1, 20)))
        expected = pair.expected()
        sample, whole_B = pair.gather(placed)
        assert whole_B.tolist() == [key in expected for key in sample.key_B.tolist()]
        for i in np.flatnonzero(whole_B):
            assert_row(sample, i, expected[int(sample.key_B[i])])
        gone += int((~whole_B).sum())
    assert gone > 300


def test_another_process_reads_it_and_it_goes_with_its_owner():
    pair = Pair()
    for source in LAYOUT.sources:
        pair.add(source, 30)
    address = pair.shared.address
    code = (
        "import sys; import numpy as np; from genray.distributed.shared_frames import "
        "AttachedFrames, Address\n"
        "from genray.rl.replay import ShardLayout\n"
        "for text in sys.argv[1:]:\n"
        "    attached = AttachedFrames.attach(eval(text))\n"
        "    print(attached and int(attached.frame_LCP.astype(int).sum()))\n"
    )
    other = replace(address, token=bytes(64))  # another process behind the same number
    done = subprocess.run(
        [sys.executable, "-c", code, repr(address), repr(other)],
        capture_output=True, text=True, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(int(pair.shard._frames.frame_LCP.astype(int).sum())), "None"]


def test_attach_returns_none_for_unreachable_memory(tmp_path: Path):
    address = SharedFrames(LAYOUT).address
    empty = tmp_path / "empty"
    empty.touch()
    for path in ("/proc/0/fd/3", str(empty), str(tmp_path / "none"), str(tmp_path)):
        assert AttachedFrames.attach(replace(address, path=path)) is None
