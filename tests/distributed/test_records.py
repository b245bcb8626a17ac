"""Tests packed records on Ray: two learners, two compressed shards, masks and normalisation."""

import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from genray.distributed.coordinator import Coordinator
from genray.rl.agent import LocalAgent
from genray.rl.evaluate import evaluate
from tests.distributed.test_learner_group import same, weights
from tests.rl.test_records import LADDER

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

CONFIG = replace(
    LADDER,
    replay=replace(LADDER.replay, replay_store="lz4"),
    learner=replace(LADDER.learner, batch_size=8, learners=2),
    run=replace(LADDER.run, publish_every=5),
)


def test_records_with_masks_on_ray_with_two_learners(ray_here, tmp_path: Path):
    """An illegal action would end a collector; none restarts. Both learners normalise in the same
    way, and a run in one process continues the checkpoint.
    """
    engine = Coordinator(CONFIG, learner_threads=1)
    try:
        stop = time.monotonic() + 400
        while (progress := engine.advance(3_000, seconds=1.0)).updates <= 20:
            assert time.monotonic() < stop
        assert progress.restarts == 0, progress.events
        engine.save(tmp_path)
        first, second = weights(engine)
        assert same(first, second) and first["convolutions.0.count"] >= 20 * 8
        saved = torch.load(tmp_path / "learner.pt", weights_only=True)
        assert same(saved["online"], first)
        network = engine.network()
        assert len(evaluate(network, CONFIG.env, episodes=4).scores) == 4
    finally:
        engine.close()
    one = replace(CONFIG, learner=replace(CONFIG.learner, learners=1))
    again = LocalAgent(one, threads=1)
    again.load(tmp_path)
    assert same(again.network().state_dict(), network.state_dict())
    again.close()
