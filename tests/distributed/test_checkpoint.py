"""Tests that the counts of a checkpoint on Ray agree with the replay's files, with data in
flight.
"""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import torch

from genray.distributed import checkpoint
from genray.distributed.coordinator import Coordinator
from genray.distributed.messages import CollectReport, ShardCounts
from genray.distributed.tally import Tally
from tests.helpers.distributed import run, tiny

LANES = tiny().collect.envs_per_collector
CHUNK = tiny().collect.chunk_rows * LANES


class Saved:
    """The counts of a checkpoint, and the same counts from the shards' files."""

    def __init__(self, folder: Path):
        self.state: dict[str, Any] = json.loads((folder / "state.json").read_text())
        self.shards = self.state["shards"]
        self.heads = [rows for shard in self.shards for rows in shard["head"].values()]
        self.inserted = sum(shard["counts"]["inserted"] for shard in self.shards)
        self.updates = torch.load(folder / "learner.pt", weights_only=True)["updates"]
        for index, shard in enumerate(self.shards):
            valid = np.load(folder / f"replay-{index}" / "valid_LC.npy")
            assert valid.sum() == shard["counts"]["size"]
            np.testing.assert_array_equal(
                np.load(folder / f"replay-{index}" / "tree.npy") > 0, valid
            )

    def learner_agrees(self, batch_size: int = 32) -> None:
        assert self.state["limiter"]["inserted"] == self.inserted
        assert self.state["limiter"]["sampled"] == self.updates * batch_size


def catch_transitions(rows: int, n_step: int) -> int:
    """Return the transitions of one lane by the rules of Catch: an episode has 11 steps and a row
    of a reset, and the last n rows have no return yet.
    """
    return sum(row % 12 != 11 for row in range(rows - n_step))


def fly(engine: Coordinator, until_step: int) -> None:
    """Advance, and stop while chunks are being played, are in transit, and wait for the limit."""
    stop = time.monotonic() + 150
    while engine.steps < until_step:
        assert time.monotonic() < stop
        for event in engine.advance(10**9, seconds=0.3).events:
            print(event)
    assert all(worker.calls for worker in engine._collectors)


class Runs:
    """Runs one engine at a time, because two CPUs hold one run. An engine serves several tests in
    their order, because starting an engine takes longer than most tests.
    """

    engine: Coordinator | None = None

    def start(self) -> Coordinator:
        """Close the running engine, and start another one."""
        self.close()
        self.engine = Coordinator(tiny(), learner_threads=1)
        return self.engine

    def close(self) -> None:
        if self.engine is not None:
            self.engine.close()
            self.engine = None


@pytest.fixture(scope="module")
def runs(ray_here) -> Iterator[Runs]:
    made = Runs()
    yield made
    made.close()


@pytest.mark.ray
@pytest.mark.timeout(400)
def test_checkpoint_has_all_actors_at_one_instant(runs: Runs, tmp_path: Path):
    """Two checkpoints are saved with data in flight. At the second one the rings have wrapped: they
    hold 4,000 of about 4,500 transitions.
    """
    engine = runs.start()
    for number, steps in enumerate((1_000, 5_000)):
        fly(engine, steps)
        (tmp_path / str(number)).mkdir()
        engine.save(tmp_path / str(number))
        saved = Saved(tmp_path / str(number))
        assert saved.state["steps"] == engine.steps == LANES * sum(saved.heads) >= steps
        n_step = engine.config.collect.n_step
        made = LANES * sum(catch_transitions(rows, n_step) for rows in saved.heads)
        assert saved.state["made_transitions"] == saved.inserted == made
        assert saved.state["lost_transitions"] == saved.state["restarts"] == 0
        saved.learner_agrees()
        assert len(saved.state["collectors"]) == 2
        # No collector has a chunk on its way, and no priority that the learner knows is missing
        # from the trees.
        on_their_way = [
            worker.actor.__ray_call__.remote(lambda self: self._shipped)
            for worker in engine._collectors
        ]
        assert ray.get(on_their_way) == [None, None]
        waiting = engine.learner.__ray_call__.remote(
            lambda self: sum(len(record.keys) for record in self._feed._records)
        )
        assert ray.get(waiting) == 0


@pytest.mark.ray
@pytest.mark.timeout(400)
def test_tally_counts_the_chunks_of_a_dead_collector(runs: Runs, tmp_path: Path):
    engine = runs.engine or runs.start()
    fly(engine, engine.steps + 500)
    ray.kill(engine._collectors[0].actor, no_restart=False)
    engine.save(tmp_path)
    saved = Saved(tmp_path)
    assert saved.state["made_transitions"] == saved.inserted + saved.state["lost_transitions"]
    assert 0 <= saved.state["steps"] - LANES * sum(saved.heads) <= 2 * CHUNK
    saved.learner_agrees()
    assert saved.state["restarts"] == 1 and len(saved.state["collectors"]) == 2
    run(engine, saved.state["steps"] + 500)
    engine.save(tmp_path)
    saved = Saved(tmp_path)
    assert saved.state["made_transitions"] == saved.inserted + saved.state["lost_transitions"]


