"""Tests recording screens: an agent's policy plays, and the same options give the same screens."""

from pathlib import Path

import numpy as np
import pytest

from genray.distributed.screens import ScreensConfig, collect_screens
from genray.errors import ConfigError
from genray.rl import presets
from genray.rl.engine import initial_network, network_card, probe_env
from genray.rl.evaluate import Evaluation
from genray.rl.train import save_policy


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model directory of an untrained policy of Road Runner."""
    folder = tmp_path_factory.mktemp("policy") / "model"
    config = presets.road_runner_quick()
    network = initial_network(network_card(config, *probe_env(config.env)), seed=0)
    nothing = Evaluation("road_runner", [0.0], [1], 0.001, 0.0, 30, 18_000)
    save_policy(folder, config, network, 0, nothing)
    return folder


def test_collect_screens_lets_a_policy_play_its_own_game(policy: Path, tmp_path: Path):
    options = [
        ScreensConfig(model=policy, game="pong", frames=50, out=tmp_path / f"{number}.safetensors")
        for number in range(2)
    ]
    first, again = (collect_screens(each)[1] for each in options)
    assert first.recipe["game"] == "road_runner" and str(policy) in first.recipe["policy"]
    assert first.indices_NHW.shape == (50, 210, 160) and first.held_out_N.sum() == 10
    assert np.array_equal(first.indices_NHW, again.indices_NHW)


def test_collect_screens_refuses_an_unknown_game():
    with pytest.raises(ConfigError, match="no such Atari game"):
        collect_screens(ScreensConfig(game="road_walker"))
