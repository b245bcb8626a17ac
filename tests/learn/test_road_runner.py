"""A real game through Ray: at most 45,000 agent steps of Road Runner.

Holding one direction scores about 975, so that is measured in the same run and must be beaten twice
over. The run ends at the first of four evaluations, ten games each, that shows it; the whole 45,000
steps and what 30 games score are `python -m tests.bench.bench_learning --preset road_runner_quick`.
Seeds differ by a factor of two (tests/bench/RESULTS.md has every one that was run), and no two runs
through Ray are alike: a first seed that falls short gets a second and a third, and says so. A
learner that is broken scores below 1,000 with all of them.
"""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from genray.commands.train_dqn import LaunchConfig, open_engine
from genray.rl import presets
from genray.rl.config import DQNConfig
from genray.rl.evaluate import best_constant_action, evaluate

pytestmark = [pytest.mark.learn, pytest.mark.xdist_group("ray"), pytest.mark.timeout(3000)]

EVALUATED_AT = (20_000, 27_500, 35_000, 45_000)
EPISODES = 10


def test_road_runner_is_learned_through_ray():
    preset = presets.road_runner_quick()
    assert preset.run.steps == EVALUATED_AT[-1] and preset.env.noop_max == 30
    _, constant = best_constant_action(preset.env, episodes=4)
    wanted = max(2_000, 2 * constant)
    means = []
    for seed in (0, 1, 2):
        for step, mean in scores(replace(preset, run=replace(preset.run, seed=seed))):
            means.append(mean)
            print(
                f"\nseed {seed}, {step:,} steps: mean {mean:.0f}; best constant action "
                f"{constant:.0f}"
            )
            if mean >= wanted:
                return
    pytest.fail(f"means {means}, wanted {wanted:.0f}")


def scores(config: DQNConfig) -> Iterator[tuple[int, float]]:
    """(agent steps, mean score of EPISODES games) at each evaluation of one run."""
    settings = config.run
    with open_engine(config, LaunchConfig()) as engine:
        for step in EVALUATED_AT:
            while engine.advance(step, seconds=5.0).steps < step:
                pass
            found = evaluate(
                engine.network(), config.env, episodes=EPISODES,
                epsilon=settings.evaluate_epsilon, seed=settings.seed + 10_000,
            )  # fmt: skip
            yield step, found.mean
