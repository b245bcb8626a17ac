"""Tests written clips and pictures: sizes, times and colours, memory, and failures."""

import resource
import subprocess
import sys
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from genray.errors import ConfigError, ResourceError
from genray.media import check_clip_path, contact_sheet, write_clip, write_gif, write_mp4, write_png


def moving_square(count: int, height: int = 60, width: int = 80) -> list[np.ndarray]:
    frames = []
    for number in range(count):
        frame = np.full((height, width, 3), (30, 60, 90), np.uint8)
        frame[20:40, number : number + 20] = (220, 40, 40)
        frames.append(frame)
    return frames


def read_gif(path: Path) -> tuple[list[np.ndarray], list[int]]:
    frames, durations = [], []
    with Image.open(path) as image:
        for number in range(image.n_frames):  # type: ignore[attr-defined]
            image.seek(number)
            frames.append(np.asarray(image.convert("RGB")))
            durations.append(int(image.info["duration"]))
        assert image.info["loop"] == 0
    return frames, durations


def read_mp4(path: Path) -> tuple[list[np.ndarray], float]:
    with av.open(path) as container:
        stream = container.streams.video[0]
        assert stream.average_rate is not None
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)], float(
            stream.average_rate
        )


def test_write_gif_of_few_colours_is_exact_and_keeps_time(tmp_path: Path):
    frames = moving_square(30)
    got, durations = read_gif(write_gif(tmp_path / "clip.gif", frames, fps=15, scale=2))
    assert len(got) == 30
    for frame, back in zip(frames, got, strict=True):
        np.testing.assert_array_equal(back, frame.repeat(2, axis=0).repeat(2, axis=1))
    # 1/15 s is not a whole number of hundredths of a second. If each duration were rounded by
    # itself, the clip would last 1.8 or 2.1 s instead of 2 s.
    assert sum(durations) == 2000
    assert set(durations) == {60, 70}


def test_write_gif_stores_equal_frames_once_with_their_total_duration(tmp_path: Path):
    first, second = moving_square(2)
    got, durations = read_gif(
        write_gif(tmp_path / "clip.gif", [first, first, first, second, first], fps=10, scale=1)
    )
    assert durations == [300, 100, 100]
    for frame, back in zip([first, second, first], got, strict=True):
        np.testing.assert_array_equal(back, frame)


def test_write_gif_stores_only_changed_pixels(tmp_path: Path):
    noise = (
        np.random.default_rng(0)
        .choice(np.array([10, 90], np.uint8), size=(100, 100, 1))
        .repeat(3, axis=2)
    )
    frames = [noise.copy() for _ in range(30)]
    for number, frame in enumerate(frames):
        frame[40:44, number : number + 4] = 255
    still = write_gif(tmp_path / "still.gif", frames[:1], scale=1).stat().st_size
    assert write_gif(tmp_path / "clip.gif", frames, scale=1).stat().st_size < 3 * still


