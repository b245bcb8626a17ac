"""Tests dreams: growth of the activation, range of values, seeds, octaves, tiles and zoom."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from genray.errors import ConfigError
from genray.gen.images import dream as dreams
from genray.gen.images.dream import (
    DreamConfig,
    Objective,
    activation,
    ascend,
    balance_bands,
    choose_layer,
    colour_mixing,
    dream,
    octave_sizes,
    tiles,
    zoom,
)
from genray.gen.images.features import Features, open_features, untrained

SMALL = DreamConfig(octaves=2, steps=6)


def train_dreamer(folder: Path) -> tuple[Path, float]:
    # The helper is loaded by its path, because test files are not in a package.
    spec = importlib.util.spec_from_file_location(
        "dreamer", Path(__file__).parents[2] / "helpers" / "dreamer.py"
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.train_dreamer(folder)


@pytest.fixture(scope="module")
def features(tmp_path_factory) -> Features:
    folder, accuracy = train_dreamer(tmp_path_factory.mktemp("dreamer") / "model")
    assert accuracy > 0.9  # it has learnt stripes
    return open_features(f"model:{folder}")


def shades(height: int = 72, width: int = 96) -> Tensor:
    """Return smooth shades without stripes, [1, 3, H, W] in 0.25..0.75."""
    down = torch.linspace(0, 1, height)[:, None].expand(height, width)
    right = torch.linspace(0, 1, width)[None].expand(height, width)
    return 0.25 + 0.5 * torch.stack([right, down, 1 - right])[None]


def least_shown(features: Features, layer: str, picture: Tensor) -> int:
    """Return the channel with the smallest mean activation above 0.001."""
    mean_C = features(picture, [layer])[layer].mean((0, 2, 3))
    return int(torch.where(mean_C > 1e-3, mean_C, torch.inf).argmin())


@pytest.mark.parametrize("layer", ["conv1", "conv2", "conv3"])
def test_dream_raises_a_channel_five_times_and_keeps_the_range(features: Features, layer: str):
    picture = shades()
    objective = Objective(features, layer, [least_shown(features, layer, picture)])
    before = activation(picture, objective)
    result = dream(picture, objective, DreamConfig())
    assert result.shape == picture.shape and result.dtype == torch.float32
    assert result.min() >= 0 and result.max() <= 1
    assert activation(result, objective) >= 5 * before > 0


def test_dream_raises_a_whole_layer(features: Features):
    for layer in features.layers:
        objective = Objective(features, layer)
        before = activation(shades(), objective)
        assert activation(dream(shades(), objective, DreamConfig()), objective) > 1.3 * before


def test_dream_rises_more_than_random_steps(features: Features):
    """Random steps of the same size raise the activation less than gradient ascent."""
    objective = Objective(features, "conv3", [least_shown(features, "conv3", shades())])
    before = activation(shades(), objective)
    random = torch.Generator().manual_seed(0)
    noise = shades()
    for _ in range(24):
        step = balance_bands(torch.randn(noise.shape, generator=random), 4, True)
        noise = (noise + features.dream_rate * step / step.abs().mean()).clamp(0, 1)
    up = activation(dream(shades(), objective, replace(DreamConfig(), octaves=2)), objective)
    assert up > 3 * max(before, activation(noise, objective))


def test_dream_depends_only_on_the_seed(features: Features):
    objective = Objective(features, "conv2")
    first = dream(shades(), objective, SMALL)
    torch.manual_seed(99)  # the global generator has no part in it
    assert torch.equal(first, dream(shades(), objective, SMALL))
    assert not torch.equal(first, dream(shades(), objective, replace(SMALL, seed=1)))


def test_dream_with_a_guide_shows_the_guides_stripes(features: Features):
    """The guide has vertical stripes, so the dream changes more from left to right than down."""
    phase = torch.arange(96).float()[None].expand(72, 96)
    vertical_stripes = (0.5 + 0.4 * torch.sin(2 * torch.pi * phase / 4)).expand(1, 3, 72, 96)

    def across(x: Tensor) -> float:
        return float(x.diff(dim=3).abs().mean() / x.diff(dim=2).abs().mean())

    config = replace(DreamConfig(), octaves=1, steps=20, jitter=4)
    guided = dream(shades(), Objective(features, "conv3", guide_1CHW=vertical_stripes), config)
    other = dream(
        shades(),
        Objective(features, "conv3", guide_1CHW=vertical_stripes.transpose(2, 3).contiguous()),
        config,
    )
    assert across(guided) > 1.5 * across(other)


def test_objective_refuses_untrained_features():
    with pytest.raises(
        ConfigError,
        match="--features untrained: a dream needs a trained network; use lite0, or --model",
    ):
        Objective(untrained(), "conv1")


def test_objective_refuses_unknown_layers_and_channels(features: Features):
    with pytest.raises(ConfigError, match="--layer conv33: .*did you mean conv3"):
        Objective(features, "conv33")
    with pytest.raises(ConfigError, match="--layer xyz: .*there are conv0, conv1, conv2, conv3"):
        Objective(features, "xyz")
    with pytest.raises(ConfigError, match="--channels 3 16: conv3 has channels 0..15"):
        Objective(features, "conv3", [3, 16])
    assert choose_layer(features, "") == "conv3"


@pytest.mark.parametrize(
    "change",
    [
        {"octaves": 0},
        {"octave_scale": 1.0},
        {"steps": 0},
        {"rate": 0.0},
        {"rate": float("nan")},
        {"jitter": -1},
        {"bands": 9},
        {"own_colours": 1.5},
        {"seed": -1},
        {"channels": (-1,)},
    ],
)
def test_dream_config_refuses_bad_options(change: dict):
    (name,) = change
    with pytest.raises(ConfigError, match=f"--{name.replace('_', '-')}"):
        DreamConfig(**change).validate()


# -- the parts -------------------------------------------------------------------------------------


def test_octave_sizes_grow_to_the_pictures_size():
    config = DreamConfig(octaves=4, octave_scale=2.0)
    assert octave_sizes(400, 800, config) == [(50, 100), (100, 200), (200, 400), (400, 800)]
    assert octave_sizes(100, 200, config) == [(50, 100), (100, 200)]
    assert octave_sizes(20, 30, config) == [(20, 30)]  # the size of the picture


def test_tiles_cover_every_pixel_once(monkeypatch):
    monkeypatch.setattr(dreams, "TILE", 32)
    seen = torch.zeros(70, 33)
    for rows, columns in tiles(70, 33):
        assert rows.stop - rows.start <= 32 and columns.stop - columns.start <= 32
        seen[rows, columns] += 1
    assert (seen == 1).all()


def test_dream_with_tiles_is_close_to_a_dream_without(features: Features, monkeypatch):
    objective, config = Objective(features, "conv1"), replace(SMALL, jitter=0)
    whole = dream(shades(), objective, config)
    monkeypatch.setattr(dreams, "TILE", 40)
    parts = dream(shades(), objective, config)
    assert not torch.equal(whole, parts)
    assert (whole - parts).abs().mean() < 0.25 * (whole - shades()).abs().mean()


def test_balanced_gives_bands_the_same_strength_and_keeps_tones():
    """White noise is mostly fine; after balancing, neighbouring pixels are correlated.

    The mean is left out only with `keep_tones`.
    """
    noise = 1 + torch.randn(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))

    def neighbours(x: Tensor) -> float:
        return float(
            torch.corrcoef(torch.stack([x[..., 1:].flatten(), x[..., :-1].flatten()]))[0, 1]
        )

    kept, free = balance_bands(noise, 4, True), balance_bands(noise, 4, False)
    assert abs(neighbours(noise)) < 0.02 and neighbours(kept) > 0.6
    assert neighbours(balance_bands(noise, 1, True)) < 0  # the finest band alone
    assert abs(float(kept.mean())) < 0.05 and float(free.mean()) > 0.5
    assert torch.allclose(kept, balance_bands(1000 * noise, 4, True), atol=1e-4)


def test_colour_mixing_follows_the_pictures_colours():
    red = torch.tensor([1.0, 0.1, 0.0])[None, :, None, None] * torch.rand(1, 1, 32, 32)
    mixing = colour_mixing(red, 1.0)
    moved = mixing @ torch.tensor([1.0, 1.0, 1.0])
    assert moved[0] > 5 * moved[1].abs() and moved[0] > 5 * moved[2].abs()
    assert torch.allclose(colour_mixing(red, 0.0), torch.eye(3))
    # A picture of one colour has no palette to keep to.
    assert torch.allclose(
        colour_mixing(torch.full((1, 3, 9, 9), 0.3), 1.0), torch.eye(3), atol=1e-3
    )


def test_ascend_moves_by_the_rate(features: Features):
    objective, config = Objective(features, "conv1"), replace(SMALL, rate=0.01, jitter=5)
    random = torch.Generator().manual_seed(0)
    moved = ascend(shades(), objective, config, random, torch.eye(3)) - shades()
    assert float(moved.abs().mean()) == pytest.approx(0.01, rel=0.05)


def test_ascend_shifts_the_gradient_back(features: Features):
    """Only one half of the picture changes the objective, so only that half moves, at any shift."""
    objective = Objective(features, "conv0")
    mask = torch.zeros(1, 1, 72, 96)
    mask[..., :36, :] = 1

    def half(x: Tensor) -> Tensor:
        down = int(half.down)  # type: ignore[attr-defined]
        return (x * mask.roll(down, 2)).square().mean() if objective else x.mean()

    random = torch.Generator().manual_seed(4)
    half.down = int(torch.randint(-20, 21, (2,), generator=torch.Generator().manual_seed(4))[0])  # type: ignore[attr-defined]
    assert half.down != 0  # type: ignore[attr-defined]
    config = replace(SMALL, rate=0.012, jitter=20, bands=1, keep_tones=False)
    moved = ascend(shades(), half, config, random, torch.eye(3)) - shades()  # type: ignore[arg-type]
    assert moved[..., :34, :].abs().mean() > 20 * moved[..., 40:, :].abs().mean()


def test_zoom_begins_with_the_dream_and_enlarges_its_centre(features: Features):
    objective = Objective(features, "conv1")
    picture = shades()
    picture[..., 30:42, 40:56] = 0.0  # a dark spot in the middle
    frames = list(zoom(picture, objective, replace(SMALL, rate=1e-6), 6, factor=1.1, steps=1))
    assert len(frames) == 6 and torch.equal(frames[0], picture)
    dark = [float((frame.amax(1) < 0.1).float().mean()) for frame in frames]
    assert dark[5] == pytest.approx(dark[0] * 1.1**10, rel=0.15)
    assert all(frame.min() >= 0 and frame.max() <= 1 for frame in frames)
    again = list(zoom(picture, objective, SMALL, 3, turn=10.0))
    assert all(
        torch.equal(a, b) for a, b in zip(again, zoom(picture, objective, SMALL, 3, turn=10.0))
    )


def test_zoom_into_a_bright_region_keeps_the_tones_of_the_dream(features: Features):
    picture = shades() * 0.4
    picture[..., 30:42, 40:56] = 0.95  # a bright spot, which fills the picture in the end
    config = replace(SMALL, rate=1e-6)
    frames = list(zoom(picture, Objective(features, "conv1"), config, 60, factor=1.05, steps=1))
    assert float(frames[-1].mean()) < float(picture.mean()) + 0.2
