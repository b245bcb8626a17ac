"""Tests dreams as environments: the checks of real ones, saving, truncation, and bad names."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from genray.distributed.dream_env import DreamedGame, resolve_dream
from genray.errors import CheckpointError, ConfigError
from genray.gen.training.config import FitConfig
from genray.gen.training.fit import Fit
from genray.gen.training.run import save_export
from genray.gen.world.config import WorldModelConfig, world
from genray.gen.world.task import WorldTask
from genray.rl.engine import probe_env
from genray.rl.env import EnvConfig, FrameVectorEnv, SavesState, Step, make_env
from tests.helpers.world import toy_data


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of a toy game with screens of 96x128 pixels."""
    folder = tmp_path_factory.mktemp("toy")
    options = replace(
        world(),
        fit=FitConfig(steps=40, batch_size=32),
        model=WorldModelConfig(width=16, heads=2, layers=1, rare=2),
    )
    fit = Fit(WorldTask(options), toy_data(folder, scale=4), options.fit)
    for _ in fit:
        pass
    return save_export(folder / "model", fit, {})


def dreamed(model: Path, lanes: int = 3, **options) -> FrameVectorEnv:
    name = f"{DreamedGame.__module__}:DreamedGame"
    config = EnvConfig(env=name, env_config=json.dumps({"model": str(model), **options}))
    return make_env(config, lanes)


def equal(first: Step, second: Step) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(first, second))


def test_a_dream_passes_the_checks_of_environments(model: Path):
    """`make_env` checks every reset and step; `probe_env` checks the interface once."""
    config = resolve_dream(EnvConfig(env=f"dream:{model}"))
    config.validate()
    assert probe_env(config)[:2] == (3, (84, 84))
    env = dreamed(model)
    frame = env.reset(0)
    assert frame.shape == (3, 84, 84) and len(np.unique(frame)) >= 3
    steps = [env.step(np.array([0, 1, 2])) for _ in range(6)]
    assert any(not np.array_equal(frame, step.frame_EHW) for step in steps)


def test_a_dream_begins_with_as_many_real_screens_as_asked_for(model: Path):
    for screens in (1, 4):
        env = DreamedGame(5, str(model), first_screens=screens)
        frames = env.reset(0)
        world = env._dream.model
        # The last of the real screens of one of the starts.
        shown = {world.paint(world.start(n).screens[screens - 1]).tobytes() for n in range(256)}
        assert {env._dream.screen(lane).tobytes() for lane in range(5)} <= shown
        assert len(np.unique(frames)) >= 3
    with pytest.raises(ConfigError, match="first_screens is 5; it must be an integer from 1 to 4"):
        dreamed(model, first_screens=5)
    with pytest.raises(ConfigError, match="first_screens is 1.5; it must be an integer"):
        dreamed(model, first_screens=1.5)


def test_a_dream_with_the_same_seed_and_actions_is_the_same(model: Path):
    first, second = dreamed(model), dreamed(model)
    assert np.array_equal(first.reset(3), second.reset(3))
    for number in range(5):
        action = np.array([number % 3, 1, 2])
        assert equal(first.step(action), second.step(action))


def test_a_saved_dream_is_restored(model: Path):
    first, second = dreamed(model), dreamed(model)
    assert isinstance(first, SavesState) and isinstance(second, SavesState)
    first.reset(4)
    last = [first.step(np.array([2, 2, 0])) for _ in range(3)][-1]
    state = json.loads(json.dumps(first.state()))
    assert np.array_equal(second.restore(state), last.frame_EHW)
    for _ in range(3):
        assert equal(first.step(np.array([1, 0, 2])), second.step(np.array([1, 0, 2])))


def test_a_dream_saved_without_clocks_of_tracks_goes_on(model: Path):
    """Earlier versions saved three moves of a track, and not when its look and its y changed."""
    first, second = dreamed(model), dreamed(model)
    assert isinstance(first, SavesState) and isinstance(second, SavesState)
    first.reset(4)
    for _ in range(5):
        first.step(np.array([2, 2, 0]))
    state = json.loads(json.dumps(first.state()))
    for lane in state["dream"]["lanes"]:
        lane["actions"] = lane["actions"][:4]
        lane["tracks"] = [[*numbers[:6], moves[:3]] for *numbers, moves in lane["tracks"]]
    second.restore(state)
    for _ in range(3):
        assert equal(first.step(np.array([1, 0, 2])), second.step(np.array([1, 0, 2])))


def test_a_dream_is_truncated_and_begins_one_step_late(model: Path):
    env = dreamed(model, lanes=2, max_steps=1)
    env.reset(0)
    ended = env.step(np.zeros(2, int))
    assert (ended.truncated_E | ended.terminated_E).all()
    begun = env.step(np.zeros(2, int))
    assert not begun.reward_E.any() and not (begun.truncated_E | begun.terminated_E).any()


def test_bad_dreams_are_refused_in_one_line(model: Path, tmp_path: Path):
    with pytest.raises(ConfigError, match="name a world model"):
        resolve_dream(EnvConfig(env="dream:"))
    with pytest.raises(CheckpointError, match="not a model"):
        resolve_dream(EnvConfig(env=f"dream:{tmp_path}"))
    with pytest.raises(
        ConfigError, match="max_steps is 99999; it must be an integer from 1 to 10000"
    ):
        dreamed(model, max_steps=99_999)
    other = EnvConfig(env="genray.rl.catch:Catch")
    assert resolve_dream(other) is other
