"""Tests that files and directories are complete if a process is killed before any system call."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from genray.errors import ResourceError
from genray.runs import files
from genray.runs.files import (
    clear_leftovers,
    find_directory,
    remove_directory,
    replacing_directory,
    write_whole,
    writing_file,
)
from genray.runs.modelstore import load_model, save_model
from genray.runs.rundir import RunDir
from tests.helpers.kills import kill_at_every_instant


def write_pair(folder: Path, content: str) -> None:
    with replacing_directory(folder) as fresh:
        (fresh / "a").write_text(content)
        (fresh / "deeper").mkdir()
        (fresh / "deeper" / "b").write_text(content)


def read_pair(folder: Path) -> str:
    folder = find_directory(folder)
    first, second = (folder / "a").read_text(), (folder / "deeper" / "b").read_text()
    assert first == second
    return first


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(params=["exchange", "two renames"])
def either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Run the test with the file system's exchange of names, and without it."""
    if request.param != "exchange":
        monkeypatch.setattr(files, "exchange", lambda first, second: False)
    return request.param == "exchange"


def test_replacing_directory_killed_at_every_instant_leaves_the_old_or_the_new(
    tmp_path: Path, either_way: bool
):
    folder = tmp_path / "model"
    write_pair(folder, "old")
    seen = []
    kills = kill_at_every_instant(
        lambda: write_pair(folder, "new"), lambda: seen.append(read_pair(folder))
    )
    assert kills > 8 and set(seen) == {"old", "new"} and seen[0] == "old" and seen[-1] == "new"
    assert names(tmp_path) == ["model"]  # the last writer removed the leftovers of killed writers


def test_replacing_directory_creates_a_complete_directory(tmp_path: Path):
    folder = tmp_path / "model"

    def check() -> None:
        assert not folder.exists() or read_pair(folder) == "new"

    assert kill_at_every_instant(lambda: write_pair(folder, "new"), check) > 5
    assert names(tmp_path) == ["model"]


def test_exchange_works_on_this_file_system(tmp_path: Path):
    write_pair(tmp_path / "a", "1")
    write_pair(tmp_path / "b", "2")
    if files.exchange(tmp_path / "a", tmp_path / "b"):
        assert (read_pair(tmp_path / "a"), read_pair(tmp_path / "b")) == ("2", "1")
    with pytest.raises(FileNotFoundError):
        files.exchange(tmp_path / "a", tmp_path / "nowhere")


def test_replacing_directory_that_fails_keeps_the_old(tmp_path: Path):
    write_pair(tmp_path / "model", "old")
    with pytest.raises(ValueError, match="x"), replacing_directory(tmp_path / "model") as fresh:
        (fresh / "a").write_text("new")
        raise ValueError("x")
    assert read_pair(tmp_path / "model") == "old" and names(tmp_path) == ["model"]


def test_save_model_killed_at_every_instant_leaves_a_model_that_loads(
    tmp_path: Path, either_way: bool
):
    folder, builders = tmp_path / "m", {"linear": lambda config: torch.nn.Linear(1, 1, bias=False)}

    def save(value: float) -> None:
        save_model(folder, "linear", {"value": value}, {"weight": torch.full((1, 1), value)}, "")

    def check() -> None:
        model, config = load_model(folder, builders)
        assert model.weight.item() == config["value"]

    save(1.0)
    assert kill_at_every_instant(lambda: save(2.0), check) > 5
    assert names(tmp_path) == ["m"] and load_model(folder, builders)[1]["value"] == 2.0


def test_write_checkpoint_killed_at_every_instant_leaves_a_checkpoint_that_loads(
    tmp_path: Path, either_way: bool
):
    """The process writes the same step again, and a new step that removes the oldest."""
    run = RunDir.create(tmp_path / "run")
    for step in (1, 2):
        run.write_checkpoint(step, lambda folder: write_pair(folder / "part", "old"), keep=2)

    def write() -> None:
        for step in (2, 3):
            run.write_checkpoint(step, lambda folder: write_pair(folder / "part", "new"), keep=2)

    def check() -> None:
        with run:
            assert read_pair(run.latest_checkpoint() / "part") in ("old", "new")
            assert all((folder / "part" / "a").exists() for folder in run.list_checkpoints())
            assert names(run.checkpoints) == [folder.name for folder in run.list_checkpoints()]

    assert kill_at_every_instant(write, check) > 20
    assert names(run.checkpoints) == ["00000002", "00000003"]


