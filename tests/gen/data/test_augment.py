"""Tests augmentation: which rows it changes, what each change keeps, and its random numbers."""

import pytest
import torch

from genray.gen.data.augment import augment
from genray.gen.data.config import DataConfig
from genray.gen.data.load import load_data
from genray.gen.data.types import Data


@pytest.fixture(scope="module")
def digits() -> Data:
    return load_data(DataConfig())


def test_load_data_augments_only_training_rows(digits):
    data = load_data(DataConfig(augment=("shift",)))
    assert (
        data.train.augment == ("shift",)
        and data.validation.augment == ()
        and data.test.augment == ()
    )
    assert torch.equal(data.train.all(), digits.train.all())  # `take` and `all` never augment


def test_augment_flip_mirrors_about_half_of_the_rows():
    torch.manual_seed(0)
    x = torch.rand(400, 1, 4, 6)
    flipped = augment(x, ("flip",))
    same = (flipped == x).flatten(1).all(1)
    assert torch.equal(flipped[~same], x[~same].flip(3)) and 150 < int(same.sum()) < 250


def test_augment_shift_moves_by_whole_pixels_and_repeats_the_edge():
    torch.manual_seed(0)
    x = torch.rand(400, 2, 20, 30)  # at most 2 down, 3 across
    moved = augment(x, ("shift",))
    padded = torch.nn.functional.pad(x, (3, 3, 2, 2), mode="replicate")
    seen = set()
    for row in range(400):
        fits = [
            (down, right)
            for down in range(5)
            for right in range(7)
            if torch.equal(moved[row], padded[row, :, down : down + 20, right : right + 30])
        ]
        assert len(fits) == 1
        seen.update(fits)
    assert len(seen) == 35


def test_augment_crop_enlarges_a_part_of_the_image():
    torch.manual_seed(0)
    ramp = torch.linspace(-1, 1, 32).expand(100, 1, 32, 32)
    cropped = augment(ramp, ("crop",))
    slope = (cropped[:, 0, 16, -4] - cropped[:, 0, 16, 3]) / (
        ramp[:, 0, 16, -4] - ramp[:, 0, 16, 3]
    )
    assert (
        float(slope.min()) >= 0.8 - 1e-4
        and float(slope.max()) <= 1 + 1e-4
        and float(slope.std()) > 0.03
    )
    assert float(cropped.min()) >= -1 and float(cropped.max()) <= 1


def test_augment_depends_on_the_global_generator_and_the_global_batch():
    from genray.gen.training.world import World

    x, names = torch.rand(8, 3, 8, 8), ("flip", "shift", "crop", "colour")
    torch.manual_seed(3)
    whole = augment(x, names)
    torch.manual_seed(3)
    assert torch.equal(augment(x, names), whole)
    for rank, rows in ((0, slice(0, 4)), (1, slice(4, 8))):
        torch.manual_seed(3)
        torch.testing.assert_close(augment(x[rows], names, World(rank, 2)), whole[rows])


def test_augment_colour_permutes_and_inverts_channels():
    """Each channel of the result is a channel of the image, each once, unchanged or inverted."""
    torch.manual_seed(0)
    x = torch.rand(200, 3, 6, 5) * 0.5 - torch.rand(200, 3, 1, 1)
    turned = x.amin((2, 3), keepdim=True) + x.amax((2, 3), keepdim=True) - x
    y = augment(x, ("colour",))
    plain = (y[:, :, None] == x[:, None]).flatten(3).all(3)  # [B, channel of y, channel of x]
    negative = torch.isclose(y[:, :, None], turned[:, None]).flatten(3).all(3)
    assert torch.equal((plain | negative).sum(2), torch.ones(200, 3, dtype=torch.int64))
    assert torch.equal((plain | negative).sum(1), torch.ones(200, 3, dtype=torch.int64))
    assert 0.2 < negative.any(2).float().mean() < 0.4
    assert 0.2 < (plain | negative)[:, 0, 0].float().mean() < 0.5  # a third stays where it was
    assert torch.equal(augment(x[:, :1], ()), x[:, :1])
