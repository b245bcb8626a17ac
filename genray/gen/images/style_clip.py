"""Clips in a style: frames read from GIF or MP4, styled one after the other, and how much the result flickers.

Frames are uint8 RGB [H, W, 3], all of one size.
Shapes: H height, W width.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from genray.errors import ConfigError, require
from genray.media import SUFFIXES

MAX_FRAMES = 2_000
MAX_PIXELS = 500_000_000
"""Of all frames together: 1.5 GB as RGB."""
STILL = 3
"""A pixel whose channels change by less than this, of 255, stands still."""

CUT = 40
"""A mean change of the content by more levels than this, with hardly a pixel that stands still, is a cut: the frame before
is nothing to start from."""

StyleFrame = Callable[[np.ndarray, np.ndarray | None], np.ndarray]
"""(a frame, the frame before it as it was styled, None for the first and behind a cut) to the styled frame; all uint8
[H, W, 3]."""


@dataclass(frozen=True)
class Flicker:
    """How much pixels change from frame to frame, mean absolute differences in levels of 0..255."""

    styled: float
    """Of the result, everywhere."""
    content: float
    """Of the content, everywhere: motion that the result should have, too."""
    still: float
    """Of the result where the content stands still: nothing but flicker. 0 when no pixel ever does."""
    still_share: float
    """Share of the pixels, over all pairs of frames, that stand still."""

    def __str__(self) -> str:
        return (
            f"flicker {self.still:.2f} levels of 255 where the content stands still ({self.still_share:.0%} of it); "
            f"change from frame to frame {self.styled:.2f}, of the content {self.content:.2f}"
        )


def style_clip(
    frames: Sequence[np.ndarray],
    style_frame: StyleFrame,
    *,
    blend: float = 0.0,
    progress: Callable[[int, np.ndarray], None] = lambda done, frame: None,
) -> tuple[list[np.ndarray], Flicker]:
    """(the styled frames, their flicker).

    `style_frame` gets the styled frame before, to start from or to pass over. `blend` in [0, 1): the share of that frame
    in the result where the content stands still; it falls to nothing where the content moves. `progress` is told the
    number of frames done and the newest. A frame equal to the one before keeps its result. Raises ConfigError.
    """
    require(0 <= blend < 1, f"--blend {blend:g}: must lie in [0, 1), e.g. 0.6")
    check_frames(frames)
    results: list[np.ndarray] = []
    for number, frame in enumerate(frames):
        if number and np.array_equal(frame, frames[number - 1]):
            results.append(results[-1])
        else:
            before = results[-1] if results and not _is_cut(frame, frames[number - 1]) else None
            result = style_frame(frame, before)
            if before is not None and blend and result.shape == before.shape:
                result = blended(result, before, _change(frame, frames[number - 1]), blend)
            results.append(result)
        progress(number + 1, results[-1])
    return results, flicker(results, frames)


def blended(result: np.ndarray, before: np.ndarray, change_HW: np.ndarray, share: float) -> np.ndarray:
    """The result mixed with the frame before: `share` of it where nothing changed, ever less up to 8·STILL levels."""
    weight_HW = share * (1 - change_HW.astype(np.float32) / (8 * STILL)).clip(0, 1)
    if weight_HW.shape != result.shape[:2]:  # a style at another size than its content
        from genray.gen.images.pictures import resized

        weight_HW = resized(np.rint(weight_HW * 255).astype(np.uint8), *result.shape[:2]).astype(np.float32) / 255
    now, past = result.astype(np.float32), before.astype(np.float32)
    return np.rint(now + weight_HW[..., None] * (past - now)).astype(np.uint8)


def flicker(styled: Sequence[np.ndarray], content: Sequence[np.ndarray]) -> Flicker:
    """Measured over all pairs of neighbouring frames. Raises ValueError for clips of unequal lengths or sizes."""
    if len(styled) != len(content):
        raise ValueError(f"{len(styled)} styled frames beside {len(content)}")
    if styled[0].shape != content[0].shape:
        from genray.gen.images.pictures import resized

        content = [resized(frame, *styled[0].shape[:2]) for frame in content]
    changes = still_change = of_content = 0.0
    still = pixels = 0
    for number in range(1, len(styled)):
        change = np.abs(styled[number].astype(np.int16) - styled[number - 1]).mean(2)
        moved = np.abs(content[number].astype(np.int16) - content[number - 1])
        stands = moved.max(2) < STILL
        changes, of_content = changes + float(change.sum()), of_content + float(moved.mean(2).sum())
        still_change, still = still_change + float(change[stands].sum()), still + int(stands.sum())
        pixels += change.size
    count = max(1, pixels)
    return Flicker(changes / count, of_content / count, still_change / max(1, still), still / count)


def _is_cut(frame: np.ndarray, before: np.ndarray) -> bool:
    change_HW = _change(frame, before)
    return float(change_HW.mean()) > CUT and float((change_HW < STILL).mean()) < 0.1


def _change(frame: np.ndarray, before: np.ndarray) -> np.ndarray:
    """The largest change of a pixel's channels, int16 [H, W]."""
    return np.abs(frame.astype(np.int16) - before).max(2)