@pytest.mark.ray
@pytest.mark.timeout(400)
def test_checkpoint_saves_a_dead_shard_as_empty(runs: Runs, tmp_path: Path):
    engine = runs.start()
    fly(engine, 1_500)
    ray.kill(engine.shards[1], no_restart=False)
    engine.save(tmp_path)
    saved = Saved(tmp_path)
    full, empty = (shard["counts"]["size"] for shard in saved.shards)
    assert full > 500 and empty <= 3 * CHUNK  # chunks that were on their way to it
    lost = saved.state["lost_transitions"]
    # What it had taken in after it last told the learner is not counted as lost: at most what was
    # on its way.
    assert 500 < lost <= saved.state["made_transitions"] - saved.inserted <= lost + 4 * CHUNK
    assert saved.state["limiter"]["sampled"] == saved.updates * 32
    again = runs.start()
    again.load(tmp_path)
    assert again.steps == saved.state["steps"]
    assert again.restarts == saved.state["restarts"] >= 1
    progress = run(again, again.steps + 800)
    assert progress.lost_transitions == lost
    assert progress.updates > saved.updates


@pytest.mark.ray
@pytest.mark.timeout(400)
def test_checkpoint_without_a_lost_shard_continues(runs: Runs, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(checkpoint, "ABSENT_S", 3.0)
    engine = runs.engine or runs.start()
    fly(engine, engine.steps + 800)
    before = engine.advance(0, seconds=0.1).lost_transitions
    held = ray.get(engine.shards[1].counts.remote()).size
    ray.kill(
        engine.shards[1], no_restart=True
    )  # as on a cluster without another node for the shard
    engine.save(tmp_path)
    state = json.loads((tmp_path / "state.json").read_text())
    assert state["shards"][1]["absent"] and not (tmp_path / "replay-1").exists()
    assert 0.5 * held < state["lost_transitions"] - before <= held + 4 * CHUNK
    stop = time.monotonic() + 100
    while (progress := engine.advance(10**9, seconds=0.5)).updates < state["limiter"][
        "sampled"
    ] / 32 + 20:
        assert time.monotonic() < stop  # the run continues with the collector of the other shard
    assert progress.lost_transitions >= state["lost_transitions"]
    again = runs.start()
    again.load(tmp_path)
    assert again.steps == state["steps"]
    kept, absent = (ray.get(shard.counts.remote()).size for shard in again.shards)
    assert kept == state["shards"][0]["counts"]["size"] > 500
    assert absent == 0
    assert run(again, again.steps + 400).lost_transitions == state["lost_transitions"]


# -- the books, without Ray ------------------------------------------------------------------------


def report(steps: int, transitions: int, lost: int = 0) -> CollectReport:
    return CollectReport(
        steps=steps, transitions=transitions, episodes=[], epsilon=0.0, lost_transitions=lost
    )


def counts(inserted: int, life: int = 7) -> ShardCounts:
    layout, _ = tiny().plan_shards((84, 84))
    return ShardCounts(
        incarnation=life,
        inserted=inserted,
        size=inserted,
        total=1.0,
        weight_lag=0.0,
        nbytes=0,
        layout=layout,
    )


def books() -> Tally:
    """Return the tally of two collectors of 4 lanes on one shard, which accepted a chunk of 10 rows
    of each.
    """
    tally = Tally(collectors=2, shards=1, lanes=4)
    tally.begin(0, counts(0), {0: 0, 1: 0})
    tally.add(0, report(40, 35))
    tally.add(1, report(40, 36))
    return tally


@pytest.mark.parametrize(
    ("inserted", "rows", "life", "expected"),
    [
        (71, (10, 10), 7, (80, 71, 0)),
        (36, (0, 10), 7, (80, 71, 35)),  # the first one's chunk was reported and never arrived
        (109, (20, 10), 7, (120, 109, 0)),  # it died after it had shipped a second one
        (0, (0, 0), 8, (80, 71, 0)),  # the shard died: the learner tells what it held
    ],
)
def test_books_are_corrected_by_what_the_shard_holds(inserted: int, rows, life: int, expected):
    tally = books()
    for _ in range(2):  # a second call has nothing to correct
        tally.balance(0, counts(inserted, life), dict(enumerate(rows)))
        assert (tally.steps, tally.made, tally.lost) == expected
    tally.add(0, report(40, 38))
    tally.balance(0, counts(inserted + 38, life), {0: rows[0] + 10, 1: rows[1]})
    assert (tally.steps, tally.made, tally.lost) == (
        expected[0] + 40,
        expected[1] + 38,
        expected[2],
    )


def test_books_without_an_entry_take_what_the_shards_accepted():
    tally = Tally(collectors=2, shards=2, lanes=4)
    tally.restore({"steps": 90}, [30, 50])
    assert (tally.steps, tally.made, tally.lost) == (90, 80, 0)
