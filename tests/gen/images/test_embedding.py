"""Tests the embedding of pictures with EfficientNet-Lite0, and the index of pictures."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from genray.errors import ConfigError
from genray.gen.data.config import DataConfig
from genray.gen.data.load import load_data
from genray.gen.families import BUILDERS
from genray.gen.generative import to_uint8
from genray.gen.images.embedding import SIDE, SMALL_SIDE, Embedding, open_embedding, prepared
from genray.gen.images.photo_index import PhotoIndex, index_data, index_rows, tile
from genray.runs.modelstore import load_model
from tests.helpers.photographs import changed, photographs, squeezed, top1


@pytest.fixture(scope="module")
def embedding() -> Embedding:
    return open_embedding()


def test_embedding_codes_have_length_1_and_do_not_depend_on_the_batch(embedding: Embedding):
    torch.manual_seed(0)
    x = torch.rand(5, 3, 64, 64)
    codes = embedding.encode(x)
    assert codes.shape == (5, embedding.numbers) and codes.min() >= 0
    torch.testing.assert_close(codes.norm(dim=1), torch.ones(5))
    torch.testing.assert_close(codes[2:3], embedding.encode(x[2:3]), atol=1e-5, rtol=0)
    grey = embedding.encode(x[:, :1])
    torch.testing.assert_close(grey, embedding.encode(x[:, :1].repeat(1, 3, 1, 1)))
    assert embedding.encode(x[:0]).shape == (0, embedding.numbers)


def test_embedding_encode_refuses_other_channels(embedding: Embedding):
    with pytest.raises(ConfigError, match=r"\[2, 4, 64, 64\]"):
        embedding.encode(torch.zeros(2, 4, 64, 64))


def test_embedding_encode_pictures_of_mixed_sizes(embedding: Embedding):
    rng = np.random.default_rng(0)
    sizes = ((100, 150), (28, 28), (28, 20), (90, 70))
    pictures = [rng.integers(0, 256, (*size, 3)).astype(np.uint8) for size in sizes]
    assert prepared(pictures[0]).shape[:2] == (SIDE, SIDE)
    assert prepared(pictures[1]).shape[:2] == (SMALL_SIDE, SMALL_SIDE)
    together = embedding.encode_pictures(iter(pictures))
    alone = np.concatenate([embedding.encode_pictures([picture]) for picture in pictures])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_embedding_finds_the_original_of_changed_photographs(embedding: Embedding):
    """The embedding finds the original of a cropped, mirrored and recoloured photograph; raw
    pixels do not.
    """
    originals, rng = list(photographs().values()), np.random.default_rng(0)
    queries = [changed(each, rng) for each in originals]
    assert top1(*(embedding.encode_pictures(each) for each in (originals, queries))) >= 0.9
    raw, raw_queries = (np.stack([squeezed(x) for x in each]) for each in (originals, queries))
    assert top1(raw, raw_queries) <= 0.6


# -- the index -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six photographs in two classes, a damaged file, and a file that is no picture."""
    top = tmp_path_factory.mktemp("photographs")
    for number, (name, rgb) in enumerate(list(photographs().items())[:6]):
        place = top / ("a" if number < 3 else "b")
        place.mkdir(exist_ok=True)
        Image.fromarray(rgb).save(place / f"{name}.png")
    (top / "a" / "damaged.jpg").write_bytes(b"\xff\xd8\xff no picture")
    (top / "a" / "notes.txt").write_text("no picture")
    return top


@pytest.fixture(scope="module")
def index(folder: Path) -> PhotoIndex:
    return index_data(f"folder:{folder}")


def test_photo_index_of_a_folder_reports_unreadable_files(folder: Path, capsys):
    index = index_data(f"folder:{folder}")
    assert "1 file skipped: a/damaged.jpg" in capsys.readouterr().err
    assert len(index) == 6 and index.classes == ("a", "b") and index.labels == (0, 0, 0, 1, 1, 1)
    assert all((folder / name).exists() for name in index.names)
    assert max(index.copy_of(5).shape) == 192 and index.pixels().shape == (6, 3072)


def test_photo_index_save_and_load_keep_everything(index: PhotoIndex, tmp_path: Path):
    model, config = load_model(index.save(tmp_path / "index"), BUILDERS)
    assert isinstance(model, PhotoIndex) and config["kind"] == "photographs"
    assert (model.names, model.labels, model.classes) == (index.names, index.labels, index.classes)
    np.testing.assert_array_equal(model.codes, index.codes)
    for row in range(len(index)):
        np.testing.assert_array_equal(model.copy_of(row), index.copy_of(row))
    x = torch.rand(1, *model.shape)
    torch.testing.assert_close(model.encode(x), index.encode(x))


def test_index_rows_has_the_rows_of_all_splits(embedding: Embedding):
    whole = load_data(DataConfig(data="digits"))
    data = replace(
        whole, train=whole.train.first(4), validation=whole.validation.first(0),
        test=whole.test.first(3),
    )  # fmt: skip
    index = index_rows(embedding, data)
    assert len(index) == 7 and index.classes == tuple("0123456789")
    assert index.names[3] == "row 3" and index.labels[4] == int(whole.test.label[0])
    shown = to_uint8(whole.test.first(1).all(), 0, 1)[0]
    np.testing.assert_array_equal(index.copy_of(4), shown)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("docs", "lite0 embeds images"),
        ("folder:missing", "no such folder"),
        ("nothing", "no such data set"),
    ],
)
def test_index_data_refuses(data: str, message: str):
    with pytest.raises(ConfigError, match=message):
        index_data(data)


def test_index_data_refuses_a_folder_without_pictures(tmp_path: Path):
    with pytest.raises(ConfigError, match="has no images"):
        index_data(f"folder:{tmp_path}")
    (tmp_path / "a.png").write_text("no picture")
    with pytest.raises(ConfigError, match="no file could be read"):
        index_data(f"folder:{tmp_path}")


def test_tile_shows_the_whole_picture():
    wide = tile(np.full((50, 100, 3), 9, np.uint8), 160)
    assert wide.shape == (160, 160, 3) and (wide[80] < 20).all() and (wide[0] > 200).all()
    small = np.arange(16, dtype=np.uint8).reshape(4, 4, 1).repeat(3, axis=2) * 10
    np.testing.assert_array_equal(tile(small, 160)[20::40, 20::40], small)
