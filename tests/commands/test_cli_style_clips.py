"""Tests `genray stylize` on clips."""

from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from torch import Tensor

from genray import cli
from genray.commands import stylers
from genray.gen.images.clips import has_sound, read_clip
from genray.gen.images.pictures import to_rgb
from genray.gen.images.style.optimise import stylize as optimise
from genray.media import write_clip
from tests.helpers.gen import sounding
from tests.helpers.stylize import QUICK, folder, models, pixels

__all__ = ["folder", "models"]  # pytest finds the fixtures by their names here


@pytest.fixture
def clip(models: Path) -> Path:
    """Write clips of a square that moves over the content; two frames are equal. The GIF ends with
    a cut to the negative.
    """
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
    """Return the mean change from frame to frame."""
    return float(np.mean([np.abs(a.astype(int) - b).mean() for a, b in pairwise(frames)]))


def test_stylize_clip_by_optimisation_starts_from_the_previous_frame(
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
    # The first frame and the frame after the cut start from the content. The repeated frame is not
    # styled again.
    assert [start is None for start in starts] == [True, False, False, True]
    first = starts[1]
    assert first is not None
    off = np.abs(to_rgb(first).astype(int) - frames[0]).mean()  # an MP4 is not exact
    assert off < 15 and off < 0.3 * np.abs(to_rgb(first).astype(int) - frames[-1]).mean()


def test_stylize_clip_by_a_model_with_blend(clip: Path, capsys):
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


def test_stylize_clip_reads_only_the_wanted_frames_and_keeps_sound(clip: Path, capsys):
    """The clip has 300 frames of 1080p, 622 million pixels, and only five frames are wanted."""
    path = clip / "large.mp4"
    with av.open(str(path), mode="w") as out:
        video: Any = out.add_stream("mpeg4", rate=30)
        video.width, video.height, video.pix_fmt = 1920, 1080, "yuv420p"
        audio: Any = out.add_stream("aac", rate=8000, layout="mono")
        for number in range(300):
            # One encoded picture is repeated, so that the file is written quickly.
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


def test_stylize_clip_onto_its_content_keeps_sound(clip: Path):
    sounding(clip / "talk.mp4", seconds=0.5)
    assert clip_run(clip, f"talk.mp4 --model {clip / 'fast'} --out talk.mp4") == 0
    assert has_sound(clip / "talk.mp4") and read_clip(clip / "talk.mp4").count == 5


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
def test_stylize_clip_reports_bad_input_in_one_line_and_writes_nothing(
    words: str, clip: Path, capsys
):
    before = set(clip.iterdir())
    assert clip_run(clip, words) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and BAD_CLIPS[words] in error
    assert set(clip.iterdir()) == before
