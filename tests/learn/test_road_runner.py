"""A real game through Ray: 45,000 agent steps of Road Runner.

Holding one direction scores about 975, so that is measured in the same run and must be beaten twice over.
"""

import pytest

from genray.launch import LaunchConfig, train_in
from genray.rl import presets
from genray.rl.evaluate import best_constant_action
from genray.rundir import RunDir

pytestmark = [pytest.mark.game, pytest.mark.timeout(1200)]


def test_road_runner_is_learned_through_ray(tmp_path):
    config = presets.road_runner_quick()
    assert config.run.steps == 45_000 and config.run.evaluate_episodes == 30 and config.env.noop_max == 30
    result = train_in(RunDir.create(tmp_path / "run"), config, LaunchConfig(), resumed=False)
    _, constant = best_constant_action(config.env, episodes=4)
    print(f"mean {result.mean:.0f} of 30 episodes; best constant action {constant:.0f}")
    assert result.mean >= 2_000
    assert result.mean >= 2 * constant
