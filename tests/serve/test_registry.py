"""Tests how the registry loads, replaces, deletes and restores the models of a directory."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from genray.errors import ConfigError
from genray.runs.modelstore import save_model
from serve.models import version_of
from serve.registry import Registry, UnknownModel
from serve.versions import KEPT_VERSIONS


def retrain(folder: Path, amount: float = 1.0) -> str:
    """Write another version of a model as a run does, and return the version."""
    from safetensors.torch import load_file

    config = json.loads((folder / "config.json").read_text())
    tensors = {
        name: tensor + amount * (tensor.dtype == torch.float32)
        for name, tensor in load_file(folder / "model.safetensors").items()
    }
    values = {key: value for key, value in config.items() if key not in ("format", "kind")}
    save_model(folder, config["kind"], values, tensors, "# again\n")
    return version_of(folder)


def test_registry_loads_every_kind_of_model_with_its_functions(trained: Path):
    registry = Registry(trained)
    registry.refresh()
    assert registry.failed == {}
    functions = {name: sorted(model.functions) for name, model in registry.models.items()}
    assert functions == {
        "digits": ["classify", "encode"],
        "digits-ae": ["decode", "encode", "reconstruct"],
        "digits-gan": ["generate"],
        "digits-vae": ["decode", "encode", "generate", "reconstruct"],
        "road-runner": ["act"],
        "waves": [],
    }


def test_registry_loads_a_new_model_in_a_run_directory(models_dir: Path):
    moved = models_dir.parent / "digits-gan"
    shutil.move(models_dir / "digits-gan", moved)
    registry = Registry(models_dir)
    registry.refresh()
    assert "run" not in registry.models
    shutil.copytree(moved, models_dir / "run" / "model")
    registry.refresh()
    assert registry.get("run").kind == "gan"


def test_registry_replaces_a_version_and_the_old_predictor_still_works(models_dir: Path):
    registry = Registry(models_dir)
    registry.refresh()
    old = registry.get("digits-gan")
    latents = old.latents([7])
    before = old.functions["generate"].run({"latent": latents})["image"]
    version = retrain(models_dir / "digits-gan")
    registry.refresh()
    new = registry.get("digits-gan")
    assert new.version == version != old.version
    assert (old.functions["generate"].run({"latent": latents})["image"] == before).all()
    assert (new.functions["generate"].run({"latent": latents})["image"] != before).any()


def test_registry_does_not_reload_a_touched_model(models_dir: Path):
    registry = Registry(models_dir)
    registry.refresh()
    loads, model = registry.loads, registry.get("digits-gan")
    (models_dir / "digits-gan" / "config.json").touch()
    registry.refresh()
    assert registry.loads == loads and registry.get("digits-gan") is model


@pytest.mark.parametrize("damage", ["truncate", "pickle", "json", "missing", "kind"])
def test_registry_loads_other_models_beside_a_damaged_one(models_dir: Path, damage: str):
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
    registry = Registry(models_dir)
    registry.refresh()
    assert set(registry.failed) == {"digits-vae"}
    assert str(models_dir) not in registry.failed["digits-vae"]  # clients receive no paths
    assert {"digits", "digits-ae", "digits-gan", "road-runner", "waves"} <= set(registry.models)


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
def test_registry_retries_a_model_with_an_invalid_configuration(
    models_dir: Path, name: str, change: dict[str, object], monkeypatch: pytest.MonkeyPatch
):
    place = models_dir / name / "config.json"
    content = place.read_text()
    place.write_text(json.dumps(json.loads(content) | change))
    registry = Registry(models_dir)
    registry.refresh()
    assert set(registry.failed) == {name} and registry.failed[name]
    assert len(registry.models) == 5
    monkeypatch.setattr("serve.registry.RETRY_S", 0)
    registry.refresh()
    assert set(registry.failed) == {name}  # the retry failed, too
    place.write_text(content)
    registry.refresh()
    assert registry.failed == {} and name in registry.models


def test_registry_loads_other_models_beside_an_unreadable_folder(models_dir: Path):
    """The folder is a link whose target's name is too long. Root cannot read such a link either."""
    registry = Registry(models_dir)
    registry.refresh()
    shutil.move(models_dir / "digits", models_dir.parent / "away")
    for name in ("digits", "lost+found"):
        (models_dir / name).symlink_to("x" * 300)
    registry.refresh()
    registry.refresh()
    assert registry.failed == {"digits": "the folder cannot be read (File name too long)"}
    assert registry.get("digits").kind == "classifier"  # the loaded version stays in use
    with pytest.raises(OSError, match="too long"):
        registry.delete("digits")
    (models_dir / "digits").unlink()
    shutil.move(models_dir.parent / "away", models_dir / "digits")
    registry.refresh()
    assert registry.failed == {}


