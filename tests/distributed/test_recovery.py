"""Tests that dead actors are replaced, stale actors write nothing, and no acknowledged chunk is
lost.
"""

import json
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import ray

from genray.distributed.coordinator import Coordinator
from genray.distributed.ledger import VARIABLE
from genray.distributed.messages import Published, Request
from genray.rl import DQNConfig
from tests.helpers.distributed import run, tiny

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]


def config(snapshot_s: float = 0.5) -> DQNConfig:
    return replace(tiny(), run=replace(tiny().run, learner_snapshot_s=snapshot_s))


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return the directory in which all actors of `engine` record each chunk."""
    folder = tmp_path_factory.mktemp("ledger")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, str(folder))
        yield folder


@pytest.fixture(scope="module")
def engine(ray_here, ledger: Path) -> Iterator[Coordinator]:
    """Return one run that survives one fault after the other. The tests run in their order, because
    starting an engine takes longer than most tests.
    """
    made = Coordinator(config(), learner_threads=1)
    yield made
    made.close()


class Account:
    """The lines of the ledger, by chunk."""

    def __init__(self, folder: Path):
        self.fates: dict[str, Counter[tuple[int, int, int]]] = {}
        self.lives: dict[tuple[int, int, int], list[int]] = {}
        for path in folder.glob("*.jsonl"):
            for line in path.read_text().splitlines():
                entry = json.loads(line)
                chunk = (entry["collector"], entry["incarnation"], entry["first_row"])
                self.fates.setdefault(entry["event"], Counter())[chunk] += 1
                if entry["event"] == "stored":
                    self.lives.setdefault(chunk, []).append(entry["life"])

    def check(self) -> None:
        """Assert that every acknowledged chunk was stored, and none twice in one incarnation of a
        shard.
        """
        acknowledged = set(self.fates["acknowledged"])
        assert len(acknowledged) > 10 and acknowledged <= set(self.lives)
        assert all(len(lives) == len(set(lives)) for lives in self.lives.values())
        assert set(self.fates["stored"]) <= set(self.fates["made"])


def forge(engine: Coordinator, collector: int, epoch: int, incarnation: int | None):
    """Send a chunk of a collector under another incarnation, and return the shard's answer."""

    def write(self, epoch: int, incarnation: int | None):
        from dataclasses import replace

        import ray

        chunk, _ = self._collector.collect()
        if incarnation is not None:
            chunk = replace(chunk, incarnation=incarnation)
        return ray.get(self._shard.add.remote(chunk, epoch))

    return ray.get(
        engine._collectors[collector].actor.__ray_call__.remote(write, epoch, incarnation)
    )


def test_coordinator_replaces_a_dead_learner_and_keeps_the_replay(engine):
    before = run(engine, 1_200)
    stop = time.monotonic() + 150
    while not engine._learners._snapshot or engine._learners._snapshot.updates < 100:
        assert time.monotonic() < stop
        # an idle engine requests no snapshots
        before = run(engine, before.steps + 50)
    kept = engine._learners._snapshot.updates
    ray.kill(engine.learner)
    progress = run(engine, before.steps + 1_300)
    event = next(event for event in progress.events if "the learner died" in event)
    assert (
        f"{before.updates - kept:,} updates lost" in event
        or progress.lost_updates > before.updates - kept
    )
    assert progress.restarts == 1 and progress.lost_transitions == 0
    assert progress.replay_size > before.replay_size
    # It went on from what it had learned, not from the beginning; and no more is drawn than samples
    # per insert allows.
    assert progress.updates > kept
    assert progress.samples_per_insert == pytest.approx(8.0, rel=0.03)
    engine.settle()
    inserted = sum(
        counts["inserted"] for counts in ray.get([shard.stats.remote() for shard in engine.shards])
    )
    state = engine.learner.__ray_call__.remote(
        lambda self: (
            self._feed.limiter.inserted,
            self._limiter_state()["sampled"],
            self._learner.optimizer.state_dict()["state"][0]["step"],
            self._learner.updates,
        )
    )
    counted, sampled, adam_steps, updates = ray.get(state)
    assert counted == inserted
    assert sampled == updates * 32
    assert updates >= progress.updates
    assert adam_steps == updates  # Adam's count of steps shows that its moments were restored, too


def test_checkpoint_is_complete_after_a_learners_death(engine, tmp_path: Path):
    before = run(engine, engine.steps + 200)
    ray.kill(engine.learner)
    engine.save(tmp_path)
    state = json.loads((tmp_path / "state.json").read_text())
    assert state["restarts"] == before.restarts + 1
    assert state["limiter"]["inserted"] == sum(
        shard["counts"]["inserted"] for shard in state["shards"]
    )
    assert run(engine, engine.steps + 600).updates > before.updates


