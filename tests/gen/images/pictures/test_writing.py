"""Tests that pictures are written whole, with metadata, or not at all."""

from pathlib import Path

import numpy as np
import pytest

from genray.errors import ConfigError, ResourceError
from genray.gen.images.pictures import (
    check_picture_path,
    read_picture,
    write_picture,
)
from tests.helpers.pictures import HEIGHT, WIDTH, read_about, smooth


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_write_picture_writes_pixels_alpha_and_metadata(suffix: str, tmp_path: Path):
    alpha = None if suffix == ".jpg" else np.full((HEIGHT, WIDTH), 77, np.uint8)
    about = {
        "command": "dream",
        "layer": "conv3",
        "name": "Möwe",
        "rate": 0.5,
        "nested": {"a": [1, None]},
    }
    path = write_picture(tmp_path / "new" / f"out{suffix}", smooth(), alpha, about)
    assert read_about(path) == about
    picture = read_picture(path)
    assert np.abs(picture.rgb.astype(int) - smooth()).mean() < 3
    assert (picture.alpha is None) == (alpha is None)
    assert picture.alpha is None or (picture.alpha == 77).all()
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_write_picture_reports_an_error_in_one_line(tmp_path: Path):
    alpha = np.zeros((HEIGHT, WIDTH), np.uint8)
    with pytest.raises(ConfigError, match="a JPEG has no transparency.*out.png or .webp"):
        write_picture(tmp_path / "out.jpg", smooth(), alpha)
    with pytest.raises(ConfigError, match="must end in .png"):
        check_picture_path(tmp_path / "out.bmp")
    with pytest.raises(ResourceError, match="cannot be written"):
        write_picture(tmp_path / "wide.webp", np.zeros((8, 16_500, 3), np.uint8))
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ResourceError, match="cannot be written"):
        write_picture(tmp_path / "file" / "out.png", smooth())
    assert [each.name for each in tmp_path.iterdir()] == ["file"]