def check_frames(frames: Sequence[np.ndarray]) -> None:
    require(len(frames) > 0, "the clip has no frames")
    for frame in frames:
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape != frames[0].shape or frame.shape[2] != 3:
            raise ValueError(f"frames must be uint8 [H, W, 3] of one size, not {frame.dtype} {frame.shape}")


# -- reading -----------------------------------------------------------------------------------------------------------


def is_clip(path: Path) -> bool:
    """Whether the name says GIF or MP4."""
    return path.suffix.lower() in SUFFIXES


def read_clip(path: Path, *, max_frames: int = MAX_FRAMES) -> tuple[list[np.ndarray], float]:
    """(frames uint8 [H, W, 3], frames/s) of a GIF or an MP4. A GIF's frames that last longer are repeated.

    Raises ConfigError, one line, for a missing, foreign or damaged file, more than `max_frames`, or too many pixels in
    all: what the header says is asked before anything is decoded.
    """
    require(is_clip(path), f"{path}: not a clip; give {' or '.join(SUFFIXES)}")
    require(path.is_file(), f"{path}: no such file")
    frames, fps = (_read_gif if path.suffix.lower() == ".gif" else _read_mp4)(path, max_frames)
    require(len(frames) > 0, f"{path}: holds no frames")
    return frames, fps


def _check_size(path: Path, width: int, height: int, count: int, max_frames: int) -> None:
    require(count <= max_frames, f"{path}: more than {max_frames:,} frames; cut a part out")
    require(min(width, height) >= 8, f"{path}: frames of {width}x{height} pixels; each side needs at least 8")
    require(
        width * height * count <= MAX_PIXELS,
        f"{path}: {count} frames of {width}x{height} are more than {MAX_PIXELS:,} pixels; give fewer or smaller ones",
    )


def _read_gif(path: Path, max_frames: int) -> tuple[list[np.ndarray], float]:
    from PIL import Image, ImageSequence

    try:
        with Image.open(path, formats=("GIF",)) as image:
            _check_size(path, *image.size, getattr(image, "n_frames", 1), max_frames)
            pictures, lasts = [], []
            for frame in ImageSequence.Iterator(image):
                pictures.append(np.asarray(frame.convert("RGB")).copy())
                lasts.append(max(20, int(frame.info.get("duration", 100)) or 100))  # browsers slow 0 down to 100 ms
    except (Image.DecompressionBombError, OSError, SyntaxError, ValueError, EOFError, IndexError) as error:
        raise ConfigError(f"{path}: not a GIF, or a damaged one ({str(error).splitlines()[0]})") from error
    tick = _tick(lasts, MAX_PIXELS // (pictures[0].shape[0] * pictures[0].shape[1]), max_frames)
    frames: list[np.ndarray] = []
    for picture, ends in zip(pictures, np.cumsum(lasts)):  # rounded as times, not durations, so none drifts
        frames += [picture] * (int(ends / tick + 0.5) - len(frames))
    _check_size(path, frames[0].shape[1], frames[0].shape[0], len(frames), max_frames)
    return frames, 1000 / tick


def _tick(lasts: Sequence[int], *most: int) -> int:
    """One clock for all frames, ms, so that one that lasts longer is repeated: what divides every duration, or the shortest
    where that would make more frames than any of `most`. 20 at least: no browser plays a GIF faster."""
    tick = max(20, math.gcd(*lasts))
    return tick if sum(lasts) / tick <= min(most) else min(lasts)


def _read_mp4(path: Path, max_frames: int) -> tuple[list[np.ndarray], float]:
    import av

    frames: list[np.ndarray] = []
    try:
        with av.open(str(path)) as container:
            require(len(container.streams.video) > 0, f"{path}: holds no video")
            stream = container.streams.video[0]
            _check_size(path, stream.width, stream.height, max(1, stream.frames), max_frames)
            fps = float(stream.average_rate or 15)
            for frame in container.decode(stream):
                _check_size(path, frame.width, frame.height, len(frames) + 1, max_frames)
                # Phones film lying down and say in the header how the picture is to be turned, in degrees anticlockwise.
                upright = np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90))
                frames.append(np.ascontiguousarray(upright))
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise ConfigError(f"{path}: not an MP4, or a damaged one ({str(error).splitlines()[0]})") from error
    return frames, fps
