"""Tests reading clips frame by frame, and copying the sound of a clip."""

import struct
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from genray.errors import ConfigError
from genray.gen.images import clips
from genray.gen.images.clips import copy_sound, has_sound, read_clip
from genray.media import write_clip
from tests.helpers.gen import sounding


def whole(path: Path, **options) -> tuple[list[np.ndarray], float]:
    clip = read_clip(path, **options)
    frames = list(clip)
    assert clip.count == len(frames)
    return frames, clip.fps


def test_read_clip_returns_the_frames_that_were_written(tmp_path: Path):
    frames = [np.full((16, 24, 3), level, np.uint8) for level in (20, 90, 90, 200)]
    for suffix, off in ((".gif", 0), (".mp4", 6)):
        path = write_clip(tmp_path / f"clip{suffix}", frames, fps=10, scale=1)
        again, fps = whole(path)
        assert len(again) == 4 and fps == pytest.approx(10)
        for one, other in zip(frames, again):
            assert np.abs(one.astype(int) - other).max() <= off
        assert np.array_equal(whole(path, max_frames=3)[0], again[:3])


@pytest.mark.parametrize(
    ("lasts", "max_frames", "counts", "fps"),
    [
        ([100, 100], 99, [1, 1], 10),
        ([60, 80, 200, 140], 99, [3, 4, 10, 7], 50),  # exactly
        ([30, 40, 100, 70], 99, [2, 2, 5, 3], 50),  # 240 ms in all, none off by more than 10
        ([60, 80, 200, 140], 20, [1, 1, 4, 2], 1000 / 60),  # 24 are too many: by the shortest
        ([20, 30, 30, 30, 20], 99, [1, 2, 1, 2, 1], 50),  # every frame is shown
    ],
)
def test_read_clip_repeats_frames_of_a_gif_by_their_duration(
    lasts, max_frames, counts, fps, tmp_path: Path, monkeypatch
):
    pictures = [
        Image.fromarray(np.full((8, 8, 3), 50 * number, np.uint8)) for number in range(len(lasts))
    ]
    path = tmp_path / "uneven.gif"
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=lasts)
    monkeypatch.setattr(clips, "MAX_REPEATED", max_frames)
    frames, found = whole(path)
    assert np.unique([frame[0, 0, 0] for frame in frames], return_counts=True)[1].tolist() == counts
    assert found == pytest.approx(fps)


@pytest.mark.parametrize(
    ("matrix", "turns"), [((0, 1, -1, 0), -1), ((0, -1, 1, 0), 1), ((-1, 0, 0, -1), 2)]
)
def test_read_clip_turns_a_phones_video_upright(
    matrix: tuple[int, int, int, int], turns: int, tmp_path: Path
):
    """The track's header has a matrix in 16.16 fixed point: x' = a·x + c·y, y' = b·x + d·y.

    y points downwards.
    """
    frame = np.zeros((32, 48, 3), np.uint8)
    frame[:16, :16] = 255  # the top left corner
    path = write_clip(tmp_path / "clip.mp4", [frame], scale=1)
    content = bytearray(path.read_bytes())
    at = content.find(b"tkhd") + 44
    a, b, c, d = (each << 16 for each in matrix)
    assert struct.unpack(">9i", content[at : at + 36]) == (
        1 << 16,
        0,
        0,
        0,
        1 << 16,
        0,
        0,
        0,
        1 << 30,
    )
    content[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    (read,), _ = whole(path)
    np.testing.assert_allclose(read, np.rot90(frame, turns), atol=40)


@pytest.mark.parametrize("suffix", [".gif", ".mp4"])
def test_read_clip_reports_a_bad_file_in_one_line(tmp_path: Path, suffix: str):
    path = tmp_path / f"bad{suffix}"
    with pytest.raises(ConfigError, match="no such file"):
        read_clip(path)
    path.write_bytes(b"not a clip at all" * 20)
    with pytest.raises(ConfigError, match="damaged one") as caught:
        read_clip(path)
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="not a clip"):
        read_clip(tmp_path / "x.avi")


@pytest.mark.parametrize("suffix", [".gif", ".mp4"])
def test_read_clip_decodes_only_max_frames(suffix: str, tmp_path: Path):
    """The second half of the file is zeros; the first five frames can still be read."""
    frames = [
        np.random.default_rng(number).integers(0, 256, (48, 64, 3), np.uint8)
        for number in range(40)
    ]
    path = write_clip(tmp_path / f"clip{suffix}", frames, fps=10, scale=1)
    content = bytearray(path.read_bytes())
    begin, end = len(content) // 2, len(content) - 4000  # an MP4's index is at its end
    content[begin:end] = bytes(end - begin)
    path.write_bytes(content)
    assert len(whole(path, max_frames=5)[0]) == 5


def packets_of(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [
            bytes(packet) for packet in container.demux(container.streams.audio[0]) if packet.size
        ]


@pytest.mark.parametrize(("seconds", "share"), [(2.0, 1.0), (0.5, 0.25)])
def test_copy_sound_copies_the_packets_of_the_frames_that_are_used(
    seconds: float, share: float, tmp_path: Path
):
    source = sounding(tmp_path / "source.mp4")
    frames = [np.full((48, 64, 3), 9 * number, np.uint8) for number in range(round(10 * seconds))]
    styled = write_clip(tmp_path / "styled.mp4", frames, fps=10, scale=1)
    assert has_sound(source) and not has_sound(styled)
    copy_sound(source, styled, seconds)
    kept, there = packets_of(styled), packets_of(source)
    assert kept == there[: len(kept)] and abs(len(kept) - share * len(there)) <= 1
    assert len(whole(styled)[0]) == len(frames)
    with av.open(str(styled)) as container:
        tone = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
    assert np.abs(np.fft.rfft(tone[:4000])).argmax() == 220  # 440 Hz at 8,000 samples/s
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source.mp4", "styled.mp4"]
