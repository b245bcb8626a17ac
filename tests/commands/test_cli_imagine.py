"""Tests `genray imagine`: pictures, grids, films, models of a user, and errors of one line."""

import json
from pathlib import Path

import pytest
from PIL import Image

from genray import cli
from genray.gen.images.pictures import read_picture
from tests.helpers.dreamer import CLASSES, train_dreamer
from tests.helpers.pictures import read_about

FAST = ["--size", "48", "--steps", "2"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_imagine_names_the_file_after_the_class_and_replaces_none(here: Path, capsys):
    for name in ("goldfish.png", "goldfish-2.png"):
        assert cli.main(["imagine", "goldfish", *FAST]) == 0
        printed = capsys.readouterr().out
        assert "goldfish (1): probability 0." in printed and str(here / name) in printed
        assert read_picture(here / name).rgb.shape == (48, 48, 3)
    assert (here / "goldfish.png").read_bytes() == (here / "goldfish-2.png").read_bytes()
    about = read_about(here / "goldfish.png")
    assert about["classes"] == ["goldfish"] and about["options"]["steps"] == 2
    assert 0 <= about["probabilities"][0] <= 1


def test_imagine_writes_a_grid_of_several_classes(here: Path):
    assert cli.main(["imagine", "daisy", "1", *FAST, "--out", "two.png"]) == 0
    assert read_about(here / "two.png")["classes"] == ["daisy", "goldfish"]
    assert read_picture(here / "two.png").rgb.shape == (48 + 24, 2 * (48 + 4), 3)


def test_imagine_writes_a_film_of_a_model_of_the_user(here: Path, capsys):
    train_dreamer(here / "run" / "model")
    # A run of `genray train classifier` also keeps the names of its classes.
    path = here / "run" / "model" / "config.json"
    about = json.loads(path.read_text()) | {"data": {"classes": CLASSES}}
    path.write_text(json.dumps(about))
    words = ["imagine", "vertical", "--model", "run", "--film", "film.gif", "--out", "a.png"]
    assert cli.main([*words, "--size", "48", "--steps", "100"]) == 0
    with Image.open(here / "film.gif") as clip:
        assert clip.size == (48, 48) and getattr(clip, "n_frames", 1) > 10
    assert read_about(here / "a.png")["probabilities"][0] > 0.5
    capsys.readouterr()
    assert cli.main(["imagine", "--list", "--model", "run"]) == 0
    assert capsys.readouterr().out.split()[1::2] == list(CLASSES)


def test_imagine_lists_classes(capsys):
    assert cli.main(["imagine", "--list", "white shark"]) == 0
    assert capsys.readouterr().out.split() == ["2", "great", "white", "shark"]


def test_imagine_reports_bad_input_in_one_line_and_writes_nothing(here: Path, capsys):
    for words, message in (
        ([], "name a class first, e.g. genray imagine goldfish"),
        (["goldfsh"], "did you mean goldfish (1)"),
        (["shark"], "2 classes match"),
        (["goldfish", "--size", "9"], "--size 9: must lie in 32..1024"),
        (["goldfish", "--steps", "0"], "--steps 0"),
        (["goldfish", "--out", "a.txt"], "a picture's name must end in"),
        (["goldfish", "--film", "a.png"], "a clip's name must end in"),
        (["goldfish", "daisy", "--film", "a.gif"], "--film"),
        (["goldfish", "--model", "none"], "not a model"),
        (["--list", "qqqq"], "--list qqqq: no class of lite0"),
        (["goldfish"] * 33, "33 classes: at most 32"),
    ):
        assert cli.main(["imagine", *words]) == 2, words
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1, (words, error)
    assert not list(here.iterdir())
