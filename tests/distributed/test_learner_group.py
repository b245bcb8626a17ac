"""Tests two learners on Ray: equal weights, and a death that loses neither replay nor weights."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import ray
import torch

from genray.distributed.coordinator import Coordinator
from genray.rl import DQNConfig
from tests.helpers.distributed import run, tiny

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]


# A round of batches of both learners: 2 · 4 · 32 = 256 samples, of (1,000 − 200) · 8 = 6,400.
WITHIN = 0.06


def config() -> DQNConfig:
    small = tiny()
    return replace(
        small,
        learner=replace(small.learner, learners=2),
        run=replace(small.run, learner_snapshot_s=0.5),
    )


def weights(engine: Coordinator) -> list[dict[str, torch.Tensor]]:
    return ray.get(
        [
            each.__ray_call__.remote(lambda self: self._learner.weights())
            for each in engine._learners.members
        ]
    )


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


def test_learner_group_of_two_restarts_together(ray_here, tmp_path: Path):
    engine = Coordinator(config(), learner_threads=1)
    try:
        before = run(engine, 1_000, within=WITHIN)
        engine.settle()
        first, second = weights(engine)
        assert same(first, second)
        assert before.updates > 50 and before.restarts == 0
        # Both drew from both shards, under one limit: 2 · 32 transitions an update.
        assert before.samples_per_insert == pytest.approx(8.0, rel=WITHIN)
        ray.get([each.settle.remote() for each in engine._learners.members])

        engine.save(tmp_path)
        state = json.loads((tmp_path / "state.json").read_text())
        updates = torch.load(tmp_path / "learner.pt", weights_only=True)["updates"]
        assert state["limiter"]["sampled"] == updates * 64
        assert state["limiter"]["inserted"] == sum(
            shard["counts"]["inserted"] for shard in state["shards"]
        )
        assert len(state["learner_rngs"]) == 1 and state["learner_rngs"][0] != state["rng"]

        # the learner that is not the leader; the leader waits for it
        ray.kill(engine._learners.members[1])
        after = run(engine, 2_000, within=WITHIN)
        assert any("one of 2 learners died" in event for event in after.events)
        assert after.restarts == 1 and after.lost_transitions == 0 and after.refused_writes == 0
        assert after.updates > before.updates and after.replay_size > before.replay_size
        assert after.samples_per_insert == pytest.approx(8.0, rel=WITHIN)
        engine.settle()
        assert same(*weights(engine))
    finally:
        engine.close()

    again = Coordinator(config(), learner_threads=1)
    try:
        again.load(tmp_path)
        restored = weights(again)
        assert same(*restored) and same(
            restored[0], torch.load(tmp_path / "learner.pt", weights_only=True)["online"]
        )
        assert run(again, state["steps"] + 300, within=WITHIN).updates > updates
    finally:
        again.close()
