"""Tests procedural patterns: seeds, sizes, kinds; and photographs: credits, test regions."""

from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torch.nn import functional

from genray.errors import ConfigError
from genray.gen.data import crops, photos
from genray.gen.data.config import DataConfig
from genray.gen.data.load import changed, load_data
from genray.gen.data.photos import credits, load_photos, photographs
from genray.gen.images.patterns import PATTERNS, pattern, pattern_name
from genray.gen.images.style.sources import open_style, open_styles
from genray.gen.training.checkpoint import check_same_rows


def test_pattern_depends_only_on_its_seed():
    first = pattern(4, 32)
    assert first.dtype == np.uint8 and first.shape == (32, 32, 3)
    assert np.array_equal(first, pattern(4, 32))
    assert not np.array_equal(first, pattern(4 + len(PATTERNS), 32))


@pytest.mark.parametrize("seed", range(len(PATTERNS)))
def test_pattern_is_the_same_picture_at_every_size(seed: int):
    large = torch.from_numpy(pattern(seed, 96)).permute(2, 0, 1)[None].float()
    small = torch.from_numpy(pattern(seed, 48)).permute(2, 0, 1)[None].float()
    # At a sixth of the side, where the fine grain is gone.
    a, b = (functional.adaptive_avg_pool2d(x, 8) for x in (large, small))
    assert (a - b).abs().mean() < 6, pattern_name(seed)
    assert small.std() > 12, "a style needs contrast"


def test_pattern_name_has_every_kind_once_in_each_turn():
    count = len(PATTERNS)
    turns = [[pattern_name(turn * count + i) for i in range(count)] for turn in range(3)]
    assert all(sorted(turn) == sorted(PATTERNS) for turn in turns)
    assert turns[0] != turns[1]


def test_pattern_and_open_styles_refuse_bad_input_in_one_line():
    with pytest.raises(ConfigError, match="16..1024"):
        pattern(0, 8)
    with pytest.raises(ConfigError, match="pattern:SEED"):
        open_style("pattern:x", 32)
    with pytest.raises(ConfigError, match="patterns, or folder:PATH"):
        open_styles("monet", 8, 32)


def test_open_styles_splits_have_different_patterns():
    styles = open_styles("patterns", 4, 16)
    parts = (styles.train, styles.validation, styles.test)
    assert [len(part) for part in parts] == [4, 12, 24]
    flat = torch.cat(parts).flatten(1)
    assert len(torch.unique(flat, dim=0)) == len(flat)


def test_photos_name_their_photographers():
    assert "china.jpg by danielbuechele" in credits() and "flower.jpg by vultilion" in credits()
    assert "CC BY 2.0" in credits()
    data = load_data(DataConfig(data="photos", size=16))
    assert "vultilion" in data.licence and "vultilion" in data.about["credits"]


def test_load_photos_takes_test_crops_from_separate_regions(monkeypatch):
    """The value of a pixel is the number of its column, scaled to 0..255."""
    ramp = np.broadcast_to(np.linspace(0, 255, 640)[None, :, None], (427, 640, 3)).astype(np.uint8)
    monkeypatch.setattr(photos, "photographs", lambda: {"china": ramp, "flower": ramp})
    monkeypatch.setattr(photos, "more_photographs", dict)
    monkeypatch.setattr(crops, "LEAST_CONTRAST", 0.0)
    source = load_photos(24)
    for label, border in ((0, 208), (1, 320)):
        edge = border / 639 * 255
        train = source.train[source.train_label == label].astype(float)
        test = source.test[source.test_label == label].astype(float)
        below, above = (test, train) if label == 0 else (train, test)
        assert below.max() <= edge + 2 and above.min() >= edge - 2


def test_load_photos_has_those_of_scikit_image_if_installed():
    pytest.importorskip("skimage")
    found = photos.more_photographs()
    assert {name: rgb.shape[:2] for name, rgb in found.items()} == {
        "astronaut": (512, 512),
        "chelsea": (300, 451),
        "coffee": (400, 600),
        "rocket": (427, 640),
    }
    source = load_photos(16)
    assert source.classes == ("china", "flower", *found)
    assert source.train.shape == (798, 3, 16, 16) and source.test.shape == (48, 3, 16, 16)
    assert source.test_label is not None and np.bincount(source.test_label).tolist() == [8] * 6
    assert "Rachel Michetti, CC0" in source.licence and len(set(source.train_names)) == 798
    assert source.licence.startswith("photographs: china")


def test_load_photos_credits_only_the_photographs_that_it_loads(monkeypatch):
    rocket = np.random.default_rng(0).integers(0, 256, (427, 640, 3)).astype(np.uint8)
    monkeypatch.setattr(photos, "more_photographs", lambda: {"rocket": rocket})
    source = load_photos(16)
    assert source.licence.endswith("; rocket by SpaceX, public domain, from scikit-image")
    assert "vultilion (Flickr), CC BY 2.0, from scikit-learn;" in source.licence


@pytest.mark.parametrize("more", [False, True])
def test_runs_whose_photographs_had_no_names_are_checked_by_their_classes(monkeypatch, more):
    """Without names, a run has no fingerprint of its rows."""
    china = np.random.default_rng(0).integers(0, 256, (427, 640, 3)).astype(np.uint8)
    monkeypatch.setattr(photos, "more_photographs", lambda: {"rocket": china} if more else {})
    data = load_data(DataConfig(data="photos", size=16))
    assert changed(None, data.about["rows"]) is more
    with (
        pytest.raises(ValueError, match="--data photos: the photographs of")
        if more
        else nullcontext()
    ):
        check_same_rows(None, data.about["rows"])


def test_load_photos_returns_the_same_crops_each_time(monkeypatch):
    monkeypatch.setattr(photos, "more_photographs", dict)
    first, second = load_photos(16), load_photos(16)
    assert np.array_equal(first.train, second.train)
    assert first.train.shape == (800, 3, 16, 16) and first.test.shape == (48, 3, 16, 16)
    assert set(photographs()) == {"china", "flower"}
    with pytest.raises(ConfigError, match="192"):
        load_photos(256)
