"""CartPole is solved in one process by its preset: a mean return of 495 of 500 (CleanRL's DQN:
495.1).
"""

import pytest
import torch

from genray.commands.train_dqn import LaunchConfig, open_engine
from genray.rl import presets
from genray.rl.evaluate import evaluate

pytestmark = [pytest.mark.learn, pytest.mark.timeout(600)]


def test_cartpole_is_solved():
    torch.set_num_threads(1)
    config = presets.cartpole()
    with open_engine(config, LaunchConfig(local=True)) as engine:
        step = 0
        for step in range(10_000, config.run.steps + 1, 5_000):  # stops as soon as it is solved
            while engine.advance(step, seconds=5.0).steps < step:
                pass
            result = evaluate(engine.network(), config.env, episodes=20, epsilon=0.0, seed=1)
            if result.mean >= 495:
                break
    assert result.mean >= 495, f"{result.mean} after {step} steps"


def test_without_learning_cartpole_is_not_solved():
    config = presets.cartpole()
    with open_engine(config, LaunchConfig(local=True)) as engine:
        assert evaluate(engine.network(), config.env, episodes=20, epsilon=0.0, seed=1).mean < 250