def test_run_dir_clears_a_checkpoint_without_manifest(tmp_path: Path):
    """An earlier version removed checkpoints in place, and a killed process left a directory."""
    run = RunDir.create(tmp_path / "run")
    run.write_checkpoint(1, lambda folder: write_pair(folder / "part", "old"), keep=2)
    (run.checkpoints / "00000000").mkdir()
    (run.checkpoints / "00000000" / "learner.pt").write_text("half removed")
    (run.checkpoints / "notes").mkdir()  # somebody's own
    with run:
        assert names(run.checkpoints) == ["00000001", "notes"]


def test_run_dir_restores_the_name_of_a_renamed_checkpoint(tmp_path: Path):
    """The files are those that an earlier version left between its two renames."""
    run = RunDir.create(tmp_path / "run")
    final = run.write_checkpoint(1, lambda folder: write_pair(folder / "part", "old"), keep=2)
    final.rename(run.checkpoints / ".00000001.123.old.tmp")
    with run:
        assert run.latest_checkpoint() == final and names(run.checkpoints) == ["00000001"]


def test_remove_directory_killed_at_every_instant_leaves_all_or_nothing(tmp_path: Path):
    folder = tmp_path / "old"

    def check() -> None:
        if folder.exists():
            assert read_pair(folder) == "x"
        else:
            write_pair(folder, "x")

    write_pair(folder, "x")
    kill_at_every_instant(lambda: folder.exists() and remove_directory(folder), check)


def test_writing_file_killed_at_every_instant_leaves_the_old_or_the_new(tmp_path: Path):
    path = tmp_path / "config.yaml"
    write_whole(path, b"old")

    def write() -> None:
        files._cleared.clear()  # as a new process
        write_whole(path, b"new")

    def check() -> None:
        assert path.read_bytes() in (b"old", b"new")

    # A reader of the old file reads it to its end: the old file is replaced, not written to.
    with path.open("rb") as reader:
        assert kill_at_every_instant(write, check) >= 2
        assert reader.read() == b"old"
    assert path.read_bytes() == b"new" and names(tmp_path) == ["config.yaml"]


def test_clear_leftovers_keeps_files_of_running_writers_and_other_programs(tmp_path: Path):
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        living = f".model.{files._HOST}.{other.pid}-0.tmp"
        elsewhere = f".model.{'0' * 8}.{other.pid}-0.tmp"  # of another host
        for name in (living, elsewhere, ".model.tmp", "model.1.tmp", ".cache", ".model.1.txt"):
            (tmp_path / name).write_text("")
        clear_leftovers(tmp_path)
        assert len(names(tmp_path)) == 6
        other.communicate(b"\n")
    clear_leftovers(tmp_path)
    assert living not in names(tmp_path) and elsewhere in names(tmp_path)
    os.utime(tmp_path / elsewhere, (0, 0))
    clear_leftovers(tmp_path)
    assert names(tmp_path) == [".cache", ".model.1.txt", ".model.tmp", "model.1.tmp"]


def test_write_whole_accepts_the_longest_name(tmp_path: Path):
    path = tmp_path / ("é" * 125 + ".png")
    assert write_whole(path, b"1").read_bytes() == b"1" and names(tmp_path) == [path.name]


def test_write_whole_reports_a_file_that_cannot_be_written(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ResourceError, match="file/x: cannot be written .*; choose another place"):
        write_whole(tmp_path / "file" / "x", b"")
    with pytest.raises(RuntimeError), writing_file(tmp_path / "y") as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert names(tmp_path) == ["file"]
