"""The directory of models: what appears, changes, breaks, goes, and comes back."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from genray.errors import ConfigError
from genray.runs.modelstore import save_model
from serve.models import version_of
from serve.shelf import Shelf, UnknownModel
from serve.versions import KEPT_VERSIONS


def retrain(folder: Path, amount: float = 1.0) -> str:
    """Another version of a model, written as a run writes it; returns the version."""
    from safetensors.torch import load_file

    config = json.loads((folder / "config.json").read_text())
    tensors = {
        name: tensor + amount * (tensor.dtype == torch.float32)
        for name, tensor in load_file(folder / "model.safetensors").items()
    }
    values = {key: value for key, value in config.items() if key not in ("format", "kind")}
    save_model(folder, config["kind"], values, tensors, "# again\n")
    return version_of(folder)


def test_every_kind_of_model_is_loaded_and_says_what_it_can_do(trained: Path):
    shelf = Shelf(trained)
    shelf.refresh()
    assert shelf.failed == {}
    functions = {name: sorted(model.functions) for name, model in shelf.models.items()}
    assert functions == {
        "digits": ["classify", "encode"],
        "digits-ae": ["decode", "encode", "reconstruct"],
        "digits-gan": ["generate"],
        "digits-vae": ["decode", "encode", "generate", "reconstruct"],
        "road-runner": ["act"],
        "waves": [],
    }


def test_a_model_that_appears_is_loaded_and_a_run_directory_counts(models_dir: Path):
    moved = models_dir.parent / "digits-gan"
    shutil.move(models_dir / "digits-gan", moved)
    shelf = Shelf(models_dir)
    shelf.refresh()
    assert "run" not in shelf.models
    shutil.copytree(moved, models_dir / "run" / "model")
    shelf.refresh()
    assert shelf.get("run").kind == "gan"


def test_a_new_version_replaces_the_old_which_whoever_holds_it_may_go_on_using(models_dir: Path):
    shelf = Shelf(models_dir)
    shelf.refresh()
    old = shelf.get("digits-gan")
    latents = old.latents([7])
    before = old.functions["generate"].run({"latent": latents})["image"]
    version = retrain(models_dir / "digits-gan")
    shelf.refresh()
    new = shelf.get("digits-gan")
    assert new.version == version != old.version
    assert (old.functions["generate"].run({"latent": latents})["image"] == before).all()
    assert (new.functions["generate"].run({"latent": latents})["image"] != before).any()


def test_a_touched_but_equal_model_is_not_loaded_again(models_dir: Path):
    shelf = Shelf(models_dir)
    shelf.refresh()
    loads, model = shelf.loads, shelf.get("digits-gan")
    (models_dir / "digits-gan" / "config.json").touch()
    shelf.refresh()
    assert shelf.loads == loads and shelf.get("digits-gan") is model


@pytest.mark.parametrize("damage", ["truncate", "pickle", "json", "missing", "kind"])
def test_a_damaged_model_takes_nothing_else_down(models_dir: Path, damage: str):
    place = models_dir / "digits-vae"
    if damage == "truncate":
        content = (place / "model.safetensors").read_bytes()
        (place / "model.safetensors").write_bytes(content[: len(content) // 2])
    elif damage == "pickle":
        torch.save({"weight": torch.zeros(3)}, place / "model.safetensors")
    elif damage == "json":
        (place / "config.json").write_text("{")
    elif damage == "missing":
        (place / "model.safetensors").unlink()
    else:
        (place / "config.json").write_text('{"format": 1, "kind": "os.system"}')
    shelf = Shelf(models_dir)
    shelf.refresh()
    assert set(shelf.failed) == {"digits-vae"}
    assert str(models_dir) not in shelf.failed["digits-vae"]  # a client is told no path
    assert {"digits", "digits-ae", "digits-gan", "road-runner", "waves"} <= set(shelf.models)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("digits-vae", {"model": None}),
        ("digits-vae", {"shape": []}),
        ("digits-vae", {"kind": ["vae"]}),
        ("digits-gan", {"latent": None}),
        ("road-runner", {"env": 3, "frame_shape": None}),
    ],
)
def test_a_strange_configuration_takes_nothing_else_down_and_is_tried_again(
    models_dir: Path, name: str, change: dict[str, object], monkeypatch: pytest.MonkeyPatch
):
    place = models_dir / name / "config.json"
    content = place.read_text()
    place.write_text(json.dumps(json.loads(content) | change))
    shelf = Shelf(models_dir)
    shelf.refresh()
    assert set(shelf.failed) == {name} and shelf.failed[name]
    assert len(shelf.models) == 5
    monkeypatch.setattr("serve.shelf.RETRY_S", 0)
    shelf.refresh()
    assert set(shelf.failed) == {name}  # neither lost nor taken for loaded
    place.write_text(content)
    shelf.refresh()
    assert shelf.failed == {} and name in shelf.models


def test_a_folder_that_may_not_be_looked_into_takes_nothing_else_down(models_dir: Path):
    """A link whose target's name is too long, so that the test works as root, too, for whom no
    folder is closed.
    """
    shelf = Shelf(models_dir)
    shelf.refresh()
    shutil.move(models_dir / "digits", models_dir.parent / "away")
    for name in ("digits", "lost+found"):
        (models_dir / name).symlink_to("x" * 300)
    shelf.refresh()
    shelf.refresh()
    assert shelf.failed == {"digits": "cannot be looked into (File name too long)"}
    assert shelf.get("digits").kind == "classifier"  # the one that was loaded goes on
    with pytest.raises(OSError, match="too long"):
        shelf.delete("digits")
    (models_dir / "digits").unlink()
    shutil.move(models_dir.parent / "away", models_dir / "digits")
    shelf.refresh()
    assert shelf.failed == {}


def test_a_version_that_fails_leaves_the_one_before_serving_and_a_mended_one_is_taken(
    models_dir: Path,
):
    shelf = Shelf(models_dir)
    shelf.refresh()
    good = (models_dir / "digits-ae" / "model.safetensors").read_bytes()
    before = shelf.get("digits-ae")
    (models_dir / "digits-ae" / "model.safetensors").write_bytes(good[:100])
    shelf.refresh()
    assert shelf.get("digits-ae") is before and "digits-ae" in shelf.failed
    (models_dir / "digits-ae" / "model.safetensors").write_bytes(good)
    shelf.refresh()
    assert shelf.failed == {}


def test_a_model_is_gone_only_at_the_second_look(models_dir: Path):
    """It is replaced by two renames: between them it is away."""
    shelf = Shelf(models_dir)
    shelf.refresh()
    shutil.move(models_dir / "digits", models_dir.parent / "away")
    shelf.refresh()
    assert shelf.get("digits").kind == "classifier"
    shelf.refresh()
    with pytest.raises(UnknownModel, match="there are: digits-ae"):
        shelf.get("digits")


def test_rolled_back_and_forth(models_dir: Path):
    shelf = Shelf(models_dir)
    shelf.refresh()
    first = shelf.get("digits-gan").version
    second = retrain(models_dir / "digits-gan")
    shelf.refresh()
    assert shelf.versions("digits-gan")[:2] == [second, first]
    assert shelf.roll_back("digits-gan") == first
    assert shelf.get("digits-gan").version == first == version_of(models_dir / "digits-gan")
    assert shelf.roll_back("digits-gan", second) == second
    with pytest.raises(UnknownModel, match="no other version 0123"):
        shelf.roll_back("digits-gan", "0123")


def test_a_deleted_model_can_be_brought_back(models_dir: Path):
    shelf = Shelf(models_dir)
    shelf.refresh()
    version = shelf.get("waves").version
    shelf.delete("waves")
    assert "waves" not in shelf.models and not (models_dir / "waves").exists()
    assert shelf.roll_back("waves") == version
    assert shelf.get("waves").kind == "style_fast"


def test_only_some_versions_are_kept(models_dir: Path):
    shelf = Shelf(models_dir)
    shelf.refresh()
    for number in range(KEPT_VERSIONS + 2):
        retrain(models_dir / "digits-gan", 0.1 + number)
        shelf.refresh()
    assert len(shelf.versions("digits-gan")) == KEPT_VERSIONS


@pytest.mark.parametrize("name", ["..", "a b", "-x", "x" * 65, "ü"])
def test_a_name_that_is_none_is_reported(models_dir: Path, name: str):
    if name != "..":
        shutil.copytree(models_dir / "digits", models_dir / name)
    shelf = Shelf(models_dir)
    shelf.refresh()
    assert name not in shelf.models
    assert shelf.versions(name) == []
    with pytest.raises(UnknownModel):
        shelf.delete(name)


def test_a_directory_that_is_none(tmp_path: Path):
    with pytest.raises(ConfigError, match="no such directory"):
        Shelf(tmp_path / "nowhere")
