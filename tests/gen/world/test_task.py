"""Tests the training of world models, the saved model and its dreams, on a toy game."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from genray.errors import ConfigError
from genray.gen.data.config import DataConfig
from genray.gen.data.episodes import EpisodesSplit
from genray.gen.data.types import Data
from genray.gen.families import BUILDERS
from genray.gen.training.config import FitConfig
from genray.gen.training.fit import Fit
from genray.gen.training.run import save_export
from genray.gen.world.config import WorldConfig, WorldModelConfig, world
from genray.gen.world.dream import FEW, Dream
from genray.gen.world.model import WorldModel
from genray.gen.world.task import WorldTask
from genray.runs.modelstore import load_model
from tests.helpers.gen import check_resume, measured
from tests.helpers.sprites import toy_data as toy_screens
from tests.helpers.world import toy_data


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    return toy_data(tmp_path_factory.mktemp("toy"))


def config(steps: int, width: int = 16) -> WorldConfig:
    return replace(
        world(),
        fit=FitConfig(steps=steps, batch_size=32, validate_every=steps),
        model=WorldModelConfig(width=width, heads=2, layers=1, dropout=0.1, rare=2),
    )


@pytest.fixture(scope="module")
def fit(data: Data) -> Fit:
    """A model that has learned where the player goes and how stones fall."""
    options = config(120, 32)
    options = replace(options, ema=0.9, optimizer=replace(options.optimizer, learning_rate=4e-3))
    fit = Fit(WorldTask(options), data, options.fit)
    for _ in fit:
        pass
    return fit


def model_of(fit: Fit) -> WorldModel:
    task = fit.task
    assert isinstance(task, WorldTask)
    return task.model.eval()


def test_world_resumes_bit_exactly(tmp_path: Path):
    options, few = config(4), toy_data(tmp_path, train=3, test=1)
    check_resume(lambda: Fit(WorldTask(options), few, options.fit), 2, tmp_path)


def test_a_trained_world_predicts_screens_of_held_out_episodes(fit: Fit):
    figures = measured(fit)
    assert figures["loss"] == pytest.approx(
        sum(figures[name] for name in ("moves", "looks", "births", "events"))
    )
    # Copying the screen before is never right, because the stone always falls.
    assert figures["exact"] > 0.6 and figures["copied"] < 0.1
    usual, limit = model_of(fit).surprise.tolist()
    assert 0 < usual < limit


def test_tokens_of_an_episode_give_its_screens(fit: Fit, data: Data):
    model = model_of(fit)
    assert isinstance(data.test, EpisodesSplit)
    for screen in data.test.episodes[0].screens():
        assert np.array_equal(model.paint(model.read(screen)), screen)


def play(model: WorldModel, seed: int, action: int = 2) -> list[object]:
    dream = Dream(model)
    dream.begin([model.start(0), model.start(1)], seed)
    return [[dream.step([action, 1]), dream.screen(0).tobytes()] for _ in range(12)]


def test_the_same_seed_and_actions_give_the_same_dream(fit: Fit):
    model = model_of(fit)
    assert play(model, 1) == play(model, 1)
    assert play(model, 1) != play(model, 2) or play(model, 1) != play(model, 3)
    assert play(model, 1) != play(model, 1, action=0)


def test_a_dream_does_not_depend_on_the_dreams_beside_it(fit: Fit):
    """Few dreams are drawn one by one, more than FEW together."""
    model = model_of(fit)
    shown = []
    for lanes in (1, FEW + 1):
        dream = Dream(model)
        dream.begin([model.start(0)] * lanes, 3)
        for _ in range(10):
            dream.step([2] * lanes)
        shown.append(dream.screen())
    assert np.array_equal(*shown)


def test_a_dream_follows_the_action(fit: Fit):
    """Holding "left" moves the player to the border, and "right" moves it away."""
    model = model_of(fit)
    dream = Dream(model)
    dream.begin([model.start(0)], 0)

    def player() -> int:
        return int(np.flatnonzero((dream.screen() == 3).any(0))[0])

    for _ in range(14):
        dream.step([1])
    left = player()
    for _ in range(8):
        dream.step([2])
    assert left <= 3 and player() - left >= 5


def test_a_saved_world_dreams_the_same(fit: Fit, tmp_path: Path):
    measured(fit)
    save_export(tmp_path / "model", fit, {})
    again, about = load_model(tmp_path / "model", BUILDERS)
    assert isinstance(again, WorldModel) and about["kind"] == "world"
    assert play(again, 4) == play(model_of(fit), 4)


def test_a_saved_dream_goes_on_in_the_same_way(fit: Fit):
    model = model_of(fit)
    first, second = Dream(model), Dream(model)
    first.begin([model.start(2)], 5)
    for _ in range(4):
        first.step([2])
    second.load(first.save())
    for _ in range(4):
        assert first.step([1]) == second.step([1])
        assert np.array_equal(first.screen(), second.screen())
    with pytest.raises(ConfigError, match="does not fit"):
        second.load({"steps": [1], "random": [{}], "lanes": []})


def test_a_dream_ends_at_its_limit_and_refuses_unknown_actions(fit: Fit):
    model = model_of(fit)
    dream = Dream(model, limit=2)
    dream.begin([model.start(0)], 0)
    with pytest.raises(ConfigError, match=r"action 3: the game has the actions 0\.\.2"):
        dream.step([3])
    dream.step([0])
    dream.step([0])
    with pytest.raises(ConfigError, match="has made 2 steps, its limit"):
        dream.step([0])
    with pytest.raises(ConfigError, match="a dream of 99999 steps"):
        Dream(model, limit=99_999)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("screens:road_runner", "screens without actions"),
        ("digits", "needs episodes, e.g. episodes:road_runner"),
    ],
)
def test_data_without_actions_are_refused(name: str, words: str):
    with pytest.raises(ConfigError, match=words):
        replace(world(), data=DataConfig(data=name)).validate()


def test_images_and_games_with_too_many_shapes_are_refused(data: Data):
    options = config(2)
    with pytest.raises(ConfigError, match="has no actions"):
        Fit(WorldTask(options), toy_screens(), options.fit)
    few = replace(options, model=replace(options.model, most_shapes=1))
    with pytest.raises(ConfigError, match="different shapes, more than --most-shapes 1"):
        Fit(WorldTask(few), data, options.fit)
