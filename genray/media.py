"""Frames as files to look at: GIF, MP4, and a sheet of stills.

Frames are uint8 RGB [H, W, 3], all of one size. Every file is written whole or not at all.
Shapes: N frames, H height, W width, K colours.
"""

import contextlib
import io
import os
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import cast

import numpy as np
from PIL import Image

from genray.errors import ConfigError, ResourceError, require

SUFFIXES = (".gif", ".mp4")


def check_writable(path: Path) -> None:
    """Raises unless a file can be written at `path`, an --out: to be asked before any work is done for it.

    ConfigError for a folder, ResourceError for a place that cannot be written. Folders above `path` need not exist;
    nothing is created.
    """
    require(not path.is_dir(), f"--out {path}: a folder; name a file in it, e.g. {path / ('out' + path.suffix)}")
    above = path.absolute().parent
    while not os.path.lexists(above):
        above = above.parent
    if not (above.is_dir() and os.access(above, os.W_OK | os.X_OK)):
        why = f"{above} is not a folder" if not above.is_dir() else f"no permission in {above}"
        raise ResourceError(f"--out {path}: cannot be written ({why}); choose another place")


def check_clip_path(path: Path) -> None:
    """Raises unless `write_clip` can write to `path`, an --out: to be asked before an episode is played for it."""
    _check_clip_suffix(path)
    check_writable(path)


def _check_clip_suffix(path: Path) -> None:
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"{path}: a clip's name must end in {' or '.join(SUFFIXES)}, e.g. {path.stem or 'clip'}.gif")


def write_clip(path: Path, frames: Sequence[np.ndarray], fps: float = 15, scale: int = 2) -> Path:
    """Write a GIF or an MP4, by the path's suffix.

    15 frames/s is Atari's own speed when an agent step is 4 of its 60 frames; `scale` enlarges each pixel to a square.
    Raises ConfigError for another suffix, ResourceError when the file cannot be written.
    """
    _check_clip_suffix(path)
    write = write_gif if path.suffix.lower() == ".gif" else write_mp4
    return write(path, frames, fps, scale)


def write_gif(path: Path, frames: Sequence[np.ndarray], fps: float = 15, scale: int = 2) -> Path:
    """Write a looping GIF: see `encode_gif`."""
    return write_whole(path, encode_gif(frames, fps, scale, path))


def encode_gif(frames: Sequence[np.ndarray], fps: float = 15, scale: int = 2, path: Path = Path("clip.gif")) -> bytes:
    """A looping GIF with one palette: exact where the clip has at most 255 colours, as an Atari game's has.

    A frame equal to the one before only lengthens it. `path` is what errors call it.
    """
    _check(path, frames, scale)
    # Browsers slow anything above 50 frames/s down to 10.
    require(0 < fps <= 50, f"{path}: a GIF plays 1 to 50 frames/s, not {fps:g}; choose e.g. 15, or an .mp4")
    palette_K3, index_of = _palette(frames)
    images: list[Image.Image] = []
    begins: list[int] = []  # hundredths of a second, a GIF's clock; rounded as times, not durations, so none drifts
    shown: np.ndarray | None = None
    for number, frame in enumerate(frames):
        if shown is None or not np.array_equal(frame, shown):
            image = Image.fromarray(_enlarge(index_of[_pack(frame)], scale), mode="P")
            image.putpalette(palette_K3.tobytes())
            images.append(image)
            begins.append(round(number * 100 / fps))
            shown = frame
    ends = [*begins[1:], round(len(frames) * 100 / fps)]
    buffer = io.BytesIO()
    images[0].save(
        buffer,
        format="GIF",
        save_all=True,
        append_images=images[1:],
        duration=[10 * (end - begin) for begin, end in zip(begins, ends, strict=True)],
        loop=0,
        optimize=False,  # would renumber each frame's palette and lose the common one
        disposal=1,  # each frame paints over the last, so Pillow stores only the rectangle that changed
    )
    return buffer.getvalue()