def test_registry_keeps_the_loaded_version_while_the_new_one_is_damaged(
    models_dir: Path,
):
    registry = Registry(models_dir)
    registry.refresh()
    good = (models_dir / "digits-ae" / "model.safetensors").read_bytes()
    before = registry.get("digits-ae")
    (models_dir / "digits-ae" / "model.safetensors").write_bytes(good[:100])
    registry.refresh()
    assert registry.get("digits-ae") is before and "digits-ae" in registry.failed
    (models_dir / "digits-ae" / "model.safetensors").write_bytes(good)
    registry.refresh()
    assert registry.failed == {}


def test_registry_removes_a_model_at_the_second_scan(models_dir: Path):
    """A model is replaced by two renames, and its folder is missing between them."""
    registry = Registry(models_dir)
    registry.refresh()
    shutil.move(models_dir / "digits", models_dir.parent / "away")
    registry.refresh()
    assert registry.get("digits").kind == "classifier"
    registry.refresh()
    with pytest.raises(UnknownModel, match="the models are: digits-ae"):
        registry.get("digits")


def test_registry_rolls_back_and_forward(models_dir: Path):
    registry = Registry(models_dir)
    registry.refresh()
    first = registry.get("digits-gan").version
    second = retrain(models_dir / "digits-gan")
    registry.refresh()
    assert registry.versions("digits-gan")[:2] == [second, first]
    assert registry.roll_back("digits-gan") == first
    assert registry.get("digits-gan").version == first == version_of(models_dir / "digits-gan")
    assert registry.roll_back("digits-gan", second) == second
    with pytest.raises(UnknownModel, match="no other version 0123"):
        registry.roll_back("digits-gan", "0123")


def test_registry_restores_a_deleted_model(models_dir: Path):
    registry = Registry(models_dir)
    registry.refresh()
    version = registry.get("waves").version
    registry.delete("waves")
    assert "waves" not in registry.models and not (models_dir / "waves").exists()
    assert registry.roll_back("waves") == version
    assert registry.get("waves").kind == "style_fast"


def test_registry_keeps_the_newest_versions(models_dir: Path):
    registry = Registry(models_dir)
    registry.refresh()
    for number in range(KEPT_VERSIONS + 2):
        retrain(models_dir / "digits-gan", 0.1 + number)
        registry.refresh()
    assert len(registry.versions("digits-gan")) == KEPT_VERSIONS


@pytest.mark.parametrize("name", ["..", "a b", "-x", "x" * 65, "ü"])
def test_registry_rejects_an_invalid_model_name(models_dir: Path, name: str):
    if name != "..":
        shutil.copytree(models_dir / "digits", models_dir / name)
    registry = Registry(models_dir)
    registry.refresh()
    assert name not in registry.models
    assert registry.versions(name) == []
    with pytest.raises(UnknownModel):
        registry.delete(name)


def test_registry_rejects_a_missing_directory(tmp_path: Path):
    with pytest.raises(ConfigError, match="no such directory"):
        Registry(tmp_path / "nowhere")
