"""Tests which files of a folder are data: not hidden names, but links, also those in a loop."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from genray.errors import ConfigError
from genray.gen.data.folders import find_files
from genray.gen.data.sources import load_folder
from genray.gen.data.text import read_folder


def pictures(folder: Path, count: int = 3) -> Path:
    folder.mkdir(parents=True)
    for number in range(count):
        Image.fromarray(np.full((8, 8, 3), 40 * number, np.uint8)).save(folder / f"{number}.png")
    return folder


def texts(folder: Path, count: int = 3) -> Path:
    folder.mkdir(parents=True)
    for number in range(count):
        (folder / f"{number}.txt").write_text(f"text {number} of {folder.name}")
    return folder


LOADERS = {
    "folder": (pictures, lambda path: load_folder(path, 0, False)),
    "folder-text": (texts, read_folder),
}
either = pytest.mark.parametrize("kind", LOADERS)


@either
def test_load_data_skips_and_counts_hidden_names(kind, tmp_path, capsys):
    make, load = LOADERS[kind]
    for name in ("a", "b", ".ipynb_checkpoints"):
        make(tmp_path / name)
    one = next((tmp_path / "a").iterdir())
    (tmp_path / "a" / f"._{one.name}").write_bytes(b"a resource fork of macOS")
    found = load(tmp_path)
    assert found.classes == ("a", "b")
    assert found.about["hidden_names_skipped"] == 2 and found.about["skipped"] == 0
    error = capsys.readouterr().err
    assert "2 hidden names skipped (.ipynb_checkpoints, a/._" in error and error.count("\n") == 1


@either
def test_load_data_follows_and_counts_links_to_folders(kind, tmp_path, capsys):
    make, load = LOADERS[kind]
    (tmp_path / "data").mkdir()
    for name in ("a", "b"):
        (tmp_path / "data" / name).symlink_to(make(tmp_path / "store" / name))
    found = load(tmp_path / "data")
    assert found.classes == ("a", "b") and found.about["links_followed"] == 2
    assert "2 links to folders followed (a, b)" in capsys.readouterr().err


@either
def test_load_data_skips_and_counts_links_that_make_a_loop(kind, tmp_path, capsys):
    make, load = LOADERS[kind]
    for name in ("a", "b"):
        make(tmp_path / "data" / name)
    (tmp_path / "data" / "a" / "up").symlink_to(tmp_path / "data")
    (tmp_path / "data" / "a" / "0-first").symlink_to(tmp_path / "data" / "b")
    (tmp_path / "data" / "b" / "above").symlink_to(tmp_path)
    found = load(tmp_path / "data")
    assert found.classes == ("a", "b")
    assert (
        "3 links skipped: they lead nowhere, or to folders that are read anyway ("
        in capsys.readouterr().err
    )


def test_find_files_reads_each_real_folder_once_through_links_to_each_other(tmp_path):
    for name in ("a", "b"):
        pictures(tmp_path / "store" / name)
    (tmp_path / "store" / "a" / "b").symlink_to(tmp_path / "store" / "b")
    (tmp_path / "store" / "b" / "a").symlink_to(tmp_path / "store" / "a")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a").symlink_to("../store/a")
    (tmp_path / "data" / "gone.png").symlink_to("nowhere.png")
    (tmp_path / "data" / "one.png").symlink_to("../store/a/0.png")
    found = find_files(tmp_path / "data", (".png",))
    names = [os.fspath(path.relative_to(tmp_path / "data")) for path in found.paths]
    assert names == [
        "a/0.png",
        "a/1.png",
        "a/2.png",
        "a/b/0.png",
        "a/b/1.png",
        "a/b/2.png",
        "one.png",
    ]
    assert found.followed == ["a", "a/b"] and found.skipped_links == ["gone.png", "a/b/a"]


def test_load_data_reports_that_all_pictures_are_hidden(tmp_path):
    pictures(tmp_path / ".thumbnails")
    with pytest.raises(
        ConfigError, match=r"has no images \(.*\); 1 hidden name skipped \(\.thumbnails\)"
    ):
        load_folder(tmp_path, 0, False)


def test_find_files_skips_links_to_themselves(tmp_path: Path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "one.png").write_bytes(b"")
    (tmp_path / "a" / "loop").symlink_to("loop")
    (tmp_path / "a" / "loop.png").symlink_to("loop.png")
    found = find_files(tmp_path, (".png",))
    assert [path.name for path in found.paths] == ["one.png"]
    assert sorted(found.skipped_links) == ["a/loop", "a/loop.png"]
