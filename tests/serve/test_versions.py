"""Deleted, rolled back, replaced, damaged, on a full disk, in whatever order: nothing that was
on the disk is lost.
"""

import hashlib
import random
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from genray.errors import CheckpointError
from serve.models import version_of
from serve.shelf import Shelf, UnknownModel
from serve.versions import KEPT_VERSIONS
from tests.serve.test_shelf import retrain


@pytest.fixture
def runs(trained: Path, tmp_path: Path) -> Path:
    """A directory with one run, model/ inside, as `genray serve runs` meets it."""
    run = tmp_path / "runs" / "waves"
    (run / "checkpoints").mkdir(parents=True)
    (run / "checkpoints" / "00001").write_text("days of work")
    (run / "metrics.jsonl").write_text("{}")
    shutil.copytree(trained / "waves", run / "model")
    return run.parent


def loaded(folder: Path) -> Shelf:
    shelf = Shelf(folder)
    shelf.refresh()
    return shelf


def damage(place: Path) -> None:
    """A replacement that broke off."""
    content = (place / "model.safetensors").read_bytes()
    (place / "model.safetensors").write_bytes(content[: len(content) // 2])


@contextmanager
def full_disk() -> Iterator[None]:
    """No file may grow: what the system says differs from a full disk's words, not what can be
    done.
    """
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def weights(folder: Path) -> set[str]:
    """Hashes of all weights anywhere below."""
    return {
        hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("model.safetensors")
    }


def test_of_a_run_directory_only_the_model_is_deleted_and_rolled_back(runs: Path):
    shelf = loaded(runs)
    version = shelf.get("waves").version
    shelf.delete("waves")
    assert sorted(path.name for path in (runs / "waves").iterdir()) == [
        "checkpoints",
        "metrics.jsonl",
    ]
    assert shelf.roll_back("waves") == version
    assert (runs / "waves" / "checkpoints" / "00001").read_text() == "days of work"
    assert version_of(runs / "waves" / "model") == version == shelf.get("waves").version


def test_what_lies_beside_a_model_in_its_folder_stays(runs: Path):
    place = runs / "waves" / "model"
    (place / "notes.txt").write_text("mine")
    shelf = loaded(runs)
    first = shelf.get("waves").version
    retrain_in_place(place)
    shelf.refresh()
    assert shelf.roll_back("waves") == first and (place / "notes.txt").read_text() == "mine"
    shelf.delete("waves")
    assert [path.name for path in place.iterdir()] == ["notes.txt"]
    shelf.roll_back("waves")
    assert (place / "notes.txt").read_text() == "mine" and version_of(place) == first


def retrain_in_place(place: Path) -> str:
    other = place.parent / "other"
    shutil.copytree(place, other)
    version = retrain(other)
    for file in ("config.json", "model.safetensors"):
        shutil.copy2(other / file, place / file)
    shutil.rmtree(other)
    return version


def test_files_that_were_never_loaded_are_kept_by_delete_and_by_roll_back(runs: Path):
    shelf = loaded(runs)
    first = shelf.get("waves").version
    second = retrain(runs / "waves" / "model")  # not looked at
    shelf.delete("waves")
    assert shelf.versions("waves") == [second, first]
    assert shelf.roll_back("waves") == second
    third = retrain(runs / "waves" / "model")
    assert shelf.roll_back("waves") == second  # the newest but what is on the disk
    assert set(shelf.versions("waves")) == {first, second, third}


def test_a_roll_back_mends_a_damaged_replacement(runs: Path):
    shelf = loaded(runs)
    first = shelf.get("waves").version
    second = retrain(runs / "waves" / "model")
    shelf.refresh()
    damage(runs / "waves" / "model")
    shelf.refresh()
    assert shelf.failed and shelf.get("waves").version == second
    assert shelf.roll_back("waves") == second and shelf.failed == {}
    assert shelf.roll_back("waves") == first  # past the damaged one, which is a version, too
    shutil.rmtree(runs / ".versions" / "waves" / second)
    with pytest.raises(CheckpointError, match="is damaged"):
        shelf.roll_back("waves")


def test_half_a_model_is_moved_aside_and_not_thrown_away(runs: Path):
    shelf = loaded(runs)
    only = retrain(runs / "waves" / "model") and weights(runs / "waves")
    (runs / "waves" / "model" / "config.json").unlink()
    shelf.delete("waves")
    assert not (runs / "waves" / "model").exists() and only <= weights(runs / ".versions")


def test_a_full_disk_refuses_a_roll_back_and_lets_nothing_go(runs: Path):
    shelf = loaded(runs)
    first = shelf.get("waves").version
    second = retrain(runs / "waves" / "model")
    with full_disk():
        shelf.refresh()  # cannot be kept
        assert shelf.get("waves").version == second and shelf.versions("waves") == [first]
        with pytest.raises(OSError, match="too large"):
            shelf.roll_back("waves")
        assert version_of(runs / "waves" / "model") == second
        shelf.delete("waves")  # moving takes no room
    assert shelf.versions("waves") == [second, first] and shelf.roll_back("waves") == second
    assert not [path for path in (runs / ".versions").iterdir() if path.name.startswith(".")]


def test_a_link_to_a_model_elsewhere_is_taken_away_and_the_model_left(
    trained: Path, runs: Path, tmp_path: Path
):
    shutil.copytree(trained / "waves", tmp_path / "elsewhere")
    (runs / "linked").symlink_to("../elsewhere")
    shelf = loaded(runs)
    version = shelf.get("linked").version
    shelf.delete("linked")
    assert not (runs / "linked").exists() and version_of(tmp_path / "elsewhere") == version
    assert shelf.roll_back("linked") == version and not (runs / "linked").is_symlink()


@pytest.mark.parametrize("seed", range(4))
def test_in_whatever_order_nothing_that_was_on_the_disk_is_lost(runs: Path, seed: int):
    rng = random.Random(seed)
    shelf, place = loaded(runs), runs / "waves" / "model"
    for _ in range(40):
        what = rng.choice(["retrain", "damage", "look", "delete", "roll back", "roll back"])
        before = weights(place)
        if what == "retrain" and before and not shelf.failed:
            retrain(place, rng.random())
        elif what == "damage" and before and len(shelf.versions("waves")) > 1:
            damage(place)
        elif what == "look":
            shelf.refresh()
        elif what in ("delete", "roll back"):
            try:
                with full_disk() if rng.random() < 0.3 else open("/dev/null"):
                    shelf.delete("waves") if what == "delete" else shelf.roll_back("waves")
            except (UnknownModel, CheckpointError, OSError):
                assert weights(place) == before
            assert before <= weights(runs), what
        assert (runs / "waves" / "checkpoints" / "00001").exists()
        assert len(shelf.versions("waves")) <= KEPT_VERSIONS
    assert shelf.loads > 1
