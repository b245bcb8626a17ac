"""`genray stylize`: pictures in, a picture with its note out; trained models; one line for what
makes no sense.
"""

import os
import subprocess
import sys
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from genray import cli
from genray.commands import stylers
from genray.gen.images.clips import has_sound, read_clip
from genray.gen.images.features import untrained
from genray.gen.images.pictures import to_rgb
from genray.gen.images.style.adain_net import AdaINNet, build_style_any
from genray.gen.images.style.network_config import StyleNetConfig
from genray.gen.images.style.optimise import stylize as optimise
from genray.gen.images.style.transformer_net import TransformerNet, build_style_fast
from genray.media import write_clip
from genray.runs.modelstore import save_model
from tests.helpers.gen import sounding
from tests.helpers.pictures import read_about

QUICK = ["--steps", "4", "--scales", "1", "--features", "untrained"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    y, x = np.mgrid[:48, :64]
    content = np.stack([3 * x, 5 * y, 255 - 2 * (x + y)], -1).clip(0, 255).astype(np.uint8)
    style = random.integers(0, 256, (12, 16, 3), np.uint8).repeat(4, 0).repeat(4, 1)
    Image.fromarray(content).save(tmp_path / "content.png")
    Image.fromarray(style).save(tmp_path / "style.jpg")
    Image.fromarray(255 - style).save(tmp_path / "other.webp")
    alpha = (x * 4).astype(np.uint8)
    Image.fromarray(np.dstack([content, alpha])).save(tmp_path / "clear.png")
    return tmp_path


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def run(folder: Path, *words: str) -> int:
    names = [
        str(folder / word) if (folder / word).suffix in (".png", ".jpg", ".webp") else word
        for word in words
    ]
    return cli.main(["stylize", *names])


def test_it_writes_a_picture_and_what_was_done(folder: Path, capsys):
    for out in ("a.png", "b.png"):
        assert run(folder, "content.png", "style.jpg", "--out", out, *QUICK) == 0
    assert np.array_equal(pixels(folder / "a.png"), pixels(folder / "b.png"))
    assert pixels(folder / "a.png").shape == (48, 64, 3)  # smaller than 160: not enlarged
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


def test_several_styles_a_size_transparency_and_a_preview(folder: Path):
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


def test_a_thin_style_is_no_trouble(folder: Path):
    Image.fromarray(pixels(folder / "style.jpg")[:8]).resize((150, 8)).save(folder / "thin.png")
    assert run(folder, "content.png", "thin.png", "--out", "out.png", *QUICK) == 0
    assert pixels(folder / "out.png").std() > 0


def test_alpha_and_colours(folder: Path):
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


# -- trained models --------------------------------------------------------------------------------


SMALL = StyleNetConfig(widths=(4, 8), residual=1, kernel=3, encoder_layer="conv2")


def plain(config: StyleNetConfig) -> dict:
    return {
        name: list(v) if isinstance(v := getattr(config, name), tuple) else v
        for name in vars(config)
    }


@pytest.fixture
def models(folder: Path) -> Path:
    torch.manual_seed(0)
    about = {"features": "untrained"}
    fast = TransformerNet(SMALL, about)
    any_ = AdaINNet(SMALL, untrained(0), 48, about)
    base = {
        "net": plain(SMALL),
        "model": plain(SMALL),
        "style_side": 48,
        "about": about,
        **plain(SMALL),
    }
    encoder = any_.encoder.config()  # type: ignore[union-attr, operator]
    save_model(folder / "fast" / "model", "style_fast", base, fast.state_dict(), "card")
    save_model(
        folder / "any" / "model",
        "style_any",
        {**base, "encoder": encoder},
        any_.state_dict(),
        "card",
    )
    assert build_style_fast(base) and build_style_any({**base, "encoder": encoder})
    return folder


def test_a_model_of_one_style(models: Path):
    assert run(models, "clear.png", "--model", str(models / "fast"), "--out", "out.png") == 0
    about, image = read_about(models / "out.png"), pixels(models / "out.png")
    assert image.shape == (48, 64, 4) and np.array_equal(
        image[..., 3], pixels(models / "clear.png")[..., 3]
    )
    assert about["method"] == "style_fast" and about["model"] == "fast" and about["styles"] == []


def test_a_model_of_any_style(models: Path):
    words = ("content.png", "style.jpg", "other.webp", "--model", str(models / "any"))
    for name, weights in (("a.png", "1 0"), ("b.png", "0 1")):
        assert (
            run(models, *words, "--weights", *weights.split(), "--size", "40", "--out", name) == 0
        )
    a, b = pixels(models / "a.png"), pixels(models / "b.png")
    assert a.shape == (30, 40, 3) and not np.array_equal(a, b)
    assert read_about(models / "a.png")["method"] == "style_any"


# -- clips -----------------------------------------------------------------------------------------


@pytest.fixture
def clip(models: Path) -> Path:
    """A square that moves over the content, then a cut to its negative; two frames are equal."""
    content = pixels(models / "content.png")
    frames = [content.copy() for _ in range(4)]
    for number, at in enumerate((4, 10, 10, 16)):
        frames[number][10:20, at : at + 10] = 255
    write_clip(models / "clip.gif", [*frames, 255 - content], fps=10, scale=1)
    write_clip(models / "clip.mp4", frames, fps=60, scale=1)
    return models


def clip_run(folder: Path, words: str) -> int:
    parts = (
        str(folder / word) if "." in word and not word[0].isdigit() else word
        for word in words.split()
    )
    return cli.main(["stylize", *parts])


def moved(frames: list[np.ndarray]) -> float:
    """Mean change from frame to frame."""
    return float(np.mean([np.abs(a.astype(int) - b).mean() for a, b in pairwise(frames)]))


def test_a_clip_by_optimisation_starts_each_frame_from_the_one_before(
    clip: Path, capsys, monkeypatch
):
    starts: list[Tensor | None] = []

    def watched(*words, start: Tensor | None = None) -> Tensor:
        starts.append(start)
        return optimise(*words, start=start)

    monkeypatch.setattr(stylers, "optimise", watched)
    words = "clip.gif style.jpg --frame-steps 2 --size 48 " + " ".join(QUICK)
    assert clip_run(clip, f"{words} --out out.mp4") == 0
    out = capsys.readouterr().out
    assert (
        "48x36 pixels, untrained features (colour and texture, not semantics): 5 frames, about"
        in out
    )
    assert "flicker " in out and "of the content" in out and out.strip().endswith("out.mp4")
    found = read_clip(clip / "out.mp4")
    frames, fps = list(found), found.fps
    assert len(frames) == 5 and fps == pytest.approx(10) and frames[0].shape == (36, 48, 3)
    # The first and the one behind the cut begin anew; the repeated one is not styled again.
    assert [start is None for start in starts] == [True, False, False, True]
    first = starts[1]
    assert first is not None
    off = np.abs(to_rgb(first).astype(int) - frames[0]).mean()  # an MP4 is not exact
    assert off < 15 and off < 0.3 * np.abs(to_rgb(first).astype(int) - frames[-1]).mean()


def test_a_clip_by_a_model_and_its_blend(clip: Path, capsys):
    figures = []
    for blend in ("0", "0.8"):
        words = ["stylize", str(clip / "clip.gif"), "--model", str(clip / "fast"), "--blend", blend]
        assert cli.main([*words, "--frames", "4", "--out", str(clip / "out.gif")]) == 0
        found = read_clip(clip / "out.gif")
        frames, fps = list(found), found.fps
        assert len(frames) == 4 and fps == pytest.approx(10) and frames[0].shape == (48, 64, 3)
        figures.append(moved(frames))
    assert figures[1] < figures[0]
    assert "style_fast model fast: 4 frames" in capsys.readouterr().out


def test_a_large_clip_is_read_up_to_frames_and_keeps_its_sound(clip: Path, capsys):
    """300 frames of 1080p are 622 million pixels: only five are wanted."""
    path = clip / "large.mp4"
    with av.open(str(path), mode="w") as out:
        video: Any = out.add_stream("mpeg4", rate=30)
        video.width, video.height, video.pix_fmt = 1920, 1080, "yuv420p"
        audio: Any = out.add_stream("aac", rate=8000, layout="mono")
        for number in range(300):
            # One encoded picture, repeated: the file is real, and soon written.
            if number == 0:
                picture = av.VideoFrame.from_ndarray(
                    np.full((1080, 1920, 3), 90, np.uint8), format="rgb24"
                )
                (packet,) = video.encode(picture)
                content = bytes(packet)
            packet = av.Packet(content)
            packet.stream, packet.time_base, packet.is_keyframe = (
                video,
                video.time_base or Fraction(1, 30),
                True,
            )
            packet.pts = packet.dts = round(number / 30 / packet.time_base)
            out.mux(packet)
        silence = av.AudioFrame.from_ndarray(
            np.zeros((1, 80_000), np.float32), format="fltp", layout="mono"
        )
        silence.sample_rate = 8000
        out.mux(audio.encode(silence))
        out.mux(audio.encode())
    words = "large.mp4 --frames 5 --size 320"
    assert clip_run(clip, f"{words} --model {clip / 'fast'} --out large-out.mp4") == 0
    found = read_clip(clip / "large-out.mp4")
    assert [frame.shape for frame in found] == [(180, 320, 3)] * 5 and has_sound(found.path)
    with av.open(str(found.path)) as container:
        assert container.duration is not None and container.duration / 1e6 < 0.5
    assert clip_run(clip, f"{words} --model {clip / 'fast'} --out large-out.gif") == 0
    assert "a GIF has no sound; the sound of large.mp4 is left out" in capsys.readouterr().out


def test_a_clip_in_the_place_of_its_content_keeps_its_sound(clip: Path):
    sounding(clip / "talk.mp4", seconds=0.5)
    assert clip_run(clip, f"talk.mp4 --model {clip / 'fast'} --out talk.mp4") == 0
    assert has_sound(clip / "talk.mp4") and read_clip(clip / "talk.mp4").count == 5


def test_a_reduction_that_nobody_asked_for_is_said(models: Path, capsys):
    Image.new("RGB", (2500, 64), (90, 80, 70)).resize((2500, 150)).save(models / "wide.png")
    words = ["wide.png", "--model", str(models / "fast"), "--out", "o.png"]
    assert run(models, *words) == 0
    assert (
        "wide.png: 2500x150 pixels are reduced to 2048x123; a model takes at most 2048 a side"
        in (capsys.readouterr().out)
    )
    assert run(models, *words, "--size", "300") == 0 and "reduced" not in capsys.readouterr().out


BAD_CLIPS = {
    "clip.gif style.jpg --out o.png": "clip.gif is a clip, so its name must end in .gif or .mp4",
    "clip.mp4 style.jpg --out o.gif": "60 frames/s, a GIF plays at most 50",
    "content.gif style.jpg --out o.gif": "no such file",
    "clip.gif --out o.gif": "name a style picture",
    "clip.gif style.jpg --out o.gif --blend 1": "--blend 1",
    "clip.gif style.jpg --out o.gif --frame-steps 0": "--frame-steps 0",
    "clip.gif style.jpg --out o.gif --preview 2": "--preview 2: for pictures",
    "clip.gif style.jpg --out o.gif --features untrained --max-minutes 0.001": (
        "4 frames by optimisation would take about"
    ),
    "content.png style.jpg --out o.png --blend 0.5": "--blend: for clips; content.png is not a",
    "clip.gif clip.gif --out o.gif": "",
}


@pytest.mark.parametrize("words", BAD_CLIPS)
def test_a_bad_clip_is_one_line_and_leaves_nothing(words: str, clip: Path, capsys):
    before = set(clip.iterdir())
    assert clip_run(clip, words) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and BAD_CLIPS[words] in error
    assert set(clip.iterdir()) == before


# -- what is refused -------------------------------------------------------------------------------

BAD = {
    "": "name the content and a style",
    "content.png --out o.png": "name a style picture",
    "content.png style.jpg --out o.gif": "must end in",
    "clear.png style.jpg --out o.jpg": "no transparency",
    "missing.png style.jpg --out o.png": "no such file",
    "content.png missing.jpg --out o.png": "no such file",
    "content.png style.jpg --out o.png --size 5": "--size 5",
    "content.png style.jpg --out o.png --size 20": (
        "short side of at least 16; choose a larger --size"
    ),
    "content.png style.jpg --out o.png --weights 1 2": "2 weights for 1 styles",
    "content.png style.jpg --out o.png --alpha 2": "--alpha 2",
    "content.png style.jpg --out o.png --preview -1": "--preview -1",
    "content.png style.jpg --out o.png --optimizer sgd": "optimizer",
    "content.png style.jpg --out o.png --features vgg": "use auto, untrained, vgg19",
    "content.png style.jpg --out o.png --style-layers conv99": "there are conv0",
    "content.png style.jpg --out o.png --method model": "--model runs/style",
    "content.png style.jpg --out o.png --model nowhere": "not a model",
    "content.png style.jpg --out o.png --model nowhere --steps 9": (
        "--steps: only for optimisation"
    ),
    "content.png style.jpg --out o.png --stepps 9": "did you mean --steps",
}


@pytest.mark.parametrize("words", BAD)
def test_bad_input_is_one_line_and_leaves_nothing(words: str, folder: Path, capsys):
    before = set(folder.iterdir())
    assert run(folder, *words.split()) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and BAD[words] in error
    assert set(folder.iterdir()) == before


def test_vgg19_without_a_network_is_one_line_in_seconds(folder: Path):
    """A whole process, an empty cache, and a proxy where nobody listens."""
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
