"""Tests the commands of sprite models on a folder of pixel art."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from genray import cli
from tests.helpers.sprites import PALETTE, toy_screens

SMALL = ["--steps", "6", "--batch-size", "32", "--width", "16", "--layers", "1", "--heads", "2"]


@pytest.fixture(scope="module")
def art(tmp_path_factory) -> Path:
    """A folder of 120 pictures with six colours."""
    folder = tmp_path_factory.mktemp("art")
    for number, screen in enumerate(toy_screens(120)):
        Image.fromarray(PALETTE[screen]).save(folder / f"{number:03}.png")
    return folder


@pytest.fixture(scope="module")
def run(art, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "sprites"
    words = ["train", "sprites", "--data", f"folder:{art}", *SMALL, "--out", str(out)]
    assert cli.main(words) == 0
    return out


def test_sample_enlarges_pixels_and_compares_with_the_training_screens(run, tmp_path, capsys):
    words = ["sample", str(run), "--num", "4", "--scale", "3", "--out", str(tmp_path / "grid.png")]
    assert cli.main([*words, "--nearest", str(tmp_path / "near.png"), "--top-p", "0.9"]) == 0
    with Image.open(tmp_path / "grid.png") as picture:
        pixels = np.asarray(picture)
    assert pixels.shape[0] >= 240 and {tuple(each) for each in pixels[:40, 0]} <= {
        tuple(each) for each in PALETTE
    }
    printed = capsys.readouterr().out
    assert "near-copies of training screens (similarity ≥ 0.98)" in printed
    assert "of 4 samples" in printed and "held-out screens" in printed


def test_encode_writes_tokens_as_json(run, tmp_path, capsys):
    out = tmp_path / "tokens.json"
    assert cli.main(["encode", str(run), "--out", str(out)]) == 0
    document = json.loads(out.read_text())
    assert document["format"] == 2 and document["screen"] == [40, 48]
    assert document["backgrounds"] == []
    assert document["fields"] == ["group", "y", "x", "shape", "run"]
    assert len(document["screens"]) == 24 and document["runs"][0] == [1, 0, 0]
    for group, y, x, shape, _ in (token for screen in document["screens"] for token in screen):
        its_group, height, width = document["shapes"][shape]
        assert group == its_group and y + height <= 40 and x + width <= 48
    assert cli.main(["encode", str(run), "--out", str(tmp_path / "codes.parquet")]) == 2
    assert "must end in .json" in capsys.readouterr().err


def test_encode_refuses_another_games_screens(run, tmp_path, capsys):
    folder = tmp_path / "other"
    folder.mkdir()
    for number in range(10):
        Image.new("RGB", (48, 40), (number, 200, 90)).save(folder / f"{number}.png")
    words = ["encode", str(run), "--data", f"folder:{folder}", "--out", str(tmp_path / "t.json")]
    assert cli.main(words) == 2
    message = capsys.readouterr().err
    assert "of its pixels differ from the background" in message and "train a model" in message


def test_reconstruct_is_exact_and_interpolate_is_refused(run, tmp_path, capsys):
    assert cli.main(["reconstruct", str(run), "--out", str(tmp_path / "again.png")]) == 0
    assert "mean squared error of these 12: 0.00000" in capsys.readouterr().out
    assert cli.main(["interpolate", str(run), "--out", str(tmp_path / "walk.gif")]) == 2
    assert "no screen lies between two others" in capsys.readouterr().err


def test_anomalies_are_found_by_their_likelihood(run, tmp_path, capsys):
    folder = tmp_path / "odd"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number, screen in enumerate(toy_screens(20, seed=5)):
        screen[rng.integers(0, 40, 60), rng.integers(0, 48, 60)] = 5
        Image.fromarray(PALETTE[screen]).save(folder / f"{number:03}.png")
    words = ["anomalies", str(run), "--data", f"folder:{folder}", "--out", str(tmp_path / "a.png")]
    assert cli.main(words) == 0
    printed = capsys.readouterr().out
    assert "AUROC 1.000" in printed and (tmp_path / "a.png").exists()


def test_export_refuses_a_sprite_model_in_one_line(run, tmp_path, capsys):
    for words in ([], ["--part", "generator"]):
        assert cli.main(["export", str(run), "--out", str(tmp_path / "a.onnx"), *words]) == 2
        error = capsys.readouterr().err
        assert "a model of kind 'sprites' has no" in error and error.count("\n") == 1
