"""Reads pictures from JPEG, PNG and WebP files; the sizes are checked before decoding.

Shapes: H height, W width.
"""

import io
import struct
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

from genray.gen.images.pictures.decoding import to_srgb
from genray.gen.images.pictures.errors import DAMAGED, PictureError
from genray.gen.images.pictures.exif import upright
from genray.gen.images.pictures.parts import excess_parts

MAX_PIXELS = 50_000_000
"""Largest number of pixels to read (150 MB as RGB), checked in the header before decoding."""
LEAST_SIDE = 8
"""Shortest side of a picture named by a user, in pixels."""
MAX_ASPECT = 20
"""Largest ratio of the sides of a picture named by a user."""
STILL_FORMATS = ("JPEG", "PNG", "WEBP")
"""Formats of pictures named by a user (Pillow's names)."""
DATA_FORMATS = (*STILL_FORMATS, "BMP", "GIF", "PPM", "TIFF")
"""Formats of pictures in a data set. Of a file with several frames, the first frame is read."""
_FOREIGN = {
    b"GIF8": "a GIF", b"BM": "a BMP", b"II*\0": "a TIFF", b"MM\0*": "a TIFF", b"%PDF": "a PDF",
    b"\0\0\0": "a HEIC, AVIF or MP4", b"<svg": "an SVG", b"<?xm": "an SVG or other XML",
}  # fmt: skip
"""Descriptions of files by their first bytes, for messages about files that cannot be read."""
_NEEDED_CHUNKS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
"""The chunks of a PNG on which its pixels depend."""


@dataclass(frozen=True)
class Picture:
    """A still picture, upright, in sRGB."""

    rgb: np.ndarray
    """uint8 [H, W, 3]"""
    alpha: np.ndarray | None
    """uint8 [H, W]; None if the file has no alpha channel."""
    name: str


def read_picture(
    source: Path | bytes,
    *,
    name: str = "",
    max_pixels: int = MAX_PIXELS,
    formats: tuple[str, ...] = STILL_FORMATS,
    any_shape: bool = False,
) -> Picture:
    """Read a picture, turn it upright by its EXIF data, and convert it to sRGB.

    All code in this project reads pictures with this function. A picture with damaged metadata
    (EXIF, colour profiles, a PNG's text) is still read. CMYK, palettes, grey, 16 bits a channel and
    floating-point grey in 0..1 become 8-bit RGB. Of a camera's multi-picture JPEG, the first
    picture is read.

    Parameters:
        name: the picture's name in error messages; by default its path.
        max_pixels: the largest number of pixels to decode, checked in the header.
        formats: Pillow's names of the accepted formats.
        any_shape: also accept sides below 8 pixels, sides with a ratio above 20, animations, of
            which the first frame is read, and files with very many parts; a data set may contain
            such pictures.

    Raises PictureError, one line that begins with `name`, for a file that is missing, not a
    picture, damaged, truncated, too large, or of a shape that `any_shape` would accept. Raises
    ConfigError for floating-point pixels that are NaN or outside 0..1.
    """
    name = name or (str(source) if isinstance(source, Path) else "the picture")
    too_many = f"more pixels than the limit of {max_pixels:,}; give a smaller picture"
    with _open_file(source, name, max_pixels) as file, warnings.catch_warnings(action="ignore"):
        if not any_shape:
            excess = excess_parts(file.read())
            file.seek(0)
            _readable(not excess, f"{name}: {excess}; save the picture again with another program")
        try:
            opened = _open_image(file, formats)
        except Image.DecompressionBombError as error:
            raise PictureError(f"{name}: {too_many}") from error
        except DAMAGED as error:
            raise PictureError(f"{name}: {_foreign(file)}; give a JPEG, PNG or WebP") from error
        with opened:
            _check_header(opened, name, max_pixels, too_many, any_shape)
            try:
                opened.load()
                rgb, alpha = to_srgb(upright(opened), name)
            except DAMAGED as error:
                reason = str(error).splitlines()[0] if str(error) else type(error).__name__
                raise PictureError(f"{name}: truncated or damaged ({reason})") from error
    return Picture(rgb, alpha, Path(name).name)


