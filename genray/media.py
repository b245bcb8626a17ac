"""Writes frames as a GIF or an MP4, and images or sheets of frames as a PNG.

Frames are uint8 RGB [H, W, 3], all of one size. Every file is replaced atomically. Shapes: H
height, W width.
"""

import io
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import IO, cast

import numpy as np
from PIL import Image

from genray.errors import ConfigError, ResourceError, require
from genray.gif import GifSpool
from genray.runs.files import whole_file, write_whole

SUFFIXES = (".gif", ".mp4")


def check_writable(path: Path, option: str = "--out") -> None:
    """Check, before any work, that a file can be written at `path`, the value of `option`.

    Raises ConfigError for a directory, and ResourceError for a path that cannot be written. Parent
    directories need not exist; this function creates nothing.
    """
    require(
        not path.is_dir(),
        f"{option} {path}: a folder; name a file in it, e.g. {path / ('out' + path.suffix)}",
    )
    above = path.absolute().parent
    while not os.path.lexists(above):
        above = above.parent
    if not (above.is_dir() and os.access(above, os.W_OK | os.X_OK)):
        why = f"{above} is not a folder" if not above.is_dir() else f"no permission in {above}"
        raise ResourceError(f"{option} {path}: cannot be written ({why}); choose another place")


def check_clip_path(path: Path, option: str = "--out") -> None:
    """Check, before an episode is played, that `write_clip` can write to `path`, the value of
    `option`.

    Raises ConfigError or ResourceError.
    """
    _check_clip_suffix(path)
    check_writable(path, option)


def _check_clip_suffix(path: Path) -> None:
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(
            f"{path}: a clip's name must end in {' or '.join(SUFFIXES)}, e.g. "
            f"{path.stem or 'clip'}.gif"
        )


def write_clip(path: Path, frames: Iterable[np.ndarray], fps: float = 15, scale: int = 2) -> Path:
    """Write a GIF or an MP4, by the path's suffix.

    `frames` are consumed one by one, so that an iterator of frames needs the memory of only a few
    frames and, for an MP4, of the compressed file. 15 frames/s is Atari's own speed if an agent
    step is 4 of its 60 frames. Each pixel is enlarged `scale` times.

    Raises:
        ConfigError: another suffix, an impossible `fps` or `scale`, or no frames.
        ResourceError: the file cannot be written.
        ValueError: frames of several sizes, or not uint8 RGB.
    """
    _check_clip_suffix(path)
    write = write_gif if path.suffix.lower() == ".gif" else write_mp4
    return write(path, frames, fps, scale)


def write_gif(path: Path, frames: Iterable[np.ndarray], fps: float = 15, scale: int = 2) -> Path:
    """Write a looping GIF, as described for `encode_gif`. Raises the errors of `write_clip`."""
    _check_gif(path, fps, scale)
    # The frames are stored on the disk of the clip, and not in memory.
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = tempfile.TemporaryFile(dir=path.parent)  # noqa: SIM115 - closed below
    except OSError as error:
        raise _cannot_write(path, error) from error
    with stream as spool:
        whole = _spooled(path, frames, spool)
        with whole_file(path) as file:
            whole.write(file, fps, scale)
    return path


def encode_gif(
    frames: Iterable[np.ndarray], fps: float = 15, scale: int = 2, path: Path = Path("clip.gif")
) -> bytes:
    """Return the bytes of a looping GIF with one palette.

    The colours are exact if the clip has at most 255 of them, as in an Atari game. A frame equal to
    the previous one extends the previous frame's duration. Raises the errors of `write_clip`; their
    messages name `path`.
    """
    _check_gif(path, fps, scale)
    buffer = io.BytesIO()
    _spooled(path, frames, io.BytesIO()).write(buffer, fps, scale)
    return buffer.getvalue()


def _check_gif(path: Path, fps: float, scale: int) -> None:
    _check_scale(path, scale)
    # Browsers reduce any speed above 50 frames/s to 10 frames/s.
    require(
        0 < fps <= 50,
        f"{path}: a GIF needs > 0 and ≤ 50 frames/s, not {fps:g}; choose e.g. 15, or an .mp4",
    )


def _spooled(path: Path, frames: Iterable[np.ndarray], stream: IO[bytes]) -> GifSpool:
    """Store all frames in `stream`.

    An OSError of `stream` becomes a ResourceError; an OSError of the source of the frames does not
    change.
    """
    spool = GifSpool(stream)
    for frame in _checked(path, frames):
        try:
            spool.add(frame)
        except OSError as error:
            raise _cannot_write(path, error) from error
    return spool


def _cannot_write(path: Path, error: OSError) -> ResourceError:
    reason = error.strerror or str(error)
    return ResourceError(f"{path}: cannot be written ({reason}); choose another place")


