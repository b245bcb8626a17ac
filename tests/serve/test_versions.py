"""Tests that deleting, replacing and rolling back models loses no weights, also on a full disk."""

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
from serve.registry import Registry, UnknownModel
from serve.versions import KEPT_VERSIONS
from tests.serve.test_registry import retrain


@pytest.fixture
def runs(trained: Path, tmp_path: Path) -> Path:
    """Return a directory with one run directory, which contains model/."""
    run = tmp_path / "runs" / "waves"
    (run / "checkpoints").mkdir(parents=True)
    (run / "checkpoints" / "00001").write_text("days of work")
    (run / "metrics.jsonl").write_text("{}")
    shutil.copytree(trained / "waves", run / "model")
    return run.parent


def loaded(folder: Path) -> Registry:
    registry = Registry(folder)
    registry.refresh()
    return registry


def damage(place: Path) -> None:
    """Truncate the weights, as an interrupted copy does."""
    content = (place / "model.safetensors").read_bytes()
    (place / "model.safetensors").write_bytes(content[: len(content) // 2])


@contextmanager
def full_disk() -> Iterator[None]:
    """Forbid all files to grow. The system's message differs from that of a full disk, but the same
    operations fail.
    """
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def weights(folder: Path) -> set[str]:
    """Return the hashes of all weights in the folder and its subfolders."""
    return {
        hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("model.safetensors")
    }


def test_delete_and_roll_back_change_only_model_in_a_run_directory(runs: Path):
    registry = loaded(runs)
    version = registry.get("waves").version
    registry.delete("waves")
    assert sorted(path.name for path in (runs / "waves").iterdir()) == [
        "checkpoints",
        "metrics.jsonl",
    ]
    assert registry.roll_back("waves") == version
    assert (runs / "waves" / "checkpoints" / "00001").read_text() == "days of work"
    assert version_of(runs / "waves" / "model") == version == registry.get("waves").version


def test_delete_and_roll_back_keep_other_files_of_the_folder(runs: Path):
    place = runs / "waves" / "model"
    (place / "notes.txt").write_text("mine")
    registry = loaded(runs)
    first = registry.get("waves").version
    retrain_in_place(place)
    registry.refresh()
    assert registry.roll_back("waves") == first and (place / "notes.txt").read_text() == "mine"
    registry.delete("waves")
    assert [path.name for path in place.iterdir()] == ["notes.txt"]
    registry.roll_back("waves")
    assert (place / "notes.txt").read_text() == "mine" and version_of(place) == first


def retrain_in_place(place: Path) -> str:
    other = place.parent / "other"
    shutil.copytree(place, other)
    version = retrain(other)
    for file in ("config.json", "model.safetensors"):
        shutil.copy2(other / file, place / file)
    shutil.rmtree(other)
    return version


def test_delete_and_roll_back_save_versions_that_were_never_loaded(runs: Path):
    registry = loaded(runs)
    first = registry.get("waves").version
    second = retrain(runs / "waves" / "model")  # never loaded
    registry.delete("waves")
    assert registry.versions("waves") == [second, first]
    assert registry.roll_back("waves") == second
    third = retrain(runs / "waves" / "model")
    assert registry.roll_back("waves") == second  # the newest except the version on disk
    assert set(registry.versions("waves")) == {first, second, third}


def test_roll_back_replaces_a_damaged_version(runs: Path):
    registry = loaded(runs)
    first = registry.get("waves").version
    second = retrain(runs / "waves" / "model")
    registry.refresh()
    damage(runs / "waves" / "model")
    registry.refresh()
    assert registry.failed and registry.get("waves").version == second
    assert registry.roll_back("waves") == second and registry.failed == {}
    assert registry.roll_back("waves") == first  # the damaged files are skipped
    shutil.rmtree(runs / ".versions" / "waves" / second)
    with pytest.raises(CheckpointError, match="is damaged"):
        registry.roll_back("waves")


def test_delete_keeps_the_files_of_an_incomplete_model(runs: Path):
    registry = loaded(runs)
    only = retrain(runs / "waves" / "model") and weights(runs / "waves")
    (runs / "waves" / "model" / "config.json").unlink()
    registry.delete("waves")
    assert not (runs / "waves" / "model").exists() and only <= weights(runs / ".versions")


def test_roll_back_on_a_full_disk_loses_no_version(runs: Path):
    registry = loaded(runs)
    first = registry.get("waves").version
    second = retrain(runs / "waves" / "model")
    with full_disk():
        registry.refresh()  # the new version is loaded, but no copy can be saved
        assert registry.get("waves").version == second and registry.versions("waves") == [first]
        with pytest.raises(OSError, match="too large"):
            registry.roll_back("waves")
        assert version_of(runs / "waves" / "model") == second
        registry.delete("waves")  # renaming needs no disk space
    assert registry.versions("waves") == [second, first] and registry.roll_back("waves") == second
    assert not [path for path in (runs / ".versions").iterdir() if path.name.startswith(".")]


def test_delete_of_a_symbolic_link_keeps_its_target(trained: Path, runs: Path, tmp_path: Path):
    shutil.copytree(trained / "waves", tmp_path / "elsewhere")
    (runs / "linked").symlink_to("../elsewhere")
    registry = loaded(runs)
    version = registry.get("linked").version
    registry.delete("linked")
    assert not (runs / "linked").exists() and version_of(tmp_path / "elsewhere") == version
    assert registry.roll_back("linked") == version and not (runs / "linked").is_symlink()


@pytest.mark.parametrize("seed", range(4))
def test_delete_and_roll_back_in_any_order_lose_no_weights(runs: Path, seed: int):
    rng = random.Random(seed)
    registry, place = loaded(runs), runs / "waves" / "model"
    for _ in range(40):
        what = rng.choice(["retrain", "damage", "scan", "delete", "roll back", "roll back"])
        before = weights(place)
        if what == "retrain" and before and not registry.failed:
            retrain(place, rng.random())
        elif what == "damage" and before and len(registry.versions("waves")) > 1:
            damage(place)
        elif what == "scan":
            registry.refresh()
        elif what in ("delete", "roll back"):
            try:
                with full_disk() if rng.random() < 0.3 else open("/dev/null"):
                    registry.delete("waves") if what == "delete" else registry.roll_back("waves")
            except (UnknownModel, CheckpointError, OSError):
                assert weights(place) == before
            assert before <= weights(runs), what
        assert (runs / "waves" / "checkpoints" / "00001").exists()
        assert len(registry.versions("waves")) <= KEPT_VERSIONS
    assert registry.loads > 1


@pytest.mark.parametrize("kind", ["run", "model", "files", "relative"])
def test_delete_and_roll_back_change_nothing_behind_a_link(
    kind: str, trained: Path, runs: Path, tmp_path: Path
):
    outside = tmp_path / "elsewhere"
    shutil.copytree(runs / "waves", outside)
    mine = runs / "mine"
    if kind == "run":
        mine.symlink_to(outside)
    elif kind == "model":
        mine.mkdir()
        (mine / "model").symlink_to(outside / "model")
    else:
        mine.mkdir()
        for file in (outside / "model").iterdir():
            target = file if kind == "files" else Path("../../elsewhere/model", file.name)
            (mine / file.name).symlink_to(target)
    before = _content(outside)
    registry = loaded(runs)
    version = registry.models["mine"].version
    registry.delete("mine")
    assert _content(outside) == before and "mine" not in registry.models
    assert registry.roll_back("mine") == version and registry.models["mine"].version == version
    # A rollback that replaces a link: the same, with a newer version behind the link.
    shutil.rmtree(mine)
    retrain(outside / "model")
    before = _content(outside)
    mine.symlink_to(outside)
    registry.refresh()
    assert registry.roll_back("mine") == version
    assert _content(outside) == before and not mine.is_symlink()


def _content(folder: Path) -> dict[str, bytes]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}
