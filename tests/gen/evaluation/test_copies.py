"""Tests the search for copies of training images, and the Fréchet Lite0 distance."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from genray.errors import ConfigError
from genray.gen.data.config import DataConfig
from genray.gen.data.load import load_data
from genray.gen.data.types import Data
from genray.gen.evaluation.copies import NearestTraining, find_copies
from genray.gen.evaluation.fld import frechet_lite0_distance
from genray.gen.images.embedding import EXTRACTOR, Embedding, open_embedding
from genray.gen.images.pictures import to_tensor
from tests.helpers.photographs import changed, photographs


@pytest.fixture(scope="module")
def digits() -> Data:
    return load_data(DataConfig(data="mnist5k"))


def altered(x: Tensor) -> dict[str, Tensor]:
    """Copies of images, as a generator may make them."""
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    return {
        "exact": x,
        "noisy": (x + 0.05 * noise).clamp(0, 1),
        "darker": 0.7 * x,
        "shifted": torch.roll(x, (1, -1), (-2, -1)),
        "mirrored": x.flip(-1),
    }


@pytest.mark.parametrize("kind", ["exact", "noisy", "darker", "shifted", "mirrored"])
def test_find_copies_finds_planted_copies_among_digits(digits: Data, kind: str):
    """Of 40 images, 10 are planted copies of training rows 0 to 9, and 30 are unseen digits."""
    planted = altered(digits.train.first(10).all())[kind]
    copies = find_copies(digits, torch.cat([planted, digits.test.all()[-30:]]))
    assert copies.measure == "pixels"
    assert copies.duplicates_N[:10].all() and copies.rows_N[:10].tolist() == list(range(10))
    assert copies.duplicates_N[10:].sum() <= 2
    assert copies.held_out == 500 and copies.held_out_share <= 0.03
    assert f"{copies.duplicates_N.mean():.1%} of 40 samples" in str(copies)


def test_find_copies_compares_with_test_rows_only(digits: Data):
    """Validation crops of photographs overlap with training crops, here entirely."""
    few = replace(digits, test=digits.test.first(20), validation=digits.train.first(40))
    copies = find_copies(few, digits.test.first(2).all())
    assert copies.held_out == 10 and copies.threshold > 0.1
    one = replace(few, test=digits.test.first(1))
    assert find_copies(one, digits.test.first(2).all()).held_out == 20


def test_find_copies_takes_the_range_of_the_data(digits: Data):
    images = digits.test.first(20).all()
    wide = load_data(DataConfig(data="mnist5k"), low=-1, high=1)
    ours, theirs = find_copies(digits, images), find_copies(wide, 2 * images - 1)
    np.testing.assert_array_equal(ours.rows_N, theirs.rows_N)
    np.testing.assert_allclose(ours.distances_N, theirs.distances_N, atol=1e-3)


def test_nearest_training_with_lite0_finds_changed_photographs():
    def square(rgb: np.ndarray) -> Tensor:
        return F.interpolate(to_tensor(rgb.copy()), (96, 96), mode="bicubic").clamp(0, 1)

    rng, originals = np.random.default_rng(0), list(photographs().values())[:8]
    nearest = NearestTraining(torch.cat([square(each) for each in originals]))
    rows, distances = nearest.search(torch.cat([square(changed(x, rng)) for x in originals]))
    assert nearest.measure == "lite0"
    assert (rows == np.arange(8)).sum() >= 7 and distances.max() < 1.42


def test_nearest_training_of_empty_images_is_an_empty_image():
    x = torch.rand(3, 1, 8, 8)
    x[1] = 0.5
    rows, distances = NearestTraining(x).search(torch.zeros(2, 1, 8, 8))
    assert rows.tolist() == [1, 1] and distances.max() < 1e-3


def test_find_copies_needs_two_held_out_images(digits: Data):
    one = replace(digits, test=digits.test.first(1), validation=digits.validation.first(0))
    with pytest.raises(ConfigError, match="two held-out images"):
        find_copies(one, digits.train.first(2).all())


# -- the Fréchet Lite0 distance --------------------------------------------------------------------


@pytest.fixture(scope="module")
def embedding() -> Embedding:
    return open_embedding()


def test_fld_is_0_for_the_same_images_and_grows_with_noise_and_blur(embedding, digits):
    x = digits.test.first(30).all()
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))

    def distance(images: Tensor) -> float:
        return frechet_lite0_distance(x, images, embedding=embedding).value

    assert distance(x) == pytest.approx(0, abs=1e-3)
    noisy = [distance((x + std * noise).clamp(0, 1)) for std in (0.05, 0.3)]
    blurred = [distance(F.avg_pool2d(x, side, 1, side // 2)) for side in (3, 5)]
    assert 0.1 < noisy[0] < noisy[1] and 0.1 < blurred[0] < blurred[1]


def test_fld_states_the_extractor_and_the_numbers_of_images(embedding):
    x = 2 * torch.rand(3, 3, 16, 16) - 1
    found = frechet_lite0_distance(x, x[:2], -1, 1, embedding)
    same = frechet_lite0_distance((x + 1) / 2, (x[:2] + 1) / 2, embedding=embedding)
    assert same.value == pytest.approx(found.value, rel=1e-2)
    assert (found.num_real, found.num_generated, found.extractor) == (3, 2, EXTRACTOR)
    assert "3 real and 2 generated images" in str(found) and "lite0 579344248a93e230" in str(found)
    with pytest.raises(ConfigError, match="two rows or more"):
        frechet_lite0_distance(x, x[:1], -1, 1, embedding)
