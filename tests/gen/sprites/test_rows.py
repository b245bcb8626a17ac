"""Tests that rows behind sprites are completed, on screens of a road with dashes."""

import numpy as np
import pytest
import torch

from genray.gen.sprites.config import SpriteModelConfig
from genray.gen.sprites.model import SpriteModel
from genray.gen.sprites.rows import completed, encode_whole
from genray.gen.sprites.tokens import Language, learn_language

PALETTE = np.array([[0, 0, 0], [255, 255, 255], [255, 0, 0]], np.uint8)
DASHES, STEP, ROAD_Y = 6, 8, 10


def road(offset: int, car_x: int | None, car_y: int = 9) -> np.ndarray:
    """Return a screen of a row of dashes of 3x2 pixels, and of a car of 5x4 in front of it."""
    screen_HW = np.zeros((24, 64), np.uint8)
    for dash in range(DASHES):
        left = offset + dash * STEP
        screen_HW[ROAD_Y : ROAD_Y + 2, left : left + 3] = 1
    if car_x is not None:
        screen_HW[car_y : car_y + 4, car_x : car_x + 5] = 2
    return screen_HW


@pytest.fixture(scope="module")
def language() -> Language:
    screens = [road(4 + step % STEP, None if step % 4 else 2 + step % 50) for step in range(160)]
    return learn_language(np.stack(screens), PALETTE, rare=2, most_shapes=200, name="road")


@pytest.mark.parametrize("car_x", [12, 21, 27, 35])
def test_a_row_behind_a_car_is_one_sprite_again(language: Language, car_x: int):
    screen_HW = road(5, car_x)
    broken, whole = language.encode(screen_HW), encode_whole(language, screen_HW)
    assert len(whole) == 2 < len(broken), "the road and the car"
    [row] = language.encode(road(5, None))
    assert row in whole
    np.testing.assert_array_equal(language.decode(whole), screen_HW)


def test_screens_of_whole_rows_stay_as_they_are(language: Language):
    for screen_HW in (road(4, None), road(4, 30, car_y=16)):
        tokens = language.encode(screen_HW)
        assert completed(language, tokens) == list(tokens)


def test_a_row_with_a_gap_that_nothing_covers_stays_broken(language: Language):
    screen_HW = road(5, None)
    screen_HW[:, 5 + 2 * STEP : 8 + 2 * STEP] = 0  # a missing dash
    whole = encode_whole(language, screen_HW)
    assert len(whole) >= 2
    np.testing.assert_array_equal(language.decode(whole), screen_HW)


@pytest.mark.parametrize("whole", [False, True])
def test_a_model_reads_whole_rows_if_it_was_trained_on_them(language: Language, whole: bool):
    screen_HW = road(6, 21)
    encoded, completed_row = language.encode(screen_HW), encode_whole(language, screen_HW)
    assert len(completed_row) < len(encoded)
    config = SpriteModelConfig(width=8, layers=1, heads=2, whole_rows=whole)
    model = SpriteModel.of_language(config, language, [encoded])
    x_1CHW = torch.from_numpy(PALETTE[screen_HW]).permute(2, 0, 1)[None] / 255
    assert model.screen_tokens(x_1CHW) == [completed_row if whole else encoded]
    assert np.array_equal(model.indices(model.reconstruct(x_1CHW))[0], screen_HW)
