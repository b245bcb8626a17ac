"""Reads clips frame by frame from GIF or MP4, and copies the sound of one MP4 to another.

Frames are uint8 RGB [H, W, 3], all of one size.
"""

import contextlib
import heapq
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from genray.errors import ConfigError, require
from genray.gen.images.pictures import MAX_PIXELS
from genray.media import SUFFIXES

MAX_REPEATED = 2_000
"""A GIF's frames are repeated to keep time on one clock, as long as no more frames come of it."""
_GIF_ERRORS = (OSError, SyntaxError, ValueError, EOFError, IndexError)


@dataclass(frozen=True)
class Clip:
    """A clip that is decoded anew, frame by frame, each time it is iterated over.

    No more than a few frames are in memory at a time. Iterating raises ConfigError, one line, where
    the file turns out to be damaged.
    """

    path: Path
    fps: float
    count: int
    """How many frames iterating gives; of an MP4 what its header says; 0 where it says nothing."""
    _open: Callable[[], Iterator[np.ndarray]]

    def __iter__(self) -> Iterator[np.ndarray]:
        return self._open()


def is_clip(path: Path) -> bool:
    """Whether the name says GIF or MP4."""
    return path.suffix.lower() in SUFFIXES


def read_clip(path: Path, *, max_frames: int = 0) -> Clip:
    """Open a GIF or an MP4. A GIF's frames that last longer are repeated.

    `max_frames`: decoding stops behind that many frames; 0: at the end. Raises ConfigError, one
    line, for a missing, foreign or damaged file, or frames too small or too large: what the header
    says is asked before anything is decoded.
    """
    require(is_clip(path), f"{path}: not a clip; give {' or '.join(SUFFIXES)}")
    require(path.is_file(), f"{path}: no such file")
    return (_open_gif if path.suffix.lower() == ".gif" else _open_mp4)(path, max_frames)


def _check_size(path: Path, width: int, height: int) -> None:
    require(
        min(width, height) >= 8,
        f"{path}: frames of {width}x{height} pixels; each side needs at least 8",
    )
    require(
        width * height <= MAX_PIXELS,
        f"{path}: frames of {width}x{height} pixels; at most {MAX_PIXELS:,} a frame are read",
    )


# -- GIF -------------------------------------------------------------------------------------------


def _gif_frames(path: Path, max_frames: int) -> Iterator[tuple[np.ndarray, int]]:
    """(each frame as it is stored, how many ms it lasts), at most `max_frames` of them unless 0."""
    from PIL import Image, ImageSequence

    try:
        with Image.open(path, formats=("GIF",)) as image:
            _check_size(path, *image.size)
            for frame in islice(ImageSequence.Iterator(image), max_frames or None):
                # Browsers slow 0 ms down to 100 ms, and play nothing faster than 20 ms.
                lasts = max(20, int(frame.info.get("duration", 100)) or 100)
                yield np.asarray(frame.convert("RGB")).copy(), lasts
    except (Image.DecompressionBombError, *_GIF_ERRORS) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(f"{path}: not a GIF, or a damaged one ({reason})") from error


def _open_gif(path: Path, max_frames: int) -> Clip:
    lasts = [each for _, each in _gif_frames(path, max_frames)]
    tick = _tick(lasts)
    ends = np.cumsum(lasts)  # rounded as times, not durations, so that none drifts
    until = np.floor(ends / tick + 0.5).astype(int)
    count = min(int(until[-1]), max_frames or int(until[-1]))

    def frames() -> Iterator[np.ndarray]:
        done = 0
        for (frame, _), end in zip(_gif_frames(path, max_frames), until):
            for _ in range(done, min(end, count)):
                yield frame
            done = max(done, end)

    return Clip(path, 1000 / tick, count, frames)


