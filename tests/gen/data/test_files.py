"""Tests that every data set is read from its files, and the messages for unsuitable files.

Files that are not bundled with a library are written by the tests.
"""

import gzip
import pickle
import socket
import struct
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from genray.errors import ConfigError
from genray.gen.data import published
from genray.gen.data.config import DataConfig
from genray.gen.data.load import load_data
from genray.gen.data.sources import read_image


def picture(path: Path, width: int, height: int, colour=(255, 0, 0)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height), colour).save(path)
    return path


# -- torchvision's, in their own file formats ------------------------------------------------------


def write_mnist(folder: Path) -> None:
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part, rows in (("train", 20), ("t10k", 10)):
        pixels = np.arange(rows * 784, dtype=np.uint32).astype(np.uint8)
        (raw / f"{part}-images-idx3-ubyte").write_bytes(
            struct.pack(">4I", 2051, rows, 28, 28) + pixels.tobytes()
        )
        label = (np.arange(rows) % 10).astype(np.uint8)
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(
            struct.pack(">2I", 2049, rows) + label.tobytes()
        )


def test_load_data_reads_mnist_from_the_data_folder(tmp_path):
    write_mnist(tmp_path)
    data = load_data(DataConfig(data="mnist", data_folder=str(tmp_path)))
    assert data.shape == (1, 28, 28) and [
        len(data.train),
        len(data.validation),
        len(data.test),
    ] == [18, 2, 10]
    expected = torch.arange(784).to(torch.uint8).reshape(28, 28) / 255.0
    torch.testing.assert_close(data.train.all()[0, 0], expected)
    assert data.test.label is not None and data.test.label.tolist() == list(range(10))
    assert "CC BY-SA" in data.licence


def test_load_data_keeps_channels_and_labels_of_svhn_and_cifar10(tmp_path, monkeypatch):
    """The files have the publishers' formats. Their checksums are not checked, because a file that
    this test writes has other ones.
    """
    from scipy.io import savemat
    from torchvision import datasets

    images = np.random.default_rng(0).integers(0, 256, (12, 3, 32, 32), dtype=np.uint8)
    label = np.arange(12) % 10
    (tmp_path / "SVHN").mkdir()
    lists = {}
    for part in ("train", "test"):
        ten = np.where(label == 0, 10, label)  # the publishers call zero 10
        savemat(
            tmp_path / "SVHN" / f"{part}_32x32.mat",
            {"X": images.transpose(2, 3, 1, 0), "y": ten[:, None]},
        )
        url, file, _ = datasets.SVHN.split_list[part]
        lists[part] = [url, file, None]
    monkeypatch.setattr(datasets.SVHN, "split_list", lists)

    folder = tmp_path / "CIFAR10" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    batch = {"data": images.reshape(12, 3072), "labels": label.tolist()}
    for file in ("one", "test"):
        (folder / file).write_bytes(pickle.dumps(batch))
    (folder / "batches.meta").write_bytes(
        pickle.dumps({"label_names": [str(number) for number in range(10)]})
    )
    monkeypatch.setattr(datasets.CIFAR10, "train_list", [["one", None]])
    monkeypatch.setattr(datasets.CIFAR10, "test_list", [["test", None]])
    monkeypatch.setattr(datasets.CIFAR10, "meta", {**datasets.CIFAR10.meta, "md5": None})

    for name in ("svhn", "cifar10"):
        data = load_data(DataConfig(data=name, data_folder=str(tmp_path), validation=0))
        assert torch.equal(data.train.values, torch.from_numpy(images)), name
        assert data.test.label is not None and data.test.label.tolist() == label.tolist()
        assert len(data.classes) == 10 and data.licence


def test_data_folder_is_read_from_the_environment(tmp_path, monkeypatch):
    write_mnist(tmp_path)
    monkeypatch.setenv("GENRAY_DATA", str(tmp_path))
    assert load_data(DataConfig(data="mnist")).shape == (1, 28, 28)


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "svhn", "cifar10"])
def test_load_published_without_file_or_network_names_the_folder_in_one_line(
    name, tmp_path, monkeypatch
):
    monkeypatch.setattr(published, "DEBIAN", {})
    for variable in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")  # no server listens on this port
    for variable in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(ConfigError) as error:
        load_data(DataConfig(data=name, data_folder=str(tmp_path)))
    message = str(error.value)
    assert "\n" not in message and str(tmp_path) in message and f"--data {name}" in message
    assert any(
        file in message
        for file in ("train-images-idx3-ubyte.gz", "train_32x32.mat", "cifar-10-python.tar.gz")
    )


def test_load_published_reports_a_damaged_download_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part in ("train", "t10k"):
        for what in ("images-idx3", "labels-idx1"):
            (raw / f"{part}-{what}-ubyte.gz").write_bytes(gzip.compress(b"not MNIST"))
    with pytest.raises(ConfigError, match="--data mnist: the files are missing or damaged"):
        load_data(DataConfig(data="mnist", data_folder=str(tmp_path)))


def test_probe_ends_when_a_host_does_not_answer():
    with socket.create_server(("127.0.0.1", 0)) as server:  # accepts, never answers
        start = time.monotonic()
        with pytest.raises(OSError):
            published.probe(f"http://127.0.0.1:{server.getsockname()[1]}/file", seconds=0.3)
        assert time.monotonic() - start < 3


# -- a folder of pictures --------------------------------------------------------------------------


