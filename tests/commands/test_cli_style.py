"""Tests `genray stylize` on pictures, by optimisation and by trained models, and its errors."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from genray.gen.images.style import transformer_net
from tests.helpers.pictures import read_about
from tests.helpers.stylize import QUICK, folder, models, pixels, run

__all__ = ["folder", "models"]  # pytest finds the fixtures by their names here


def test_stylize_writes_a_picture_and_its_description(folder: Path, capsys, monkeypatch):
    for out in ("a.png", "b.png"):
        assert run(folder, "content.png", "style.jpg", "--out", out, *QUICK) == 0
    assert np.array_equal(pixels(folder / "a.png"), pixels(folder / "b.png"))
    assert pixels(folder / "a.png").shape == (48, 64, 3)  # smaller than 256: not enlarged
    assert not np.array_equal(pixels(folder / "a.png"), pixels(folder / "content.png"))
    about = read_about(folder / "a.png")
    assert about["command"] == "genray stylize" and about["method"] == "optimise"
    assert about["content"] == "content.png" and about["styles"] == ["style.jpg"]
    assert about["features"]["note"] == "untrained features: colour and texture, not semantics"
    assert (
        about["options"]["steps"] == 4
        and about["options"]["seed"] == 0
        and about["loss"]["loss"] > 0
    )
    out = capsys.readouterr().out
    assert "64x48 pixels, untrained features (colour and texture, not semantics): about" in out
    assert out.strip().endswith("b.png")
    # Without --out, the file is named after the picture, and none is replaced.
    monkeypatch.chdir(folder)
    for name in ("content-styled.png", "content-styled-2.png"):
        assert run(folder, "content.png", "style.jpg", *QUICK) == 0
        assert capsys.readouterr().out.strip().endswith(name)
        assert np.array_equal(pixels(folder / name), pixels(folder / "a.png"))


def test_stylize_with_several_styles_size_transparency_and_preview(folder: Path):
    words = (
        "clear.png",
        "style.jpg",
        "other.webp",
        "--weights",
        "1",
        "3",
        "--size",
        "80",
        "--preview",
        "2",
    )
    assert run(folder, *words, "--out", "out.png", *QUICK) == 0
    image = pixels(folder / "out.png")
    assert image.shape == (60, 80, 4) and image[30, 0, 3] < 10 < 230 < image[30, -1, 3]
    assert pixels(folder / "out-preview.png").shape == (60, 80, 3)
    assert read_about(folder / "out.png")["weights"] == [0.25, 0.75]


def test_stylize_accepts_a_thin_style(folder: Path):
    Image.fromarray(pixels(folder / "style.jpg")[:8]).resize((150, 8)).save(folder / "thin.png")
    assert run(folder, "content.png", "thin.png", "--out", "out.png", *QUICK) == 0
    assert pixels(folder / "out.png").std() > 0


def test_stylize_alpha_and_keep_colours(folder: Path):
    assert run(folder, "content.png", "style.jpg", "--out", "none.png", "--alpha", "0", *QUICK) == 0
    assert np.array_equal(pixels(folder / "none.png"), pixels(folder / "content.png"))
    for name, more in (("plain.png", ()), ("kept.png", ("--keep-colours",))):
        assert run(folder, "content.png", "style.jpg", "--out", name, *more, *QUICK) == 0
    content, plain, kept = (
        pixels(folder / f"{n}.png").astype(float) for n in ("content", "plain", "kept")
    )

    def chroma(image: np.ndarray) -> np.ndarray:
        return image - (image @ [0.299, 0.587, 0.114])[..., None]

    away = np.abs(chroma(kept) - chroma(content)).mean()
    assert away < 0.4 * np.abs(chroma(plain) - chroma(content)).mean() and not np.array_equal(
        kept, content
    )


def test_stylize_with_a_model_of_one_style(models: Path):
    assert run(models, "clear.png", "--model", str(models / "fast"), "--out", "out.png") == 0
    about, image = read_about(models / "out.png"), pixels(models / "out.png")
    assert image.shape == (48, 64, 4) and np.array_equal(
        image[..., 3], pixels(models / "clear.png")[..., 3]
    )
    assert about["method"] == "style_fast" and about["model"] == "fast" and about["styles"] == []


def test_stylize_with_a_model_of_any_style(models: Path):
    words = ("content.png", "style.jpg", "other.webp", "--model", str(models / "any"))
    for name, weights in (("a.png", "1 0"), ("b.png", "0 1")):
        assert (
            run(models, *words, "--weights", *weights.split(), "--size", "40", "--out", name) == 0
        )
    a, b = pixels(models / "a.png"), pixels(models / "b.png")
    assert a.shape == (30, 40, 3) and not np.array_equal(a, b)
    assert read_about(models / "a.png")["method"] == "style_any"


def test_stylize_reports_an_automatic_reduction(models: Path, capsys, monkeypatch):
    monkeypatch.setattr(transformer_net, "MAX_SIDE", 512)
    Image.new("RGB", (600, 60), (90, 80, 70)).save(models / "wide.png")
    words = ["wide.png", "--model", str(models / "fast"), "--out", "o.png"]
    assert run(models, *words) == 0
    expected = "600x60 pixels are reduced to 512x51; a model takes at most 512 a side"
    assert f"wide.png: {expected}" in capsys.readouterr().out
    assert run(models, *words, "--size", "300") == 0 and "reduced" not in capsys.readouterr().out


BAD = {
    "": "name the content and a style",
    "content.png --out o.png": "name a style picture",
    "content.png style.jpg --out o.gif": "must end in",
    "clear.png style.jpg --out o.jpg": "no transparency",
    "missing.png style.jpg --out o.png": "no such file",
    "content.png missing.jpg --out o.png": "no such file",
    "content.png style.jpg --out o.png --size 5": "--size 5",
    "content.png style.jpg --out o.png --size 20": (
        "lite0 needs a short side of ≥ 17 pixels: choose a larger --size"
    ),
    "content.png style.jpg --out o.png --weights 1 2": "2 weights for 1 styles",
    "content.png style.jpg --out o.png --alpha 2": "--alpha 2",
    "content.png style.jpg --out o.png --preview -1": "--preview -1",
    "content.png style.jpg --out o.png --optimizer sgd": "optimizer",
    "content.png style.jpg --out o.png --features vgg": "use auto, untrained, vgg19",
    "content.png style.jpg --out o.png --style-layers conv1_1": (
        "lite0 has no such layer; use e.g. stem"
    ),
    "content.png style.jpg --out o.png --content-layers blok4": "did you mean block4",
    "content.png style.jpg --out o.png --method model": "--model runs/style",
    "content.png style.jpg --out o.png --model nowhere": "not a model",
    "content.png style.jpg --out o.png --model nowhere --steps 9": (
        "--steps: only for optimisation"
    ),
    "content.png style.jpg --out o.png --stepps 9": "did you mean --steps",
}


@pytest.mark.parametrize("words", BAD)
def test_stylize_reports_bad_input_in_one_line_and_writes_nothing(words: str, folder: Path, capsys):
    before = set(folder.iterdir())
    assert run(folder, *words.split()) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and BAD[words] in error
    assert set(folder.iterdir()) == before


def test_stylize_reports_missing_vgg19_weights_in_one_line(folder: Path):
    """The command runs in a new process with an empty cache and a proxy that does not answer."""
    environment = {
        **os.environ,
        "TORCH_HOME": str(folder / "torch"),
        "https_proxy": "http://127.0.0.1:9",
    }
    words = [
        "stylize",
        folder / "content.png",
        folder / "style.jpg",
        "--out",
        folder / "o.png",
        "--features",
        "vgg19",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "genray", *map(str, words)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 2 and "downloading it (548 MB)" in done.stdout
    assert (
        done.stderr.startswith("error: --features vgg19: its weights are not at")
        and done.stderr.count("\n") == 1
    )
    assert not (folder / "o.png").exists()
