"""Tests on a CPU what the learner of a GPU does differently.

It fetches the next round during an update, and keeps the replay's frames on its device. The count
of samples stays the same.
"""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import ray
import torch

from genray.distributed.coordinator import Coordinator
from tests.helpers.distributed import run, tiny

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]


def test_learner_actor_counts_batches_fetched_ahead_once(ray_here, tmp_path: Path):
    config = tiny()
    config = replace(config, learner=replace(config.learner, frames_on="device"))
    engine = Coordinator(config, learner_threads=1)

    def ask(function):
        return ray.get(engine._learners.members[0].__ray_call__.remote(function))

    def fetch_ahead(actor):
        fetch, actor.fetched = actor._fetch, 0

        def counted():
            fetch()
            actor.fetched += bool(actor._ready)

        actor._fetches_ahead, actor._fetch = True, counted

    try:
        ask(fetch_ahead)
        progress = run(engine, 1_200)
        assert progress.samples_per_insert == pytest.approx(8.0, rel=0.05)
        assert progress.lost_transitions == progress.refused_writes == 0
        assert ask(lambda actor: actor.fetched) > 20
        assert ask(lambda actor: [record.copy is not None for record in actor._feed._records]) == [
            True,
            True,
        ]
        engine.settle()
        engine.save(tmp_path)
        state = json.loads((tmp_path / "state.json").read_text())
        updates = torch.load(tmp_path / "learner.pt", weights_only=True)["updates"]
        assert state["limiter"]["sampled"] == updates * config.learner.batch_size

        engine.load(tmp_path)  # the frames behind the copies are replaced
        assert ask(lambda actor: [record.copy is None for record in actor._feed._records]) == [
            True,
            True,
        ]
        after = run(engine, 1_600)
        assert after.updates > progress.updates
    finally:
        engine.close()
