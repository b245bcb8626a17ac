"""Runs the presets of SVHN and CIFAR-10 with torchvision's own loaders.

The files have the publishers' names and formats, and contain crops of other photographs. Only the
hashes that torchvision expects are replaced by those of these files, so its comparison runs, too.
"""

import hashlib
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat
from torchvision import datasets

from genray import cli
from genray.gen.data.photos import load_photos

ROWS = 60
"""Training rows; there are half as many test rows."""


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def crops() -> np.ndarray:
    """uint8 [N, 3, 32, 32]"""
    return load_photos(32).train[: ROWS + ROWS // 2]


def write_svhn(folder: Path, crops: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write SVHN's two files; zero has the label 10, as the publishers call it."""
    place = folder / "SVHN"
    place.mkdir()
    lists = {}
    for part, images in (("train", crops[:ROWS]), ("test", crops[ROWS:])):
        url, file, _ = datasets.SVHN.split_list[part]
        label = np.arange(len(images)) % 10
        label[label == 0] = 10
        savemat(place / file, {"X": images.transpose(2, 3, 1, 0), "y": label[:, None]})
        lists[part] = [url, file, md5(place / file)]
    monkeypatch.setattr(datasets.SVHN, "split_list", lists)
    return place / "train_32x32.mat"


def write_cifar10(folder: Path, crops: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write CIFAR-10's five training batches, its test batch, and the names of the classes."""
    place = folder / "CIFAR10" / datasets.CIFAR10.base_folder
    place.mkdir(parents=True)
    parts = [*np.array_split(crops[:ROWS], 5), crops[ROWS:]]
    entries = datasets.CIFAR10.train_list + datasets.CIFAR10.test_list
    written = []
    for (file, _), images in zip(entries, parts, strict=True):
        batch = {"data": images.reshape(-1, 3072), "labels": [n % 10 for n in range(len(images))]}
        (place / file).write_bytes(pickle.dumps(batch))
        written.append([file, md5(place / file)])
    meta = {"label_names": [f"class {number}" for number in range(10)]}
    (place / "batches.meta").write_bytes(pickle.dumps(meta))
    monkeypatch.setattr(datasets.CIFAR10, "train_list", written[:5])
    monkeypatch.setattr(datasets.CIFAR10, "test_list", written[5:])
    found = {**datasets.CIFAR10.meta, "md5": md5(place / "batches.meta")}
    monkeypatch.setattr(datasets.CIFAR10, "meta", found)
    return place / "data_batch_3"


@pytest.mark.parametrize(
    ("words", "write"),
    [
        ("gan --preset dcgan_svhn", write_svhn),
        ("classifier --preset classifier_cifar10", write_cifar10),
        ("ae --preset retrieval_cifar10", write_cifar10),
    ],
)
def test_presets_train_on_files_of_the_published_format(
    words: str, write, crops, tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture[str]
):
    changed = write(tmp_path, crops, monkeypatch)
    run = tmp_path / "run"
    command = ["train", *words.split(), "--data-folder", str(tmp_path), "--batch-size", "4"]
    if write is write_svhn:
        # Fewer channels, and a classifier that computes the distance of the samples: the run would
        # train one for half a minute.
        made = ["--data", "svhn", "--steps", "2", "--channels", "4", "--features", "4"]
        extractor = str(tmp_path / "classifier")
        line = ["train", "classifier", *made, "--data-folder", str(tmp_path), "--out", extractor]
        assert cli.main([*line, "--batch-size", "4"]) == 0
        narrow = ["--generator-widths", "16", "8", "8", "--discriminator-widths", "8", "8", "16"]
        command += [*narrow, "--extractor", f"{extractor}/model"]
    assert cli.main([*command, "--steps", "2", "--out", str(run)]) == 0
    config = json.loads((run / "model" / "config.json").read_text())
    assert config["data"]["name"] == words.split("_")[-1]
    if "retrieval" in words:
        sheet = tmp_path / "neighbours.png"
        line = ["retrieve", str(run), "0", "1", "2", "--pixels", "--neighbours", "4"]
        capsys.readouterr()
        assert cli.main([*line, "--out", str(sheet)]) == 0
        table = capsys.readouterr().out
        assert all(name in table for name in ("these codes", "raw", "pca-", "precision_at_10"))
        with Image.open(sheet) as image:
            # Two rows for each of the three queries, of 64 pixels and a caption
            assert image.height > 6 * 64 and image.width > 5 * 64
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert np.isfinite(list(lines[0].values())).all()
    # A file with another hash is refused, and nothing can be downloaded.
    content = bytearray(changed.read_bytes())
    content[-9] ^= 1
    changed.write_bytes(content)
    for variable in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    capsys.readouterr()
    assert cli.main([*command, "--out", str(tmp_path / "again")]) == 2
    error = capsys.readouterr().err
    assert "the files are missing or damaged and cannot be downloaded" in error
    assert error.count("\n") == 1 and not (tmp_path / "again").exists()
