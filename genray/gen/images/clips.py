"""Reads clips frame by frame from GIF or MP4, and copies the sound of one MP4 into another MP4.

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
"""If the exact frame rate of a GIF would give more frames than this, a lower rate is used."""
_GIF_ERRORS = (OSError, SyntaxError, ValueError, EOFError, IndexError)


@dataclass(frozen=True)
class Clip:
    """A clip whose frames are decoded one by one, each time the clip is iterated over.

    Only a few frames are in memory at a time. Iterating raises ConfigError for a damaged file.
    """

    path: Path
    fps: float
    """Frames per second."""
    count: int
    """Number of frames; for an MP4 the number in its header, 0 if the header has none."""
    _open: Callable[[], Iterator[np.ndarray]]

    def __iter__(self) -> Iterator[np.ndarray]:
        return self._open()


def is_clip(path: Path) -> bool:
    """Return whether the path's suffix is .gif or .mp4, in any case."""
    return path.suffix.lower() in SUFFIXES


def read_clip(path: Path, *, max_frames: int = 0) -> Clip:
    """Open a GIF or an MP4. Longer frames of a GIF are repeated, to give a constant frame rate.

    `max_frames`: the clip ends after this many frames; 0: no limit. The size of the frames is
    checked before decoding. Raises ConfigError, one line, for a file that is missing, damaged or
    not a clip, or frames that are too small or too large.
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
    """Yield each stored frame and its duration in ms, at most `max_frames` frames (0: all)."""
    from PIL import Image, ImageSequence

    try:
        with Image.open(path, formats=("GIF",)) as image:
            _check_size(path, *image.size)
            for frame in islice(ImageSequence.Iterator(image), max_frames or None):
                # As in browsers: 0 ms means 100 ms, and the shortest duration is 20 ms.
                lasts = max(20, int(frame.info.get("duration", 100)) or 100)
                yield np.asarray(frame.convert("RGB")).copy(), lasts
    except (Image.DecompressionBombError, *_GIF_ERRORS) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(f"{path}: not a GIF, or a damaged one ({reason})") from error


def _open_gif(path: Path, max_frames: int) -> Clip:
    lasts = [each for _, each in _gif_frames(path, max_frames)]
    tick = _tick(lasts)
    # The times at which frames end are rounded, not the durations, so that rounding errors do not
    # add up.
    ends = np.cumsum(lasts)
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
    """Return the duration of one frame in ms at a constant rate; longer frames are repeated.

    The tick is the greatest common divisor of all durations, or the shortest duration if the
    divisor would give more than MAX_REPEATED frames. It is at least 20 ms, the limit of browsers.
    """
    tick = max(20, math.gcd(*lasts))
    return tick if sum(lasts) / tick <= MAX_REPEATED else min(lasts)


# -- MP4 -------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _mp4(path: Path) -> Iterator[Any]:
    """Open an MP4, and yield its container and video stream.

    FFmpeg's errors, also inside the context, become a ConfigError of one line.
    """
    import av

    try:
        with av.open(str(path)) as container:
            require(
                len(container.streams.video) > 0, f"{path}: has no video; give a clip with pictures"
            )
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
                    size == (frame.width, frame.height),
                    f"{path}: its frames have several sizes; give a clip of one size",
                )
                # Phones store rotated frames; `frame.rotation` is in degrees anticlockwise.
                upright = np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90))
                yield np.ascontiguousarray(upright)

    return Clip(path, fps, min(count, max_frames or count), frames)


# -- sound -----------------------------------------------------------------------------------------


def has_sound(path: Path) -> bool:
    """Return whether the clip has a sound track; a GIF never has one."""
    if path.suffix.lower() != ".mp4":
        return False
    with _mp4(path) as (container, _):
        return len(container.streams.audio) > 0


def copy_sound(source: Path, clip: Path, seconds: float) -> None:
    """Copy the sound tracks of the MP4 `source`, up to `seconds`, into the MP4 `clip`.

    The packets are copied without decoding, so there is no loss. `clip` is replaced atomically.
    Raises ConfigError when a file is damaged, or an MP4 cannot contain the tracks.
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
            # Packets of sound and video are interleaved by time, as players expect.
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
    """Yield the decoding time in seconds and the packet, for each packet; skips FFmpeg's last
    packet, which is empty.
    """
    for packet in packets:
        if packet.dts is not None:
            yield float(packet.dts * packet.time_base), packet


def _shifted(packets: Iterator[Any], start: float, seconds: float) -> Iterator[tuple[float, Any]]:
    """Yield the packets before the time `start + seconds`, with `start` subtracted from the times.

    `start`: the time of the first video frame in seconds.
    """
    for at, packet in _timed(packets):
        offset = round(start / float(packet.time_base))
        if at >= start + seconds:
            continue
        packet.dts -= offset
        packet.pts = None if packet.pts is None else packet.pts - offset
        yield at - start, packet
