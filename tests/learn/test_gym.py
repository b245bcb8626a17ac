"""CartPole is learned in one process by its preset: a mean return of 195, the threshold of
CartPole-v0, of at most 500. tests/bench/RESULTS.md has the scores at the preset's end.
"""

import pytest
import torch

from genray.commands.train_dqn import LaunchConfig, open_engine
from genray.rl import presets
from genray.rl.evaluate import evaluate, random_score

pytestmark = [pytest.mark.learn, pytest.mark.timeout(600)]


def test_cartpole_is_learned():
    torch.set_num_threads(1)
    config = presets.cartpole()
    with open_engine(config, LaunchConfig(local=True)) as engine:
        step = 0
        for step in range(6_000, config.run.steps + 1, 2_000):  # stops as soon as it is learned
            while engine.advance(step, seconds=5.0).steps < step:
                pass
            result = evaluate(engine.network(), config.env, episodes=20, epsilon=0.0, seed=1)
            if result.mean >= 195:
                break
    assert result.mean >= 195, f"{result.mean} after {step} steps"


def test_random_play_of_cartpole_is_far_below_the_threshold():
    assert random_score(presets.cartpole().env) < 40