def write_mp4(path: Path, frames: Iterable[np.ndarray], fps: float = 15, scale: int = 2) -> Path:
    """Write an MP4 that most players can show. Raises the errors of `write_clip`.

    The codec is H.264, or MPEG-4 part 2 if PyAV lacks H.264, with 4:2:0 colour. 4:2:0 stores one
    colour for 2x2 pixels; with `scale=2`, each original pixel keeps its own colour. An odd height
    or width is enlarged by one pixel.
    """
    import av

    _check_scale(path, scale)
    require(fps > 0, f"{path}: frames/s must be > 0, not {fps:g}; choose e.g. 15")
    codec, options = "mpeg4", {"qscale": "3"}
    if "libx264" in av.codecs_available:
        codec, options = "libx264", {"crf": "18", "preset": "medium"}
    # The file is encoded in memory, because PyAV hides the reason why a file cannot be written.
    buffer = io.BytesIO()
    with av.open(buffer, mode="w", format="mp4") as container:
        rate = Fraction(fps).limit_denominator(1000)
        stream = cast(av.VideoStream, container.add_stream(codec, rate=rate, options=options))
        stream.pix_fmt = "yuv420p"
        for number, frame in enumerate(_checked(path, frames)):
            height, width = (size * scale for size in frame.shape[:2])
            if number == 0:
                stream.height, stream.width = height + height % 2, width + width % 2
            even = np.pad(
                _enlarge(frame, scale), ((0, height % 2), (0, width % 2), (0, 0)), mode="edge"
            )
            container.mux(stream.encode(av.VideoFrame.from_ndarray(even, format="rgb24")))
        container.mux(stream.encode())
    return write_whole(path, buffer.getvalue())


def check_png_path(path: Path, option: str = "--out") -> None:
    """Check, before any work, that `write_png` can write to `path`, the value of `option`.

    Raises ConfigError or ResourceError.
    """
    _check_png_suffix(path)
    check_writable(path, option)


def _check_png_suffix(path: Path) -> None:
    require(
        path.suffix.lower() == ".png",
        f"{path}: the name must end in .png, e.g. {path.stem or 'out'}.png",
    )


def write_png(path: Path, image: np.ndarray, scale: int = 1) -> Path:
    """Write uint8 RGB [H, W, 3] as a PNG, each pixel enlarged `scale` times.

    Raises ConfigError for another suffix or a wrong `scale`, ResourceError if the file cannot be
    written, and ValueError for another shape or dtype.
    """
    _check_png_suffix(path)
    _check(path, [image], scale)
    buffer = io.BytesIO()
    Image.fromarray(_enlarge(image, scale)).save(buffer, format="PNG")
    return write_whole(path, buffer.getvalue())


def contact_sheet(frames: Sequence[np.ndarray], columns: int, gap: int = 2) -> np.ndarray:
    """Arrange all frames in rows of `columns` frames, with `gap` black pixels between them.

    Returns uint8 RGB [rows·(H + gap) − gap, columns·(W + gap) − gap, 3]. With fewer frames than
    `columns`, there are as many columns as frames. Raises ConfigError if there are no frames or no
    columns, and ValueError for frames of several sizes or another dtype.
    """
    _check(Path("contact sheet"), frames, 1)
    require(columns >= 1, f"columns {columns}: must be ≥ 1, e.g. 8")
    columns = min(columns, len(frames))
    rows = -(-len(frames) // columns)
    height, width = (size + gap for size in frames[0].shape[:2])
    sheet = np.zeros((rows * height - gap, columns * width - gap, 3), np.uint8)
    for number, frame in enumerate(frames):
        top, left = number // columns * height, number % columns * width
        sheet[top : top + height - gap, left : left + width - gap] = frame
    return sheet


def _check(path: Path, frames: Sequence[np.ndarray], scale: int) -> None:
    _check_scale(path, scale)
    for _ in _checked(path, frames):
        pass


def _check_scale(path: Path, scale: int) -> None:
    require(scale >= 1, f"{path}: scale {scale} must be a whole number ≥ 1, e.g. 2")


def _checked(path: Path, frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Yield the frames one by one.

    Raises ConfigError if there are none, and ValueError for a frame that is not uint8 [H, W, 3] or
    differs in shape from the first frame.
    """
    shape: tuple[int, ...] | None = None
    for frame in frames:
        shape = shape or frame.shape
        if (
            frame.dtype != np.uint8
            or frame.ndim != 3
            or frame.shape[2] != 3
            or frame.shape != shape
        ):
            raise ValueError(
                f"frames must be uint8 [H, W, 3] of one size, not {frame.dtype} {frame.shape}"
            )
        yield frame
    require(shape is not None, f"{path}: there are no frames to write; give at least one")


def _enlarge(image: np.ndarray, scale: int) -> np.ndarray:
    return image.repeat(scale, axis=0).repeat(scale, axis=1)
