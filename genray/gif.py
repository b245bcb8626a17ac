"""Writes GIFs frame by frame, so that a long clip needs the memory of only a few frames.

Frames are uint8 RGB [H, W, 3], all of one size. The whole clip has one palette, and its colours are
known only after the last frame. Until then, a `GifSpool` keeps the frames compressed in a file.
Shapes: H height, W width, K colours.
"""

import itertools
import struct
import zlib
from collections.abc import Iterator
from typing import IO

import numpy as np
from PIL import GifImagePlugin, Image

TRANSPARENT = 255
"""Palette index of pixels that a frame leaves unchanged; 255 colours remain."""
LONGEST = 0xFFFF
"""Longest duration of a frame in hundredths of a second: the field in a GIF has 16 bits."""


class GifSpool:
    """Collects frames for a GIF: `add` each frame, then `write` the file."""

    def __init__(self, stream: IO[bytes]):
        """`stream` stores the compressed frames: a temporary file, open for writing and reading."""
        self._stream = stream
        # Offset and length in bytes, in `stream`, of each frame that differs from the previous one.
        self._places: list[tuple[int, int]] = []
        self._begins: list[int] = []  # The number in the clip of each of these frames.
        self._seen = np.zeros(1 << 24, bool)  # Whether a colour occurs.
        self._last: np.ndarray | None = None
        self._shape: tuple[int, ...] = ()
        self._count = 0

    def add(self, frame: np.ndarray) -> None:
        """Add one frame. A frame equal to the previous one extends the previous frame's duration.

        Raises OSError.
        """
        if self._last is None or not np.array_equal(frame, self._last):
            self._seen[_pack(frame)] = True
            data = zlib.compress(frame.tobytes(), 1)
            self._places.append((self._stream.tell(), len(data)))
            self._stream.write(data)
            self._begins.append(self._count)
            self._last, self._shape = frame.copy(), frame.shape
        self._count += 1

    def write(self, out: IO[bytes], fps: float, scale: int) -> None:
        """Write the looping GIF, each pixel enlarged `scale` times. Raises OSError."""
        palette_K3, index_of = self._palette()
        height, width = (size * scale for size in self._shape[:2])
        out.write(_header(width, height, palette_K3))
        # The times at which frames begin are in hundredths of a second, as in a GIF. These times
        # are rounded, and not the durations, so that no error accumulates.
        times = [round(number * 100 / fps) for number in [*self._begins, self._count]]
        shown: np.ndarray | None = None
        for number, (begin, end) in enumerate(itertools.pairwise(times)):
            index = index_of[_pack(self._frame(number))]
            left = end - begin
            # A duration that is too long for one image is divided among several.
            while left > LONGEST:
                out.writelines(_image(index, shown, LONGEST, scale))
                shown, left = index, left - LONGEST
            out.writelines(_image(index, shown, left, scale))
            shown = index
        out.write(b";")

    def _frame(self, number: int) -> np.ndarray:
        """Read a stored frame, uint8 [H, W, 3]."""
        offset, size = self._places[number]
        self._stream.seek(offset)
        return np.frombuffer(zlib.decompress(self._stream.read(size)), np.uint8).reshape(
            self._shape
        )

    def _palette(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the palette, uint8 [K ≤ 255, 3], and each packed colour's index, uint8 [2²⁴]."""
        packed_K = np.flatnonzero(self._seen)
        colours_K3 = np.stack([packed_K >> 16, packed_K >> 8 & 255, packed_K & 255], axis=1).astype(
            np.uint8
        )
        index_of = np.zeros(1 << 24, np.uint8)
        if len(colours_K3) <= 255:
            index_of[packed_K] = np.arange(len(colours_K3))
            return colours_K3, index_of
        # The median cut gets the pixels of up to 16 frames spread over the clip, so that frequent
        # colours get more palette entries.
        spread = np.linspace(0, len(self._places) - 1, min(16, len(self._places)))
        some = np.concatenate([self._frame(round(at)) for at in spread])
        quantized = Image.fromarray(some).quantize(
            255, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE
        )
        palette = quantized.getpalette()
        assert palette is not None
        for part in np.array_split(np.arange(len(packed_K)), -(-len(packed_K) // 65_536)):
            every = Image.fromarray(colours_K3[None, part]).quantize(
                palette=quantized, dither=Image.Dither.NONE
            )
            index_of[packed_K[part]] = np.asarray(every)[0]
        return np.array(palette, np.uint8).reshape(-1, 3)[:255], index_of


def _header(width: int, height: int, palette_K3: np.ndarray) -> bytes:
    """Return the header of the file: size, a palette of 256 entries, and the extension for
    looping.
    """
    table = palette_K3.tobytes().ljust(3 * 256, b"\0")
    loop_for_ever = b"!\xff\x0bNETSCAPE2.0\x03\x01\x00\x00\x00"
    return b"GIF89a" + struct.pack("<HHBBB", width, height, 0xF7, 0, 0) + table + loop_for_ever


def _image(
    index_HW: np.ndarray, before_HW: np.ndarray | None, hundredths: int, scale: int
) -> Iterator[bytes]:
    """Encode one frame: the rectangle that changed, with unchanged pixels transparent."""
    top, bottom, left, right = 0, index_HW.shape[0], 0, index_HW.shape[1]
    if before_HW is not None:
        changed_HW = index_HW != before_HW
        rows, columns = np.flatnonzero(changed_HW.any(1)), np.flatnonzero(changed_HW.any(0))
        # Two colours can share an index, so a new frame can have no visible change. Such a frame is
        # written as one pixel.
        top, bottom = (rows[0], rows[-1] + 1) if len(rows) else (0, 1)
        left, right = (columns[0], columns[-1] + 1) if len(columns) else (0, 1)
        index_HW = np.where(changed_HW, index_HW, TRANSPARENT).astype(np.uint8)
    part = index_HW[top:bottom, left:right].repeat(scale, axis=0).repeat(scale, axis=1)
    image = Image.fromarray(part, mode="P")
    yield from GifImagePlugin.getdata(
        image,
        (int(left) * scale, int(top) * scale),
        duration=10 * hundredths,
        disposal=1,  # The next frame is drawn over this one.
        transparency=TRANSPARENT,
    )


def _pack(frame: np.ndarray) -> np.ndarray:
    """Pack each pixel into one number 0xRRGGBB."""
    red, green, blue = np.moveaxis(frame.astype(np.uint32), 2, 0)
    return red << 16 | green << 8 | blue
