"""Tests the published data sets' files: IDX, Debian's package, and damaged files."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from genray.errors import ConfigError
from genray.gen.data import published
from genray.gen.data.config import DataConfig
from genray.gen.data.idx import read_idx
from genray.gen.data.load import load_data


def idx(values: np.ndarray) -> bytes:
    header = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape)
    return gzip.compress(header + values.tobytes())


def test_read_idx_reads_arrays_and_refuses_damage(tmp_path: Path):
    values = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    path = tmp_path / "x.gz"
    good = idx(values)
    path.write_bytes(good)
    assert np.array_equal(read_idx(path), values)
    content = gzip.decompress(good)
    bad = [good[:20], b"", gzip.compress(content[:-1]), gzip.compress(content + b"x")]
    bad += [gzip.compress(b"\0\0\x0d" + content[3:]), gzip.compress(content[:3]), b"text" * 9]
    for case in bad:
        path.write_bytes(case)
        with pytest.raises(ValueError, match=r"x.gz: damaged, or not an IDX file"):
            read_idx(path)


@pytest.fixture
def debian(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with small files in the layout of dataset-fashion-mnist."""
    folder = tmp_path / "datasets"
    folder.mkdir()
    for part, rows in (("train", 20), ("t10k", 10)):
        for name, shape in (("images-idx3", (rows, 28, 28)), ("labels-idx1", (rows,))):
            content = idx((np.arange(np.prod(shape)) % 10).astype(np.uint8).reshape(shape))
            (folder / f"{part}-{name}-ubyte.gz").write_bytes(content)
    monkeypatch.setattr(published, "DEBIAN", {"fashion-mnist": folder})
    return folder


def test_load_published_reads_debians_files(debian: Path, tmp_path: Path):
    config = DataConfig(data="fashion-mnist", data_folder=str(tmp_path / "none"))
    data = load_data(config, download=False)
    assert [len(data.train), len(data.validation), len(data.test)] == [18, 2, 10]
    assert data.shape == (1, 28, 28) and "MIT" in data.licence and data.classes[9] == "boot"
    assert data.test.label is not None and data.test.label.tolist() == list(range(10))
    assert data.test.values[0, 0, 0, :3].tolist() == [0, 1, 2]


def test_load_published_reads_debians_files_after_a_download_that_failed(debian, tmp_path):
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    config = DataConfig(data="fashion-mnist", data_folder=str(tmp_path))
    assert len(load_data(config, download=False).test) == 10
    # A complete directory comes first, and here its files are damaged.
    for file in debian.iterdir():
        assert len(load_data(config, download=False).test) == 10
        (raw / file.name).write_bytes(b"")
    with pytest.raises(ConfigError, match=str(raw)):
        load_data(config, download=False)


@pytest.mark.parametrize("fault", ["missing", "cut", "changed"])
def test_load_published_reports_debians_damaged_files(debian: Path, tmp_path: Path, fault: str):
    path = debian / "t10k-images-idx3-ubyte.gz"
    content = path.read_bytes()
    path.unlink()
    if fault == "cut":
        path.write_bytes(content[:-1])
    elif fault == "changed":
        path.write_bytes(content[:40] + bytes([content[40] ^ 1]) + content[41:])
    config = DataConfig(data="fashion-mnist", data_folder=str(tmp_path / "none"))
    with pytest.raises(ConfigError, match="--data fashion-mnist: .*t10k-images.*") as caught:
        load_data(config)
    assert "--reinstall dataset-fashion-mnist" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(
    not published.DEBIAN["fashion-mnist"].is_dir(),
    reason="dataset-fashion-mnist is not installed: make system-deps",
)
def test_load_published_reads_the_installed_fashion_mnist(tmp_path: Path):
    source = published.load_published("fashion-mnist", tmp_path, download=False)
    assert source.train.shape == (60000, 1, 28, 28) and source.test.shape == (10000, 1, 28, 28)
    assert source.test_label is not None and np.bincount(source.test_label).tolist() == [1000] * 10