def test_load_folder_scales_labels_and_splits(tmp_path, capsys):
    for number in range(10):
        picture(tmp_path / "cats" / f"{number}.png", 20 + number, 30, (number, 0, 0))
        picture(tmp_path / "dogs" / f"{number}.jpg", 40, 20, (0, 200, number))
    (tmp_path / "cats" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing more")
    (tmp_path / "cats" / "notes.txt").write_text("not an image")
    data = load_data(DataConfig(data=f"folder:{tmp_path}", size=16, validation=0.25))
    assert data.classes == ("cats", "dogs") and data.shape == (3, 16, 16)
    assert [len(part) for part in (data.train, data.validation, data.test)] == [12, 4, 4]
    names = data.train.names + data.validation.names + data.test.names
    assert len(set(names)) == 20
    assert data.train.label is not None
    for name, label in zip(data.train.names, data.train.label.tolist()):
        assert name.startswith(data.classes[label])
    assert data.about["skipped"] == 1 and "broken.png" in capsys.readouterr().err
    again = load_data(DataConfig(data=f"folder:{tmp_path}", size=16, validation=0.25))
    assert again.test.names == data.test.names


def test_load_folder_names_both_files_of_unequal_size(tmp_path):
    for number in range(6):
        picture(tmp_path / f"{number}.png", 20 + (number == 3), 20)
    with pytest.raises(ConfigError, match=r"3\.png is 21x20, 0\.png is 20x20.*--size 64"):
        load_data(DataConfig(data=f"folder:{tmp_path}"))


def test_load_folder_does_not_decode_a_picture_of_too_many_pixels(tmp_path, capsys):
    for number in range(6):
        picture(tmp_path / f"{number}.png", 8, 8)
    bomb = bytearray((tmp_path / "0.png").read_bytes())
    header = struct.pack(">4s2I5B", b"IHDR", 9_000, 9_000, 8, 2, 0, 0, 0)
    bomb[12:33] = header + struct.pack(">I", zlib.crc32(header))
    (tmp_path / "0.png").write_bytes(bytes(bomb))
    data = load_data(DataConfig(data=f"folder:{tmp_path}"))
    assert data.about["skipped_files"] == [
        "0.png (9000x9000 are more pixels than the limit of 64,000,000; give a smaller picture)"
    ]
    assert "0.png" in capsys.readouterr().err
    assert len(data.train) + len(data.validation) + len(data.test) == 5


def test_load_folder_turns_a_picture_with_damaged_exif_upright(tmp_path, capsys):
    """IFD0 contains Orientation = 6 as a SHORT, and ImageLength as the text "12"."""
    block = b"Exif\0\0MM\0*" + struct.pack(">IH", 8, 2)
    block += (
        struct.pack(">HHIHH", 0x0112, 3, 1, 6, 0)
        + struct.pack(">HHI4s", 0x0101, 2, 3, b"12\0\0")
        + bytes(4)
    )
    for number in range(6):
        Image.new("RGB", (24, 16), (40 * number, 0, 0)).save(tmp_path / f"{number}.jpg", exif=block)
    data = load_data(DataConfig(data=f"folder:{tmp_path}"))
    assert (
        data.shape == (3, 24, 16) and data.about["skipped"] == 0 and capsys.readouterr().err == ""
    )


def test_load_folder_names_a_file_with_nan_pixels(tmp_path):
    for number in range(5):
        picture(tmp_path / f"{number}.png", 8, 8)
    pixels = np.zeros((8, 8), np.float32)
    pixels[2, 3] = np.nan
    Image.fromarray(pixels).save(tmp_path / "bad.tiff")
    with pytest.raises(ConfigError, match=r"bad\.tiff has NaN"):
        load_data(DataConfig(data=f"folder:{tmp_path}"))


@pytest.mark.parametrize("grey", [True, False])
@pytest.mark.parametrize(
    ("name", "kind", "top"),
    [("a.png", np.uint16, 65535), ("a.tif", np.int32, 65535), ("a.tiff", np.float32, 1)],
)
def test_read_image_scales_more_than_8_bits(name, kind, top, grey, tmp_path):
    ramp = np.linspace(0, top, 256).reshape(16, 16)
    Image.fromarray((ramp if top == 1 else ramp.round()).astype(kind)).save(tmp_path / name)
    for plane in read_image(tmp_path / name, 0, grey):
        np.testing.assert_array_equal(plane.ravel(), np.arange(256))


def test_read_image_refuses_floats_above_1(tmp_path):
    Image.fromarray(np.full((8, 8), 700, np.float32)).save(tmp_path / "depth.tiff")
    with pytest.raises(
        ConfigError,
        match=r"depth\.tiff has floating-point pixels in 700\.\.700; save them in 0\.\.1",
    ):
        read_image(tmp_path / "depth.tiff", 0, True)


@pytest.mark.parametrize(
    ("what", "message"), [("missing", "no such folder"), ("empty", "has no images")]
)
def test_load_folder_refuses_a_folder_without_images(what, message, tmp_path):
    folder = tmp_path / what
    if what == "empty":
        folder.mkdir()
    with pytest.raises(ConfigError, match=message):
        load_data(DataConfig(data=f"folder:{folder}"))


# -- frames ----------------------------------------------------------------------------------------


def test_load_atari_names_the_command_that_records_missing_frames(tmp_path):
    with pytest.raises(
        ConfigError, match=r"genray data atari --games .* --frames 20000 --size 64 --grey"
    ):
        load_data(DataConfig(data="atari", size=64, grey=True, data_folder=str(tmp_path)))


def test_load_atari_refuses_a_file_of_another_program(tmp_path):
    (tmp_path / "atari-32-rgb.safetensors").write_bytes(b"\x80\x04pickle")
    with pytest.raises(ConfigError, match="not written by genray"):
        load_data(DataConfig(data="atari", data_folder=str(tmp_path)))
