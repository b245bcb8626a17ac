"""Tests commands on data that the model was not trained on: images are converted to its form."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from genray import cli
from genray.commands.models import own_data

STEPS = ["--steps", "2", "--batch-size", "16"]


@pytest.fixture(scope="module")
def digits_run(tmp_path_factory) -> Path:
    """Return the run of an autoencoder of grey 8x8 digits, trained without the class seven."""
    run = tmp_path_factory.mktemp("runs") / "ae"
    assert (
        cli.main(
            ["train", "ae", "--preset", "ae_digits", *STEPS, "--without", "7", "--out", str(run)]
        )
        == 0
    )
    return run


@pytest.fixture(scope="module")
def coloured(tmp_path_factory) -> Path:
    """Write coloured pictures of several sizes, none 8x8, in the classes a and b."""
    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for name in "ab":
        (folder / name).mkdir()
        for number in range(15):
            pixels = rng.integers(0, 256, (20 + number, 32, 3), np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder


@pytest.mark.parametrize(
    "words",
    [
        "reconstruct --out o.png",
        "encode --out o.parquet",
        "map --out o.png",
        "cluster",
        "anomalies",
        "retrieve --out o.png",
    ],
)
def test_commands_convert_other_data_and_report_it(
    words, digits_run, coloured, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    command, *rest = words.split()
    assert cli.main([command, str(digits_run), *rest, "--data", f"folder:{coloured}"]) == 0
    said = capsys.readouterr().err.strip()
    assert (
        said == f"--data folder:{coloured}: read as 8x8 grey images, the form that the model takes"
    )


def test_retrieve_converts_a_query_picture_and_reports_it(digits_run, coloured, tmp_path, capsys):
    picture = str(coloured / "a" / "0.png")
    assert cli.main(["retrieve", str(digits_run), picture, "--out", str(tmp_path / "o.png")]) == 0
    assert f"{picture}: read as 8x8 grey images" in capsys.readouterr().err


def config_of(run: Path) -> dict:
    return json.loads((run / "model" / "config.json").read_text())


def test_own_data_does_not_apply_the_models_data_options_to_other_data(
    digits_run, coloured, capsys
):
    config = config_of(digits_run)
    config["data"]["options"]["validation"] = 0.0
    own = own_data(config, "")
    assert 7 not in own.test.label and len(own.validation) == 0
    assert 7 not in own_data(config, "digits").test.label  # named, they are still its own
    other = own_data(config, f"folder:{coloured}")
    assert other.classes == ("a", "b") and other.shape == (1, 8, 8) and len(other.validation) > 0
    assert "warning" not in capsys.readouterr().err
    config["data"]["classes"] = ["0", "1"]
    own_data(config, "")
    assert "warning: --data digits: its files differ" in capsys.readouterr().err
    config["data"]["options"]["data"] = "mnist"
    assert 7 in own_data(config, "digits").test.label


def test_own_data_converts_a_named_data_set_to_the_models_colours(digits_run, capsys):
    config = config_of(digits_run)
    config["shape"] = [3, 12, 10]
    config["data"]["options"]["data"] = "cifar10"
    found = own_data(config, "digits")
    assert (
        found.shape == (3, 12, 10) and 0.0 <= found.test.all().min() < found.test.all().max() <= 1.0
    )
    assert "--data digits: read as 10x12 colour images" in capsys.readouterr().err
    config["shape"] = [1, 8, 8]
    own_data(config, "digits")
    assert not capsys.readouterr().err  # nothing had to be converted


def test_own_data_refuses_texts_for_a_model_of_images_in_one_line(digits_run, tmp_path, capsys):
    words = ["encode", str(digits_run), "--out", str(tmp_path / "o.parquet"), "--data", "docs"]
    assert cli.main(words) == 2
    assert capsys.readouterr().err == "error: --data docs: the model takes images, e.g. digits\n"
