"""Tests the crops of paintings: their split, labels and credits, and unsuitable directories."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from genray.errors import ConfigError
from genray.gen.data.config import DataConfig
from genray.gen.data.gcompris.credits import Credit, format_credits
from genray.gen.data.load import load_data
from genray.gen.data.paintings import load_paintings


def paintings(folder: Path, count: int = 10, side: int = 40) -> Path:
    """Pictures of noise; the red of each is its number."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for number in range(count):
        rgb = rng.integers(0, 256, (side, side + 8, 3), dtype=np.uint8)
        rgb[..., 0] = number
        Image.fromarray(rgb).save(folder / f"{number}.png")
    return folder


def test_load_paintings_keeps_test_pictures_and_credits(tmp_path: Path):
    folder = paintings(tmp_path / "paintings")
    (tmp_path / "photographs").mkdir()
    credits = {f"paintings/{n}.png": Credit(f"T{n}", "Ann", "CC0") for n in range(9)}
    (tmp_path / "CREDITS.md").write_text(format_credits("Words.", credits))
    source = load_paintings(tmp_path, 16)
    assert source.train.shape == (800, 3, 16, 16) and source.test.shape == (48, 3, 16, 16)
    seen = [set(np.unique(part[:, 0])) for part in (source.train, source.test)]
    assert len(seen[1]) == 2 and not seen[0] & seen[1] and seen[0] | seen[1] == set(range(10))
    assert source.about["credits"]["3.png"] == "T3; Ann; CC0" and "9.png" not in source.about
    assert source.licence.startswith("CC0; ")
    again = load_paintings(folder, 16)
    assert np.array_equal(again.train, source.train)


def test_load_data_paintings_labels_subfolders_and_converts(tmp_path: Path):
    for kind in ("a", "b"):
        paintings(tmp_path / kind, 5, 100)
    config = DataConfig(data=f"paintings:{tmp_path}", size=20, grey=True)
    data = load_data(config)
    assert data.classes == ("a", "b") and data.shape == (1, 20, 20)
    assert data.licence == "its owner's" and data.about["rows"]["names"]
    assert load_data(DataConfig(data=f"paintings:{tmp_path}"), like=(3, 8, 8)).shape == (3, 8, 8)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("missing", "no such folder; make it with: genray data paintings --out "),
        ("empty", "0 readable pictures are too few"),
        ("broken", "4 readable pictures are too few"),
        ("small", "is 48x40, smaller than the crops of 64; use --size 40 or less"),
    ],
)
def test_load_paintings_reports_unsuitable_directories(tmp_path: Path, fault: str, message: str):
    folder = tmp_path / "paintings"
    if fault == "empty":
        folder.mkdir()
    elif fault == "broken":
        (paintings(folder, 4) / "x.png").write_bytes(b"no picture")
    elif fault == "small":
        paintings(folder)
    with pytest.raises(ConfigError, match=message) as caught:
        load_data(DataConfig(data=f"paintings:{folder}", size=64 if fault == "small" else 16))
    assert str(folder) in str(caught.value) and "\n" not in str(caught.value)


def test_data_paintings_without_a_path_reads_the_data_folder(tmp_path: Path):
    config = DataConfig(data="paintings", size=16, data_folder=str(tmp_path))
    # The command in the message writes where this option reads.
    with pytest.raises(ConfigError, match=f"genray data paintings --out {tmp_path}/gcompris$"):
        load_data(config)
    paintings(tmp_path / "gcompris" / "paintings")
    assert load_data(config).shape == (3, 16, 16)