def _tick(lasts: Sequence[int]) -> int:
    """One clock for all frames, ms, so that one that lasts longer is repeated: what divides
    every duration, or the shortest where that would make more frames than MAX_REPEATED. 20 at
    least: no browser plays a GIF faster.
    """
    tick = max(20, math.gcd(*lasts))
    return tick if sum(lasts) / tick <= MAX_REPEATED else min(lasts)


# -- MP4 -------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _mp4(path: Path) -> Iterator[Any]:
    """(the container, its video). What FFmpeg raises becomes one line."""
    import av

    try:
        with av.open(str(path)) as container:
            require(len(container.streams.video) > 0, f"{path}: holds no video")
            yield container, container.streams.video[0]
    except (av.error.FFmpegError, OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"{path}: not an MP4, or a damaged one ({reason})") from error


def _open_mp4(path: Path, max_frames: int) -> Clip:
    with _mp4(path) as (_, stream):
        _check_size(path, stream.width, stream.height)
        fps = float(stream.average_rate or 15)
        seconds = float(stream.duration * stream.time_base) if stream.duration else 0.0
        count = stream.frames or round(seconds * fps)

    def frames() -> Iterator[np.ndarray]:
        size = None
        with _mp4(path) as (container, video):
            video.thread_type = "AUTO"
            for frame in islice(container.decode(video), max_frames or None):
                _check_size(path, frame.width, frame.height)
                size = size or (frame.width, frame.height)
                require(
                    size == (frame.width, frame.height), f"{path}: its frames are not of one size"
                )
                # Phones film lying down and say in the header how the picture is to be turned, in
                # degrees anticlockwise.
                upright = np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90))
                yield np.ascontiguousarray(upright)

    return Clip(path, fps, min(count, max_frames or count), frames)


# -- sound -----------------------------------------------------------------------------------------


def has_sound(path: Path) -> bool:
    """Whether the clip has a sound track. No GIF has."""
    if path.suffix.lower() != ".mp4":
        return False
    with _mp4(path) as (container, _):
        return len(container.streams.audio) > 0


def copy_sound(source: Path, clip: Path, seconds: float) -> None:
    """Copy the sound tracks of the MP4 `source`, up to `seconds`, into the MP4 `clip`.

    The packets are copied as they are: nothing is decoded, and nothing is lost. `clip` is replaced
    as a whole or not at all. Raises ConfigError where the tracks do not fit into an MP4.
    """
    import av

    temporary = clip.with_name(f".{clip.name}.{os.getpid()}.sound.tmp")
    try:
        with (
            _mp4(source) as (sounding, video),
            av.open(str(clip)) as silent,
            av.open(str(temporary), mode="w", format="mp4") as out,
        ):
            picture = silent.streams.video[0]
            tracks = {picture: out.add_stream_from_template(picture)}
            tracks |= {
                track: out.add_stream_from_template(track) for track in sounding.streams.audio
            }
            start = float((video.start_time or 0) * video.time_base)
            sound = _shifted(sounding.demux(*sounding.streams.audio), start, seconds)
            # Sound and pictures alternate in time, as a player reads them.
            for _, packet in heapq.merge(
                _timed(silent.demux(picture)), sound, key=lambda one: one[0]
            ):
                packet.stream = tracks[packet.stream]
                out.mux(packet)
        temporary.replace(clip)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def _timed(packets: Iterator[Any]) -> Iterator[tuple[float, Any]]:
    """(when it is decoded, the packet); FFmpeg's last packet is empty and has no time."""
    for packet in packets:
        if packet.dts is not None:
            yield float(packet.dts * packet.time_base), packet


def _shifted(packets: Iterator[Any], start: float, seconds: float) -> Iterator[tuple[float, Any]]:
    """The packets that are heard between `start` and `start + seconds`, moved to begin at 0."""
    for at, packet in _timed(packets):
        offset = round(start / float(packet.time_base))
        if at >= start + seconds:
            continue
        packet.dts -= offset
        packet.pts = None if packet.pts is None else packet.pts - offset
        yield at - start, packet
