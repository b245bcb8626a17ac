"""Tests the training of sprite models, the saved model, and the search for near-copies."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from genray.errors import ConfigError
from genray.gen.families import BUILDERS
from genray.gen.sprites.calibration import calibrate, mean_counts
from genray.gen.sprites.config import SpriteConfig, SpriteModelConfig, sprites
from genray.gen.sprites.copies import TrainingScreens
from genray.gen.sprites.model import SpriteModel
from genray.gen.sprites.task import SpriteTask
from genray.gen.training.config import FitConfig
from genray.gen.training.fit import Fit
from genray.gen.training.run import save_export
from genray.runs.modelstore import load_model
from tests.helpers.gen import check_resume, measured
from tests.helpers.sprites import toy_data, toy_screens


def config(steps: int = 4, **fit) -> SpriteConfig:
    return replace(
        sprites(),
        fit=FitConfig(steps=steps, batch_size=32, validate_every=steps, **fit),
        model=SpriteModelConfig(
            width=32, layers=1, heads=2, dropout=0.1, most_backgrounds=8, whole_rows=True
        ),
    )


def trained(options: SpriteConfig, levels: int = 1) -> Fit:
    fit = Fit(SpriteTask(options), toy_data(levels=levels), options.fit)
    for _ in fit:
        pass
    return fit


@pytest.fixture(scope="module")
def fit() -> Fit:
    return trained(config())


def model_of(fit: Fit) -> SpriteModel:
    task = fit.task
    assert isinstance(task, SpriteTask)
    return task.model.eval()


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_sprites_resume_bit_exactly(ema: float, tmp_path: Path):
    options = replace(config(6), ema=ema)
    check_resume(lambda: Fit(SpriteTask(options), toy_data(), options.fit), 3, tmp_path)


def test_sprites_test_reports_likelihood_and_exactness(fit):
    figures = measured(fit)
    parts = sum(figures[name] for name in ("groups", "places", "shapes", "runs"))
    assert figures["loss"] == pytest.approx(parts) and figures["exact"] == 1 == 1 - figures["lost"]


def test_likelihood_of_held_out_screens_is_finite(fit):
    model, x = model_of(fit), toy_data().test.all()
    with torch.no_grad():
        assert model.log_likelihood(x).isfinite().all()
    assert torch.allclose(model.reconstruct(x), x, atol=1e-6)


def test_a_saved_model_draws_the_same_screens(fit, tmp_path: Path):
    save_export(tmp_path / "model", fit, {})
    again, about = load_model(tmp_path / "model", BUILDERS)
    assert isinstance(again, SpriteModel) and about["shape"] == [3, 40, 48]
    images = again.sample(5, seed=1)
    assert torch.equal(images, model_of(fit).sample(5, seed=1))
    assert not torch.equal(images, again.sample(5, seed=2))
    assert images.shape == (5, 3, 40, 48) and images.min() >= 0 and images.max() <= 1
    screens = np.concatenate(list(again.draw_screens(5, 1)))
    assert torch.equal(again.images(screens), images)


def test_a_saved_model_of_two_levels_keeps_its_backgrounds(tmp_path: Path):
    fit = trained(config(), levels=2)
    measured(fit)
    save_export(tmp_path / "model", fit, {})
    again = load_model(tmp_path / "model", BUILDERS)[0]
    assert isinstance(again, SpriteModel)
    screens = toy_screens(30, levels=2)
    language = again.language
    assert language.has_backgrounds and len(language.backgrounds_KHW) == 2
    assert [language.background_of(screen) for screen in screens[:3]] == [1, 0, 0]
    assert np.array_equal(np.stack([language.decode(language.encode(s)) for s in screens]), screens)
    assert torch.equal(again.sample(5, seed=1), model_of(fit).sample(5, seed=1))
    # A screen of one level is no copy of the other level's screen with the same sprites.
    other = np.where(screens < 2, 1 - screens, screens)
    search = TrainingScreens(language, screens[:1])
    assert search.nearest(screens[:1])[1] == [1] and search.nearest(other[:1])[1] == [0]


def test_a_saved_model_of_an_earlier_version_is_read(fit, tmp_path: Path):
    """It has one background, no option for more of them, and rejects no screens."""
    model = model_of(fit)
    model.accept_weight.zero_()
    model.accept_limit.zero_()
    save_export(tmp_path / "model", fit, {})
    file = tmp_path / "model" / "config.json"
    about = json.loads(file.read_text("utf-8"))
    del about["model"]["most_backgrounds"]
    file.write_text(json.dumps(about), "utf-8")
    file = tmp_path / "model" / "model.safetensors"
    tensors = load_file(file)
    save_file({name: each for name, each in tensors.items() if "accept" not in name}, file)
    assert len(load_file(file)) == len(tensors) - 2
    again = load_model(tmp_path / "model", BUILDERS)[0]
    assert torch.equal(again.sample(2, seed=1), model_of(fit).sample(2, seed=1))


def test_sprites_refuse_grey_and_true_colour_images():
    options, data = config(), toy_data()
    grey = [replace(each, values=each.values[:, :1]) for each in (data.train, data.validation)]
    for option, hint in ((False, "use e.g."), (True, "leave out --grey, or use e.g.")):
        options = replace(options, data=replace(options.data, grey=option))
        with pytest.raises(ConfigError, match=f"needs colour images; {hint}"):
            Fit(SpriteTask(options), replace(data, train=grey[0], validation=grey[1]), options.fit)
    noise = torch.randint(0, 256, data.train.values.shape, dtype=torch.uint8)
    with pytest.raises(ConfigError, match="--data toy: has more than 255 colours"):
        train = replace(data.train, values=noise)
        Fit(SpriteTask(options), replace(data, train=train), options.fit)


def test_nearest_finds_the_training_screen_with_most_equal_moving_pixels(fit):
    language = model_of(fit).language
    train, test = toy_screens(60), toy_screens(20, seed=3)
    row, similarity = TrainingScreens(language, train).nearest(np.concatenate([train[7:8], test]))
    assert row[0] == 7 and similarity[0] == 1 and (similarity[1:] < 1).any()

    def jaccard(a: np.ndarray, b: np.ndarray) -> float:
        moves_a, moves_b = a != language.background_HW, b != language.background_HW
        return float((moves_a & moves_b & (a == b)).sum() / (moves_a | moves_b).sum())

    # Screens that share no whole sprite with a training screen have other candidates.
    best = np.array([max(jaccard(screen, each) for each in train) for screen in test])
    shares = best >= 0.3
    assert shares.sum() >= 3 and np.allclose(similarity[1:][shares], best[shares])


def test_calibrate_gives_every_group_its_mean_number_of_tokens(fit):
    model = model_of(fit)
    tokens = model.pad([model.language.encode(screen) for screen in toy_screens(300)])
    real = mean_counts(tokens, model.sizes.groups)

    def error() -> float:
        chances = torch.rand(500, model.longest, 5, generator=torch.Generator().manual_seed(9))
        drawn = mean_counts(model.tokens_of(chances), model.sizes.groups)
        return float((drawn - real).abs().sum())

    model.group_bias.zero_()
    before = error()
    calibrate(model, tokens)
    assert error() < 0.95 * before and (model.group_bias.abs() <= 0.7 + 1e-6).all()


def test_drawn_screens_have_no_more_alike_shapes_than_training_screens(fit):
    """An untrained network draws many tokens; toy screens have one figure and one ball."""
    screens = np.concatenate(list(model_of(fit).draw_screens(40, 0)))
    assert np.isin(screens, (2, 3)).sum((1, 2)).max() <= 8
    assert (screens == 5).sum((1, 2)).max() <= 4


@pytest.mark.learn
def test_sprites_draw_every_character_as_often_as_it_is_there():
    """A model without training, and one whose sprites are independent of each other, fail."""
    options = replace(config(250), optimizer=replace(sprites().optimizer, l2=0.1))
    fit = trained(options)
    assert measured(fit)["loss"] < 15
    screens = np.concatenate(list(model_of(fit).draw_screens(300, 0)))
    figure = np.isin(screens, (2, 3)).any((1, 2))
    ball = (screens == 5).any((1, 2))
    one_figure = np.isin(screens, (2, 3)).sum((1, 2)) == 8
    one_ball = (screens == 5).sum((1, 2)) == 4
    for share in (figure, ball, one_figure, one_ball):
        assert share.mean() >= 0.93


@pytest.mark.learn
def test_sprites_draw_both_levels_of_a_game():
    """A third of the screens has another background; a model without training fails."""
    options = replace(config(250), optimizer=replace(sprites().optimizer, l2=0.1))
    fit = trained(options, levels=2)
    assert measured(fit)["loss"] < 16
    screens = np.concatenate(list(model_of(fit).draw_screens(300, 0)))
    assert 0.23 <= (screens[:, 0, 0] == 1).mean() <= 0.43
    assert (screens[:, 0, 0] != screens[:, 39, 0]).mean() >= 0.98
    for share in (np.isin(screens, (2, 3)).any((1, 2)), (screens == 5).any((1, 2))):
        assert share.mean() >= 0.9