def write_mp4(path: Path, frames: Sequence[np.ndarray], fps: float = 15, scale: int = 2) -> Path:
    """Write an MP4 that every player shows: H.264 (MPEG-4 part 2 where PyAV lacks it), 4:2:0 colour.

    4:2:0 keeps one colour for 2x2 pixels: `scale=2` gives each of the game's pixels its own. Odd sizes gain an edge.
    """
    import av

    _check(path, frames, scale)
    require(fps > 0, f"{path}: frames/s must be > 0, not {fps:g}; choose e.g. 15")
    codec, options = "mpeg4", {"qscale": "3"}
    if "libx264" in av.codecs_available:
        codec, options = "libx264", {"crf": "18", "preset": "medium"}
    buffer = io.BytesIO()
    with av.open(buffer, mode="w", format="mp4") as container:
        rate = Fraction(fps).limit_denominator(1000)
        stream = cast(av.VideoStream, container.add_stream(codec, rate=rate, options=options))
        height, width = (size * scale for size in frames[0].shape[:2])
        stream.height, stream.width = height + height % 2, width + width % 2
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            even = np.pad(_enlarge(frame, scale), ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
            container.mux(stream.encode(av.VideoFrame.from_ndarray(even, format="rgb24")))
        container.mux(stream.encode())
    return write_whole(path, buffer.getvalue())


def check_png_path(path: Path) -> None:
    """Raises unless `write_png` can write to `path`, an --out: to be asked before minutes of work are spent."""
    _check_png_suffix(path)
    check_writable(path)


def _check_png_suffix(path: Path) -> None:
    require(path.suffix.lower() == ".png", f"{path}: the name must end in .png, e.g. {path.stem or 'out'}.png")


def write_png(path: Path, image: np.ndarray, scale: int = 1) -> Path:
    """Write uint8 RGB [H, W, 3] as a PNG, each pixel enlarged to a square of `scale`. ConfigError for another suffix."""
    _check_png_suffix(path)
    _check(path, [image], scale)
    buffer = io.BytesIO()
    Image.fromarray(_enlarge(image, scale)).save(buffer, format="PNG")
    return write_whole(path, buffer.getvalue())


def contact_sheet(frames: Sequence[np.ndarray], columns: int, gap: int = 2) -> np.ndarray:
    """All frames in rows of `columns`, `gap` black pixels between; uint8 RGB [rows·(H + gap) − gap, …, 3]."""
    _check(Path("contact sheet"), frames, 1)
    require(columns >= 1, f"columns {columns}: must be ≥ 1")
    columns = min(columns, len(frames))
    rows = -(-len(frames) // columns)
    height, width = (size + gap for size in frames[0].shape[:2])
    sheet = np.zeros((rows * height - gap, columns * width - gap, 3), np.uint8)
    for number, frame in enumerate(frames):
        top, left = number // columns * height, number % columns * width
        sheet[top : top + height - gap, left : left + width - gap] = frame
    return sheet


def _check(path: Path, frames: Sequence[np.ndarray], scale: int) -> None:
    require(len(frames) > 0, f"{path}: there are no frames to write")
    require(scale >= 1, f"{path}: scale {scale} must be a whole number ≥ 1, e.g. 2")
    for frame in frames:
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or frame.shape != frames[0].shape:
            raise ValueError(f"frames must be uint8 [H, W, 3] of one size, not {frame.dtype} {frame.shape}")


def _palette(frames: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """(palette uint8 [K, 3] with K ≤ 255, the palette's index of every packed colour uint8 [2²⁴]).

    255, not 256: Pillow needs a free index to mark the pixels that a frame leaves as they were.
    """
    seen = np.zeros(1 << 24, bool)
    for frame in frames:
        seen[_pack(frame)] = True
    packed_K = np.flatnonzero(seen)
    colours_K3 = np.stack([packed_K >> 16, packed_K >> 8 & 255, packed_K & 255], axis=1).astype(np.uint8)
    index_of = np.zeros(1 << 24, np.uint8)
    if len(colours_K3) <= 255:
        index_of[packed_K] = np.arange(len(colours_K3))
        return colours_K3, index_of
    # Median cut of up to 16 frames spread over the clip, so that common colours get their due.
    some = [frames[round(at)] for at in np.linspace(0, len(frames) - 1, min(16, len(frames)))]
    quantized = Image.fromarray(np.concatenate(some)).quantize(255, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    every = Image.fromarray(colours_K3[None]).quantize(palette=quantized, dither=Image.Dither.NONE)
    index_of[packed_K] = np.asarray(every)[0]
    palette = quantized.getpalette()
    assert palette is not None
    return np.array(palette, np.uint8).reshape(-1, 3)[:255], index_of


def _pack(frame: np.ndarray) -> np.ndarray:
    """Each pixel as one number 0xRRGGBB."""
    red, green, blue = np.moveaxis(frame.astype(np.uint32), 2, 0)
    return red << 16 | green << 8 | blue


def _enlarge(image: np.ndarray, scale: int) -> np.ndarray:
    return image.repeat(scale, axis=0).repeat(scale, axis=1)


def write_whole(path: Path, content: bytes) -> Path:
    """Write a file, and the folders above it, whole or not at all. Raises ResourceError when it cannot be written."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError as error:
        raise ResourceError(f"{path}: cannot be written ({error.strerror}); choose another place") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
    return path
