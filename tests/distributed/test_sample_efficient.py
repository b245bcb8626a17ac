"""Tests the switches of sample-efficient DQN on Ray, with two learners."""

import time
from dataclasses import replace
from pathlib import Path

import pytest
import ray
import torch

from genray.distributed.coordinator import Coordinator
from genray.rl.env import EnvConfig
from tests.distributed.test_learner_group import same, weights
from tests.helpers.efficient import TINY_BBF

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

CONFIG = replace(
    TINY_BBF,
    env=EnvConfig(env="tests.rl.test_annealing:Numbered", stack=2),
    learner=replace(TINY_BBF.learner, learners=2),
    run=replace(TINY_BBF.run, publish_every=5),
)


def test_switches_on_ray_with_two_learners(ray_here, tmp_path: Path):
    """About 16 samples · (160 − 40) inserts / 2 batches of 8 = 120 updates, with 3 resets."""
    engine = Coordinator(CONFIG, learner_threads=1)
    try:
        stop = time.monotonic() + 400
        while engine.advance(200, seconds=1.0).updates <= CONFIG.learner.reset_every:
            assert time.monotonic() < stop
        engine.save(tmp_path)
        first, second = weights(engine)
        # Both learners have the leader's median frame and the same new weights after resets.
        assert same(first, second) and first["median_HW"].any()
        # So have their networks of self-prediction, whose gradients are averaged as well.
        one, other = ray.get(
            [
                each.__ray_call__.remote(lambda self: self._learner.prediction.state_dict())
                for each in engine._learners.members
            ]
        )
        saved = torch.load(tmp_path / "learner.pt", weights_only=True)
        assert same(one, other) and same(saved["prediction"], one)
        # Collectors and the policy use w⁻, which differs from w.
        assert same(saved["target"], first) and not same(saved["online"], first)
        assert same(engine.network().state_dict(), first)
        # Shards compute the returns with the n and γ of the learners' clock.
        shard = engine.shards[0]
        n, gamma = ray.get(shard.__ray_call__.remote(lambda self: self._shard.returns))
        assert 3 <= n <= 10 and 0.97 <= gamma <= 0.995
    finally:
        engine.close()
