"""Tests that a run on Ray makes its steps and updates, survives dead actors, and resumes."""

import time
from dataclasses import replace
from pathlib import Path

import pytest
import ray
import torch

from genray.distributed.coordinator import Coordinator
from genray.errors import ConfigError
from genray.rl.agent import LocalAgent
from tests.helpers.distributed import run, tiny

pytestmark = [pytest.mark.ray, pytest.mark.timeout(400)]


def test_coordinator_refuses_more_shards_than_collectors(ray_here):
    with pytest.raises(ConfigError, match=r"--shards 3: more than --collectors 2"):
        Coordinator(replace(tiny(), replay=replace(tiny().replay, shards=3)))


@pytest.fixture(scope="module")
def coordinator(ray_here):
    """Return one run for the following tests, in their order, because starting an engine takes
    longer than most tests. The last test closes the run, because two CPUs hold one run.
    """
    engine = Coordinator(tiny(), learner_threads=1)
    yield engine
    engine.close()


def heads(engine: Coordinator) -> dict[int, int]:
    """Return the rows written so far, by collector."""
    found = ray.get([shard.heads.remote() for shard in engine.shards])
    return {collector: rows for each in found for collector, rows in each.items()}


def stats(engine: Coordinator) -> list[dict[str, int]]:
    """Return the counts of each shard."""
    return ray.get([shard.stats.remote() for shard in engine.shards])


def test_same_initial_network_as_the_local_form(coordinator):
    local = LocalAgent(tiny())
    mine, theirs = coordinator.network().state_dict(), local.network().state_dict()
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)


def test_coordinator_continues_a_local_checkpoint(coordinator, tmp_path: Path):
    local = LocalAgent(tiny())
    while local.steps < 1_000:
        local.advance(1_000, seconds=5.0)
    local.save(tmp_path)
    coordinator.load(tmp_path)
    assert coordinator.steps == local.steps
    assert run(coordinator, 1_800).updates > local.learner.updates


def test_makes_its_steps_and_keeps_samples_per_insert(coordinator):
    start = coordinator.steps
    progress = run(coordinator, start + 2_000)
    # at most the chunks that were in flight
    assert start + 2_000 <= progress.steps < start + 2_000 + 4 * 32
    assert progress.samples_per_insert == pytest.approx(8.0, rel=0.02)
    assert progress.updates * 32 <= 8 * (progress.steps - 200)
    assert 0 < progress.replay_size <= 4_000
    assert 0 < progress.weight_lag < 500
    assert progress.restarts == progress.lost_transitions == 0


def test_coordinator_continues_after_a_collector_is_killed(coordinator):
    before = run(coordinator, coordinator.steps + 600)
    rows = heads(coordinator)
    ray.kill(coordinator._collectors[0].actor, no_restart=False)
    progress = run(coordinator, before.steps + 1_500)
    assert progress.restarts >= before.restarts + 1
    assert any("collector 0 died" in event for event in progress.events)
    # Both collectors, not only the survivor, made the steps after the fault.
    stop = time.monotonic() + 120
    while min(heads(coordinator)[collector] - rows[collector] for collector in rows) <= 60:
        assert time.monotonic() < stop, (rows, heads(coordinator))
        progress = run(coordinator, progress.steps + 200)


def test_coordinator_counts_the_loss_of_a_killed_shard(coordinator):
    before = run(coordinator, coordinator.steps + 1_000)
    ray.kill(coordinator.shards[1], no_restart=False)
    progress = run(coordinator, before.steps + 2_000)
    assert any("replay shard 1 died" in event for event in progress.events)
    lost = progress.lost_transitions - before.lost_transitions
    assert 0.3 * before.replay_size < lost < before.replay_size
    assert progress.updates > before.updates + 300
    sizes = [each["size"] for each in stats(coordinator)]
    assert min(sizes) > 500, f"the restarted shard did not refill: {sizes}"


def test_coordinator_continues_with_replay_and_learner(coordinator, tmp_path: Path):
    """Another engine continues, with new collectors and a new learner."""
    before = run(coordinator, coordinator.steps + 200)
    coordinator.save(tmp_path)
    saved = coordinator.steps
    weights = coordinator.network().state_dict()
    held = sum(each["size"] for each in stats(coordinator))
    coordinator.close()
    second = Coordinator(tiny(), learner_threads=1)
    try:
        second.load(tmp_path)
        restored = second.network().state_dict()
        assert all(torch.equal(weights[name], restored[name]) for name in weights)
        assert sum(each["size"] for each in stats(second)) == held
        assert second.steps == saved
        after = run(second, saved + 1_000)
        assert after.updates > before.updates
        assert after.samples_per_insert == pytest.approx(8.0, rel=0.03)
    finally:
        second.close()


def test_free_running_learner_does_not_wait(ray_here):
    engine = Coordinator(tiny(samples_per_insert=0.0), learner_threads=1)
    try:
        stop = time.monotonic() + 200
        while (progress := engine.advance(10**6, seconds=1.0)).updates < 100:
            assert time.monotonic() < stop, progress
    finally:
        engine.close()
