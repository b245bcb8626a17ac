"""Tests that a request that cannot be carried out ends in one line, before any work."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from genray import cli
from genray.config import load_yaml, save_yaml, whole_number
from genray.errors import CheckpointError, ConfigError, first_line
from genray.gen.data.sources import read_image
from genray.gen.data.types import Data, Split
from genray.gen.images.classifier import (
    Classifier,
    ClassifierConfig,
    ClassifierModelConfig,
    ClassifierTask,
)
from genray.gen.images.style.sources import check_style
from genray.gen.training.fit import Fit, FitConfig
from genray.gen.vae import VAEConfig
from genray.rl.config import DQNConfig
from genray.runs.modelstore import save_model
from genray.runs.rundir import RunDir


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["sample", "missing"], "out.png"),
        (["reconstruct", "missing"], "out.png"),
        (["interpolate", "missing"], "out.gif"),
        (["encode", "missing"], "out.parquet"),
        (["map", "missing"], "out.png"),
        (["retrieve", "missing"], "out.png"),
        (["anomalies", "missing"], "out.png"),
        (["export", "missing"], "out.onnx"),
        (["play", "missing"], "out.gif"),
        (["stylize", "missing.png", "missing.png"], "out.png"),
        (["figures", "valley"], "figures"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_commands_refuse_an_unwritable_out_before_any_work(
    words: list[str], name: str, tmp_path: Path, capsys
):
    """--out is checked first: the model is missing as well, and is not reported."""
    (tmp_path / "file").write_text("in the way")
    out = tmp_path / "file" / name
    assert cli.main([*words, "--out", str(out)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and f"--out {out}" in lines[0] and "not a folder" in lines[0]


def test_dream_refuses_an_unwritable_clip_before_any_work(tmp_path: Path, capsys):
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(tmp_path / "photo.png")
    out = tmp_path / "photo.png" / "out.gif"
    assert cli.main(["dream", str(tmp_path / "photo.png"), "--out", str(out)]) == 2
    assert f"--out {out}" in capsys.readouterr().err


def test_export_error_names_only_given_options(tmp_path: Path, capsys):
    config = ClassifierModelConfig(channels=(4,), features=4)
    model = Classifier(config, (1, 8, 8), 2, 0.0, 1.0)
    fields = {
        "channels": [4],
        "features": 4,
        "kernel": 3,
        "activation": "relu",
        "batch_norm": False,
        "dropout": 0.2,
    }
    card = {**fields, "shape": [1, 8, 8], "num_classes": 2, "low": 0.0, "high": 1.0}
    save_model(tmp_path / "model", "classifier", card, dict(model.state_dict()), "a card")
    out = str(tmp_path / "m.onnx")
    assert cli.main(["export", str(tmp_path / "model"), "--part", "generator", "--out", out]) == 2
    assert (
        "--part generator" in (said := capsys.readouterr().err)
        and "use --part encoder or classifier" in said
    )


def test_load_yaml_reports_the_configuration_of_another_command(tmp_path: Path):
    save_yaml(VAEConfig(), tmp_path / "config.yaml")
    with pytest.raises(
        CheckpointError, match="config.yaml: its .* does not fit DQNConfig"
    ) as raised:
        load_yaml(DQNConfig, tmp_path / "config.yaml")
    assert "no such option" not in str(raised.value)


def test_first_line_skips_the_heading_of_load_state_dict():
    with pytest.raises(RuntimeError) as raised:
        torch.nn.Linear(2, 3).load_state_dict(torch.nn.Linear(2, 4).state_dict())
    assert first_line(raised.value).startswith("size mismatch for weight")
    assert first_line(ValueError("one\ntwo")) == "one" and first_line(ValueError()) == "ValueError"


@pytest.mark.parametrize("text", ["²", "1²", "", "-1", "1.0", "٣", "9" * 5000])
def test_whole_number_accepts_only_digits(text: str, tmp_path: Path):
    assert whole_number(text) is None and whole_number("012") == 12
    with pytest.raises(ConfigError, match="pattern:SEED"):
        check_style(f"pattern:{text}")


def test_list_checkpoints_ignores_other_names(tmp_path: Path):
    run = RunDir.create(tmp_path / "run")
    (run.checkpoints / "²").mkdir(parents=True)
    (run.checkpoints / "²" / "manifest.json").write_text("{}")
    assert run.list_checkpoints() == []


def test_read_picture_of_a_transparent_palette_gives_no_warning(tmp_path: Path):
    image = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8), mode=None).convert("P")
    image.save(tmp_path / "palette.png", transparency=bytes(range(256)))
    with warnings.catch_warnings(action="error"):
        assert read_image(tmp_path / "palette.png", 8, False).shape == (3, 8, 8)


def test_classifier_refuses_batch_norm_of_one_value_for_each_channel():
    """Three poolings reduce 8x8 pixels to one, and one value has no variance."""
    config = ClassifierConfig(
        fit=FitConfig(steps=1, batch_size=1),
        model=ClassifierModelConfig(channels=(2, 2, 2, 2), features=4, batch_norm=True),
    )
    split = Split(torch.zeros(4, 1, 8, 8), torch.arange(4) % 2)
    with pytest.raises(ConfigError, match="--batch-size 1: --batch-norm needs 2 rows"):
        next(
            iter(
                Fit(
                    ClassifierTask(config),
                    Data("blank", split, split, split, ("a", "b")),
                    config.fit,
                )
            )
        )