def _open_image(file: BinaryIO, formats: tuple[str, ...]) -> Image.Image:
    """Open the image and read its header; a PNG with damaged metadata is opened without the
    metadata.
    """
    try:
        return Image.open(file, formats=formats)
    except DAMAGED:
        # If a PNG's text or colour profile is damaged, the pixels can still be read.
        bare = _bare_png(file)
        if bare is None:
            raise
        return Image.open(bare, formats=formats)


def _bare_png(file: BinaryIO) -> BinaryIO | None:
    """Return the PNG in `file` with only the chunks in `_NEEDED_CHUNKS`; None if not a PNG."""
    file.seek(0)
    content = file.read()
    if not content.startswith(b"\x89PNG\r\n\x1a\n"):
        return None
    kept, at = [content[:8]], 8
    while at + 8 <= len(content):
        length, kind = struct.unpack(">I4s", content[at : at + 8])
        if kind in _NEEDED_CHUNKS:
            kept.append(content[at : at + 12 + length])
        at += 12 + length
    return io.BytesIO(b"".join(kept))


def _open_file(source: Path | bytes, name: str, max_pixels: int) -> BinaryIO:
    if isinstance(source, Path):
        _readable(source.exists(), f"{name}: no such file")
        _readable(source.is_file(), f"{name}: not a file; name a JPEG, PNG or WebP")
    size = len(source) if isinstance(source, bytes) else source.stat().st_size
    _readable(size > 0, f"{name}: an empty file; give a JPEG, PNG or WebP")
    # Uncompressed 16-bit RGBA, the largest format, has 8 bytes a pixel. The size of the file is
    # limited because Pillow reads a whole WebP into memory when it opens the file.
    most = 8 * max_pixels + (16 << 20)
    _readable(
        size <= most,
        f"{name}: a file of {size / 1e6:,.0f} MB; at most {most / 1e6:,.0f} MB are read",
    )
    try:
        return io.BytesIO(source) if isinstance(source, bytes) else source.open("rb")
    except OSError as error:
        raise PictureError(f"{name}: cannot be read ({error.strerror})") from error


def _foreign(file: BinaryIO) -> str:
    """Return a guess of the file's type from its first bytes, for an error message."""
    file.seek(0)
    start = file.read(16)
    for magic, what in _FOREIGN.items():
        if start.startswith(magic):
            return f"{what} file"
    known = start.startswith((b"\x89PNG", b"\xff\xd8\xff")) or (
        start[:4] == b"RIFF" and start[8:12] == b"WEBP"
    )
    return "truncated or damaged" if known else "not an image"


def _check_header(
    image: Image.Image, name: str, max_pixels: int, too_many: str, any_shape: bool
) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise PictureError(f"{name}: {width}x{height} are {too_many}")
    if any_shape:
        return
    _readable(
        min(width, height) >= LEAST_SIDE,
        f"{name}: {width}x{height} pixels; each side needs at least {LEAST_SIDE}",
    )
    _readable(
        max(width, height) <= MAX_ASPECT * min(width, height),
        f"{name}: {width}x{height} pixels; one side may be at most {MAX_ASPECT} times the other: "
        "crop the picture",
    )
    # A multi-picture JPEG (MPO) contains a preview or a stereo pair, not an animation.
    if image.format in ("PNG", "WEBP") and getattr(image, "is_animated", False):
        frames = getattr(image, "n_frames", 2)
        raise PictureError(
            f"{name}: animated ({frames} frames); give a still picture, or save one of its frames"
        )


def _readable(condition: bool, message: str) -> None:
    if not condition:
        raise PictureError(message)
