"""Catch is solved by its preset: a mean return of at least 0.95 of its optimum, 1.0.

The runs are of one process; test_through_ray.py learns through Ray.
"""

import pytest
import torch

from genray.commands.train_dqn import LaunchConfig, open_engine
from genray.rl import presets
from genray.rl.evaluate import evaluate

pytestmark = [pytest.mark.learn, pytest.mark.timeout(600)]


def test_catch_is_solved():
    torch.set_num_threads(1)
    config = presets.catch()
    with open_engine(config, LaunchConfig(local=True)) as engine:
        step = 0
        for step in range(5_000, config.run.steps + 1, 1_000):  # stops as soon as it is solved
            while engine.advance(step, seconds=5.0).steps < step:
                pass
            result = evaluate(engine.network(), config.env, episodes=256, epsilon=0.0, seed=1)
            if result.mean >= 0.95:
                break
    assert result.mean >= 0.95, f"{result.mean} after {step} steps"


def test_without_learning_catch_is_not_solved():
    """The bar means something: an untrained network is far below it."""
    config = presets.catch()
    with open_engine(config, LaunchConfig(local=True)) as engine:
        assert evaluate(engine.network(), config.env, episodes=256, epsilon=0.0, seed=1).mean < 0.2


def test_blind_catch_is_learned_with_memory():
    """Without memory, the best mean return is −0.75. The run ends once the policy is far above that
    (RESULTS.md has the whole preset).
    """
    torch.set_num_threads(1)
    config = presets.blind_catch()
    mean = -1.0
    with open_engine(config, LaunchConfig(local=True)) as engine:
        for step in range(9_000, 36_001, 3_000):
            while engine.advance(step, seconds=5.0).steps < step:
                pass
            network = engine.network()
            mean = evaluate(network, config.env, episodes=128, epsilon=0.0, seed=1).mean
            if mean >= 0.25:
                break
    assert mean >= 0.25, f"{mean} after {step} steps"
