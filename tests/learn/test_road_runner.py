"""A real game through Ray: 45,000 agent steps of Road Runner.

Holding one direction scores about 975, so that is measured in the same run and must be beaten twice over. Seeds differ by a
factor of two (tests/bench/RESULTS.md has every one that was run), and no two runs through Ray are alike: a first seed that
falls short gets a second and a third, and says so. A learner that is broken scores below 1,000 with all of them.
"""

from dataclasses import replace
from pathlib import Path

import pytest

from genray.launch import LaunchConfig, train_in
from genray.rl import presets
from genray.rl.evaluate import best_constant_action
from genray.rundir import RunDir

pytestmark = [pytest.mark.learn, pytest.mark.timeout(3000)]


def test_road_runner_is_learned_through_ray(tmp_path: Path):
    preset = presets.road_runner_quick()
    assert preset.run.steps == 45_000 and preset.run.evaluate_episodes == 30 and preset.env.noop_max == 30
    _, constant = best_constant_action(preset.env, episodes=4)
    wanted = max(2_000, 2 * constant)
    means = []
    for seed in (0, 1, 2):
        config = replace(preset, run=replace(preset.run, seed=seed))
        result = train_in(RunDir.create(tmp_path / f"seed{seed}"), config, LaunchConfig(), resumed=False)
        means.append(result.mean)
        print(f"\nseed {seed}: mean {result.mean:.0f} of 30 episodes; best constant action {constant:.0f}")
        if result.mean >= wanted:
            return
    pytest.fail(f"means {means}, wanted {wanted:.0f}")