def test_chunk_whose_answer_was_lost_is_stored_once(engine, ledger: Path):
    """The answers get lost, but not the chunks: each answer is replaced by that of a dead actor."""

    @ray.remote
    class Dead:
        def answer(self) -> None:
            time.sleep(60)

    def lose_answer(self, dead) -> None:
        import ray

        ray.wait([self._shipped.answer], timeout=30)  # the shard accepted the chunk
        self._shipped.answer = dead[0]

    engine.settle()
    worker = engine._collectors[0]
    before = ray.get(engine.shards[0].stats.remote())["inserted"]
    doubled = sum(Account(ledger).fates.get("duplicate", Counter()).values())
    dead = Dead.options(num_cpus=0).remote()
    reference = dead.answer.remote()
    worker.actor.collect.remote(0, worker.epoch)
    ray.get(worker.actor.__ray_call__.remote(lose_answer, [reference]))
    ray.kill(dead)
    report = ray.get(worker.actor.finish_chunk.remote())
    assert report.lost_transitions == 0
    after = ray.get(engine.shards[0].stats.remote())["inserted"]
    assert 0 < after - before <= 32
    account = Account(ledger)
    account.check()
    assert sum(account.fates["duplicate"].values()) == doubled + 1


def test_collector_that_leaves_loses_nothing(engine, ledger: Path):
    """After SIGTERM, as on a spot machine, the collector finishes and sends its chunk. The
    departure is no fault.
    """
    before = run(engine, engine.steps + 200)
    rows = ray.get(engine.shards[0].heads.remote())[0]
    process = engine._collectors[0].actor.__ray_call__.remote(lambda self: os.getpid())
    os.kill(ray.get(process), signal.SIGTERM)
    progress = run(engine, before.steps + 1_500)
    # the coordinator's events and the collector's successor
    stop = time.monotonic() + 150
    while ray.get(engine.shards[0].heads.remote())[0] <= rows + 30:
        assert time.monotonic() < stop, "no successor plays"
        events = progress.events
        progress = run(engine, progress.steps + 100)
        progress.events = events + progress.events
    assert ["left its node as requested" in event for event in progress.events].count(True) == 1
    assert progress.restarts == before.restarts
    assert progress.lost_transitions == before.lost_transitions
    engine.settle()  # no chunk is in transit
    account = Account(ledger)
    account.check()
    lives = {incarnation for collector, incarnation, _ in account.fates["made"] if collector == 0}
    assert len(lives) == 2
    assert set(account.fates["made"]) == set(account.fates["acknowledged"])


def test_lost_actors_lose_and_double_nothing_that_was_acknowledged(engine, ledger: Path):
    before = run(engine, engine.steps + 100)
    ray.kill(engine._collectors[0].actor, no_restart=False)
    run(engine, engine.steps + 600)
    ray.kill(engine.shards[1], no_restart=False)
    progress = run(engine, engine.steps + 1_500)
    engine.settle()
    Account(ledger).check()
    assert progress.restarts == before.restarts + 2
    assert progress.refused_writes == before.refused_writes


def test_stale_writers_are_refused(engine):
    """A forged collector and a forged learner write before and after their originals were
    replaced.
    """
    before = run(engine, engine.steps + 100)
    engine.settle()
    collector, learner = engine._collectors[0].epoch, engine._learners.epoch
    ray.get([shard.accept_beyond_limit.remote(True) for shard in engine.shards])
    # another incarnation of the same epoch
    assert not forge(engine, 0, epoch=collector, incarnation=12345).accepted
    assert forge(engine, 0, epoch=collector, incarnation=None).accepted
    inserted = [
        counts["inserted"] for counts in ray.get([shard.stats.remote() for shard in engine.shards])
    ]

    engine._learners.restart(RuntimeError("cut off"))
    engine._collectors[0].epoch += 1
    stop = time.monotonic() + 150
    while (
        engine.advance(0, seconds=0.5).refused_writes < before.refused_writes + 1
        or engine._learners.starting
    ):
        assert time.monotonic() < stop
    assert not forge(engine, 0, epoch=collector, incarnation=None).accepted
    priorities = {"key_B": np.zeros(1, np.int64), "delta_B": np.ones(1, np.float32)}
    weights = Published(version=10**6, reference=[], epoch=learner)
    for request in (
        Request(epoch=learner, **priorities),
        Request(epoch=learner, published=weights),
        Request(epoch=learner, counts=(8,)),
    ):
        reply = ray.get(engine.shards[0].sample.remote(request))
        assert reply.drawn is None
    assert (
        ray.get(
            engine.shards[0].sample.remote(
                Request(epoch=learner + 1, counts=(8,), insert_limit=None)
            )
        ).drawn.size
        == 8
    )
    assert ray.get(engine.shards[0].published.remote()).version < 10**6
    assert [
        counts["inserted"] for counts in ray.get([s.stats.remote() for s in engine.shards])
    ] == inserted
    ray.get([shard.accept_beyond_limit.remote(False) for shard in engine.shards])
    progress = run(engine, engine.steps + 600)
    # two chunks, priorities, weights
    assert progress.refused_writes == before.refused_writes + 4
