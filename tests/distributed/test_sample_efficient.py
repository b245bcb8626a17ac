"""Tests the switches of sample-efficient DQN on Ray: two learners with equal weights, and what
collectors act with.
"""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import ray
import torch

from genray.distributed.coordinator import Coordinator
from genray.rl.env import EnvConfig
from tests.distributed.test_learner_group import same, weights
from tests.helpers.distributed import run
from tests.helpers.efficient import TINY_BBF

pytestmark = [pytest.mark.ray, pytest.mark.timeout(400)]

CONFIG = replace(
    TINY_BBF,
    env=EnvConfig(env="tests.rl.test_annealing:Numbered", stack=2),
    learner=replace(TINY_BBF.learner, learners=2),
    replay=replace(TINY_BBF.replay, samples_per_insert=32.0),
    run=replace(TINY_BBF.run, publish_every=5),
)


def test_switches_on_ray_with_two_learners(ray_here, tmp_path: Path):
    engine = Coordinator(CONFIG, learner_threads=1)
    try:
        progress = run(engine, 160, within=0.2)
        assert progress.updates > 2 * CONFIG.learner.reset_every
        engine.settle()
        first, second = weights(engine)
        # Both learners have the leader's median frame and the same new weights after resets.
        assert same(first, second) and first["median_HW"].any()
        # The policy is w⁻, which differs from w.
        assert same(engine.network().state_dict(), first)
        engine.save(tmp_path)
    finally:
        engine.close()
    saved = torch.load(tmp_path / "learner.pt", weights_only=True)
    assert same(saved["target"], first) and not same(saved["online"], first)
    again = Coordinator(CONFIG, learner_threads=1)
    try:
        again.load(tmp_path)
        assert same(weights(again)[0], first)
        steps = json.loads((tmp_path / "state.json").read_text())["steps"]
        assert run(again, steps + 40, within=0.2).updates > saved["updates"]
        # Shards compute the returns with the n of the learner's clock.
        returns = ray.get(again.shards[0].__ray_call__.remote(lambda self: self._shard.returns))
        assert 3 <= returns[0] <= 10 and 0.97 <= returns[1] <= 0.995
    finally:
        again.close()
