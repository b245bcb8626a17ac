"""Tests conversions between arrays and tensors, scaling, and transfer of colours."""

import numpy as np
import pytest
import torch

from genray.gen.images.pictures import (
    Picture,
    scaled,
    to_rgb,
    to_tensor,
    with_colours_of,
)
from tests.helpers.pictures import HEIGHT, WIDTH, smooth


def test_to_tensor_and_to_rgb_are_inverse():
    x = to_tensor(smooth())
    assert (
        x.shape == (1, 3, HEIGHT, WIDTH)
        and x.dtype == torch.float32
        and x.min() >= 0
        and x.max() <= 1
    )
    assert np.array_equal(to_rgb(x), smooth())
    values = torch.tensor([-0.5, 0.4999 / 255, 0.501 / 255, 1.5])
    assert to_rgb(values.expand(1, 3, 1, 4))[0, :, 0].tolist() == [0, 0, 1, 255]
    with pytest.raises(ValueError, match="NaN"):
        to_rgb(torch.full((1, 3, 2, 2), torch.nan))


def test_scaled_keeps_the_ratio_of_sides_and_enlarges_only_on_request():
    assert scaled(smooth(), 20).shape == (12, 20, 3) and scaled(smooth()[..., 0], 20).shape == (
        12,
        20,
    )
    assert np.array_equal(scaled(smooth(), 100), smooth())
    assert scaled(smooth(), 80, enlarge=True).shape == (48, 80, 3)
    # What shrinks is averaged, not skipped: a fine chequerboard becomes grey.
    board = np.indices((64, 64)).sum(0) % 2 * np.uint8(255)
    assert np.abs(scaled(board.astype(np.uint8), 16)[2:-2, 2:-2].astype(int) - 127).max() < 12


def test_with_colours_of_changes_only_the_luminance():
    content, result = smooth() // 2 + 60, (smooth()[::-1] // 4 + 90).astype(np.uint8)
    mixed = with_colours_of(result, content).astype(float)
    luma = np.array([0.299, 0.587, 0.114])
    assert np.abs(mixed @ luma - result @ luma).max() < 1
    chroma = mixed - (mixed @ luma)[..., None]
    assert np.abs(chroma - (content - (content @ luma)[..., None])).max() < 1
    assert with_colours_of(result, content[::2, ::2]).shape == result.shape
    assert np.array_equal(with_colours_of(content, content), content)


def test_picture_is_immutable():
    with pytest.raises(AttributeError):
        Picture(smooth(), None, "a").name = "b"  # type: ignore[misc]