def test_write_gif_keeps_255_colours_exactly_and_more_approximately(tmp_path: Path):
    ramp = np.arange(255, dtype=np.uint8)
    exact = np.stack([ramp, 255 - ramp, ramp // 2], axis=1).reshape(15, 17, 3)
    got, _ = read_gif(write_gif(tmp_path / "exact.gif", [exact, exact[::-1]], scale=1))
    np.testing.assert_array_equal(got[0], exact)
    np.testing.assert_array_equal(got[1], exact[::-1])

    y, x = np.mgrid[:64, :64]
    many = [
        np.stack([4 * x, 4 * y, np.full_like(x, 8 * n)], axis=2).astype(np.uint8) for n in range(8)
    ]
    got, _ = read_gif(write_gif(tmp_path / "many.gif", many, scale=1))
    error = np.abs(np.stack(got).astype(int) - np.stack(many))
    assert error.mean() < 12 and error.max() < 100


def test_write_mp4_keeps_frames_speed_and_approximate_colours(tmp_path: Path):
    frames = moving_square(40)
    got, rate = read_mp4(write_mp4(tmp_path / "clip.mp4", frames, fps=15, scale=2))
    assert rate == 15 and len(got) == 40
    for frame, back in zip(frames, got, strict=True):
        want = frame.repeat(2, axis=0).repeat(2, axis=1)
        assert back.shape == want.shape
        assert np.abs(back.astype(int) - want).mean() < 4


def test_write_mp4_pads_odd_sizes(tmp_path: Path):
    frames = moving_square(3, height=41, width=51)
    got, _ = read_mp4(write_mp4(tmp_path / "clip.mp4", frames, scale=1))
    assert got[0].shape == (42, 52, 3)
    assert np.abs(got[0][:41, :51].astype(int) - frames[0]).mean() < 8


def test_write_clip_chooses_the_format_by_suffix_and_names_a_wrong_one(tmp_path: Path):
    frames = moving_square(2)
    assert write_clip(tmp_path / "new" / "clip.GIF", frames).read_bytes()[:6] == b"GIF89a"
    assert b"ftyp" in write_clip(tmp_path / "clip.mp4", frames).read_bytes()[:16]
    for name in ("clip.webm", "clip"):
        with pytest.raises(ConfigError, match=r"\.gif or \.mp4"):
            check_clip_path(tmp_path / name)
        with pytest.raises(ConfigError, match=r"\.gif or \.mp4"):
            write_clip(tmp_path / name, frames)


def test_write_png_refuses_another_suffix(tmp_path: Path):
    assert write_png(tmp_path / "a.PNG", moving_square(1)[0]).read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(ConfigError, match=r"a\.jpg: the name must end in \.png, e\.g\. a\.png"):
        write_png(tmp_path / "a.jpg", moving_square(1)[0])
    assert not (tmp_path / "a.jpg").exists()


@contextmanager
def largest_file(num_bytes: int) -> Iterator[None]:
    """Limit the size of any file to `num_bytes` within the block, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("name", ["clip.gif", "clip.mp4"])
def test_write_clip_failure_leaves_only_the_old_file(tmp_path: Path, name: str):
    path = write_clip(tmp_path / name, moving_square(2))
    before = path.read_bytes()
    noise = np.random.default_rng(0).integers(256, size=(20, 60, 80, 3), dtype=np.uint8)
    with (
        largest_file(1000),
        pytest.raises(ResourceError, match=rf"{name}: cannot be written \(File too large"),
    ):
        write_clip(path, noise)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["clip.gif", "clip.mp4"])
def test_write_clip_takes_frames_one_by_one(tmp_path: Path, name: str):
    """Only a few frames exist at a time, for a clip of any length."""
    alive: weakref.WeakSet[np.ndarray] = weakref.WeakSet()
    most = 0

    class Frame(np.ndarray):  # a plain array takes no weak reference
        def __hash__(self) -> int:  # type: ignore[override]
            return id(self)

    def frames() -> Iterator[np.ndarray]:
        nonlocal most
        for number in range(200):
            frame = np.zeros((16, 16, 3), np.uint8).view(Frame)
            frame[:, number % 16] = number
            alive.add(frame)
            most = max(most, len(alive))
            yield frame

    write_clip(tmp_path / name, frames())
    assert 1 <= most <= 3
    with av.open(tmp_path / name) as container:
        assert len(list(container.decode(video=0))) == 200


def test_write_gif_of_a_long_episode_is_small_in_memory(tmp_path: Path):
    """Writing 150 frames of a game takes less than 8 MB; raw, they have 15 MB."""
    words = (
        "import resource, sys; from pathlib import Path; import numpy as np; from genray.media "
        "import write_clip\n"
        "rng = np.random.default_rng(0); back = rng.integers(0, 100, (210, 160, 3), "
        "dtype=np.uint8) // 20 * 20\n"
        "def frames(count):\n"
        "    for n in range(count):\n"
        "        frame = back.copy(); frame[n % 200 : n % 200 + 8, :120] = 200; yield frame\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "out = Path(sys.argv[1]); write_clip(out, frames(3)); before = peak()\n"
        "write_clip(out, frames(150)); print(peak() - before)"
    )
    command = [sys.executable, "-c", words, str(tmp_path / "clip.gif")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 8_000  # kilobytes


def test_write_clip_reports_a_folder_that_cannot_be_made(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ResourceError, match="cannot be written"):
        write_clip(tmp_path / "file" / "clip.gif", moving_square(2))


@pytest.mark.parametrize("write", [write_gif, write_mp4])
def test_write_functions_refuse_bad_frames_and_options(tmp_path: Path, write):
    with pytest.raises(ConfigError, match="no frames"):
        write(tmp_path / "clip", [])
    with pytest.raises(ConfigError, match="scale 0"):
        write(tmp_path / "clip", moving_square(2), scale=0)
    with pytest.raises(ConfigError, match="frames/s"):
        write(tmp_path / "clip", moving_square(2), fps=0)
    with pytest.raises(ValueError, match="one size"):
        write(tmp_path / "clip", [*moving_square(1), *moving_square(1, height=10)])
    assert not list(tmp_path.iterdir())


def test_contact_sheet_orders_frames_in_rows():
    frames = [np.full((4, 6, 3), 10 * (number + 1), np.uint8) for number in range(5)]
    sheet = contact_sheet(frames, columns=3, gap=1)
    assert sheet.shape == (9, 20, 3)
    assert sheet[0, :, 0].tolist() == [10] * 6 + [0] + [20] * 6 + [0] + [30] * 6
    assert sheet[8, :, 0].tolist() == [40] * 6 + [0] + [50] * 6 + [0] * 7
    assert not sheet[4].any()
    assert contact_sheet(frames[:2], columns=5).shape == (4, 14, 3)


def test_write_gif_keeps_the_duration_of_a_very_long_still(tmp_path):
    still = np.zeros((4, 4, 3), np.uint8)
    path = write_gif(tmp_path / "still.gif", [still] * 12_000 + [still + 9], fps=15, scale=1)
    with Image.open(path) as image:
        lasts = []
        for number in range(image.n_frames):
            image.seek(number)
            lasts.append(image.info["duration"])
    assert sum(lasts) == pytest.approx(12_001 / 15 * 1000, abs=20)


@pytest.mark.parametrize("suffix", ["gif", "mp4"])
def test_write_clip_does_not_change_an_error_of_the_frames_source(tmp_path, suffix):
    def frames():
        yield np.zeros((4, 4, 3), np.uint8)
        raise OSError(5, "the game broke")

    with pytest.raises(OSError, match="the game broke") as error:
        write_clip(tmp_path / f"clip.{suffix}", frames())
    assert error.value.errno == 5 and not list(tmp_path.iterdir())
