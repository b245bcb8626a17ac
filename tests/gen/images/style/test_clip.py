"""Tests styling clips: blending, memory, and flicker against numbers worked out by hand."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from genray.errors import ConfigError
from genray.gen.images.clips import read_clip
from genray.gen.images.style.clip import Flicker, FlickerMeter, style_clip
from genray.media import write_clip


def flat(*levels: int) -> list[np.ndarray]:
    return [np.full((8, 8, 3), level, np.uint8) for level in levels]


def flicker(styled: list[np.ndarray], content: list[np.ndarray]) -> Flicker:
    meter = FlickerMeter()
    for pair in zip(styled, content, strict=True):
        meter.add(*pair)
    return meter.flicker


def test_flicker_meter_by_hand():
    """The content's left half is still, and its right half changes by 40. The styled left half
    changes by 10, the right half by 30.
    """
    content, styled = flat(100, 100), flat(50, 60)
    content[1][:, 4:] += 40
    styled[1][:, 4:] += 20
    found = flicker(styled, content)
    assert (found.still, found.still_share, found.content, found.styled) == (10.0, 0.5, 20.0, 20.0)
    assert "flicker 10.00 levels" in str(found)
    assert flicker(styled[:1], content[:1]).still == 0


def test_style_clip_blends_only_still_areas():
    noise = iter((0, 100))

    def shaky(frame: np.ndarray, before: np.ndarray | None) -> np.ndarray:
        return np.full_like(frame, next(noise))

    content = flat(10, 11)
    content[1][:, 4:] = 200
    meter = FlickerMeter()
    calm = list(style_clip(content, shaky, blend=0.75, meter=meter))
    assert calm[1][0, 0].tolist() == [28] * 3, "100 + 0.75·(1 − 1/24)·(0 − 100)"
    assert calm[1][0, 5].tolist() == [100] * 3
    assert meter.flicker.still == 28


def test_style_clip_passes_the_previous_frame_and_styles_equal_frames_once():
    seen: list[int | None] = []

    def count(frame: np.ndarray, before: np.ndarray | None) -> np.ndarray:
        seen.append(None if before is None else int(before[0, 0, 0]))
        return frame + 1

    meter = FlickerMeter()
    frames = list(style_clip(flat(5, 5, 9), count, meter=meter))
    assert seen == [None, 6]
    assert [int(frame[0, 0, 0]) for frame in frames] == [6, 6, 10]
    assert meter.flicker.still == 0
    with pytest.raises(ConfigError, match="--blend 1"):
        next(style_clip(flat(1), count, blend=1.0))
    with pytest.raises(ConfigError, match="no frames"):
        next(style_clip([], count))


def test_style_clip_keeps_few_frames_in_memory(tmp_path: Path):
    """60 frames of 320x240 are 14 MB."""
    levels = np.arange(60, dtype=np.uint8) * 4
    path = write_clip(
        tmp_path / "long.mp4",
        [np.full((240, 320, 3), each, np.uint8) for each in levels],
        fps=30,
        scale=1,
    )
    tracemalloc.start()
    try:
        clip = read_clip(path)
        count = sum(1 for _ in style_clip(clip, lambda frame, before: 255 - frame))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == clip.count == 60 and peak < 5e6
