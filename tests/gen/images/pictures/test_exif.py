"""Tests that pictures are turned upright by their EXIF data, also where the data are damaged."""

import struct
from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageOps

from genray.gen.images.pictures import (
    DATA_FORMATS,
    read_picture,
)
from tests.helpers.pictures import HEIGHT, WIDTH, image, saved, smooth


@pytest.mark.parametrize("form", ["PNG", "WEBP", "JPEG"])
def test_read_picture_turns_by_exif(form: str):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright: turn by a quarter, clockwise
    picture = read_picture(saved(image(), form, exif=exif, quality=98))
    assert picture.rgb.shape == (WIDTH, HEIGHT, 3)
    assert np.abs(picture.rgb.astype(int) - np.rot90(smooth(), -1)).mean() < 4


def test_read_picture_ignores_damaged_exif():
    content = saved(image(), "PNG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff nonsense")
    assert np.array_equal(read_picture(content).rgb, smooth())


SIX = (0x0112, 3, 1, struct.pack(">HH", 6, 0))
"""EXIF's Orientation as a SHORT: turn the picture by 90 degrees clockwise."""


def exif(*entries: tuple[int, int, int, bytes], count: int | None = None) -> bytes:
    """Return an EXIF block, big-endian. IFD0 contains (tag, type, number, four bytes of value)."""
    block = b"Exif\0\0MM\0*" + struct.pack(">IH", 8, len(entries) if count is None else count)
    return (
        block + b"".join(struct.pack(">HHI", *entry[:3]) + entry[3] for entry in entries) + bytes(4)
    )


DAMAGED_EXIF = {
    "a width that is text": exif(SIX, (0x0101, 2, 3, b"12\0\0")),
    "a resolution that is text": exif((0x011A, 2, 3, b"72\0\0"), SIX),
    "an orientation that is text": exif((0x0112, 2, 2, b"6\0\0\0")),
    "two orientations": exif((0x0112, 3, 2, b"\0\6\0\6")),
    "fewer entries than it says": exif(SIX, count=9),
    "an unknown type": exif(SIX, (0x9999, 99, 1, bytes(4))),
    "values beyond its end": exif(SIX, (0x010F, 2, 0xFFFFFFFF, struct.pack(">I", 50))),
    "a sub-directory that is itself": exif(SIX, (0x8769, 4, 1, struct.pack(">I", 8))),
}


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("kind", DAMAGED_EXIF)
def test_read_picture_with_damaged_exif_keeps_the_orientation(kind, form):
    read = read_picture(saved(image(), form, exif=DAMAGED_EXIF[kind]))
    np.testing.assert_allclose(read.rgb, np.rot90(smooth(), -1), atol=60)
    assert read.rgb.shape == (WIDTH, HEIGHT, 3)


@pytest.mark.parametrize(
    "block", [b"Exif\0\0MM\0*\0", b"Exif\0\0" + b"x" * 40, exif((0x0112, 3, 1, b"\0\x63\0\0"))]
)
def test_read_picture_with_an_unreadable_orientation_keeps_the_pixels(block):
    assert read_picture(saved(image(), "JPEG", exif=block)).rgb.shape == (HEIGHT, WIDTH, 3)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "TIFF"])
def test_read_picture_applies_every_orientation_once(orientation, form):
    tags = Image.Exif()
    tags[0x0112] = orientation
    content = saved(image(), form, exif=tags)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(BytesIO(content))).convert("RGB"))
    np.testing.assert_array_equal(read_picture(content, formats=DATA_FORMATS).rgb, expected)
