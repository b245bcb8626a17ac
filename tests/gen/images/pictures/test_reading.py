"""Tests that bad files end in one line, before they cost memory."""

import io
import re
import struct
import time
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from genray.errors import ConfigError
from genray.gen.images.pictures import read_picture
from genray.gen.images.pictures.errors import PictureError
from genray.gen.images.pictures.parts import MAX_SCANS
from tests.helpers.pictures import HEIGHT, WIDTH, chunk, image, png, saved, smooth


def frames(form: str) -> bytes:
    return saved(
        image(),
        form,
        save_all=True,
        append_images=[Image.new("RGB", (WIDTH, HEIGHT), c) for c in ("red", "blue")],
    )


BAD = {
    "empty": (lambda: b"", "an empty file"),
    "text": (lambda: b"hello, I am a picture", "not an image; give a JPEG, PNG or WebP"),
    "gif": (lambda: saved(image(), "GIF"), "a GIF file; give"),
    "tiff": (lambda: saved(image(), "TIFF"), "a TIFF file; give"),
    "png header": (lambda: saved(image(), "PNG")[:20], "truncated or damaged"),
    "half a png": (
        lambda: png(WIDTH, HEIGHT, pixels=bytes((3 * WIDTH + 1) * HEIGHT))[:50],
        "truncated or damaged",
    ),
    "half a jpeg": (lambda: saved(image(), "JPEG")[:-200], "truncated or damaged"),
    "half a webp": (lambda: saved(image(), "WEBP")[:-50], "truncated or damaged"),
    "animated png": (lambda: frames("PNG"), r"animated \(3 frames\)"),
    "animated webp": (lambda: frames("WEBP"), r"animated \(3 frames\)"),
    "one pixel": (lambda: png(1, 1, pixels=bytes(4)), "1x1 pixels; each side needs at least 8"),
    "a line": (lambda: saved(Image.new("RGB", (400, 7)), "PNG"), "400x7 pixels; each side"),
    "a ribbon": (
        lambda: saved(Image.new("RGB", (161, 8)), "JPEG"),
        "161x8 pixels; one side may be at most 20 times",
    ),
    "bomb": (
        lambda: png(60_000, 60_000, pixels=bytes(99)),
        "more pixels than the limit of 50,000,000",
    ),
    "small bomb": (
        lambda: png(8_000, 8_000, pixels=bytes(99)),
        "8000x8000 are more pixels than the limit of 50,000,000",
    ),
    "no size": (lambda: png(0, 9), "truncated or damaged"),
}


@pytest.mark.parametrize("name", BAD)
def test_read_picture_reports_a_bad_file_in_one_line(name: str, tmp_path: Path):
    content, message = BAD[name][0](), BAD[name][1]
    path = tmp_path / "in.png"
    path.write_bytes(content)
    for source in (content, path):
        with pytest.raises(ConfigError, match=message) as caught:
            read_picture(source, name="in.png" if isinstance(source, bytes) else "")
        assert "\n" not in str(caught.value) and "in.png: " in str(caught.value)


def test_read_picture_refuses_too_many_pixels_before_decoding():
    """The header claims 7,001 x 7,200 pixels, which would be 151 MB; the file is a kilobyte."""
    content = png(7_001, 7_200, pixels=bytes(7_001 * 3 * 40))
    tracemalloc.start()
    try:
        with pytest.raises(ConfigError, match="limit of 50,000,000"):
            read_picture(content)
        assert tracemalloc.get_traced_memory()[1] < 5e6
    finally:
        tracemalloc.stop()
    with pytest.raises(ConfigError, match="limit of 900"):
        read_picture(saved(image(), "PNG"), max_pixels=900)


def test_read_picture_refuses_missing_files_and_folders(tmp_path: Path):
    with pytest.raises(ConfigError, match="none.png: no such file"):
        read_picture(tmp_path / "none.png")
    with pytest.raises(ConfigError, match="not a file"):
        read_picture(tmp_path)


def test_read_picture_of_a_png_with_a_damaged_text_keeps_the_pixels():
    content = saved(image(), "PNG")
    bad = chunk(b"tEXt", b"comment\0hello")[:-4] + b"????"  # a wrong checksum
    after_header = 8 + 25
    np.testing.assert_array_equal(
        read_picture(content[:after_header] + bad + content[after_header:]).rgb, smooth()
    )


def _progressive(scans: int) -> bytes:
    """Return a progressive JPEG whose last scan is repeated until there are `scans` of them."""
    made = io.BytesIO()
    Image.new("RGB", (64, 48), (90, 120, 30)).save(made, "JPEG", progressive=True)
    content = made.getvalue()
    starts = [found.start() for found in re.finditer(b"\xff\xda", content)]
    last = content[starts[-1] : -2]
    return content[:-2] + last * (scans - len(starts)) + content[-2:]


def test_read_picture_refuses_a_jpeg_with_very_many_scans():
    assert read_picture(_progressive(MAX_SCANS)).rgb.shape == (48, 64, 3)
    with pytest.raises(PictureError, match="a.jpg: more than 100 scans; save the picture again"):
        read_picture(_progressive(MAX_SCANS + 1), name="a.jpg")
    begin = time.process_time()
    with pytest.raises(PictureError, match="more than 100 scans"):
        read_picture(_progressive(45_000))
    assert time.process_time() - begin < 1


def test_read_picture_does_not_count_the_scans_of_an_embedded_preview():
    content = _progressive(10)
    preview = b"\xff\xe1" + (2 + 1200).to_bytes(2, "big") + b"\xff\xda\0\x02" * 300
    assert read_picture(content[:2] + preview + content[2:]).rgb.shape == (48, 64, 3)


def test_read_picture_refuses_a_png_with_very_many_chunks():
    made = io.BytesIO()
    Image.new("L", (16, 16)).save(made, "PNG")
    content = made.getvalue()
    extra = struct.pack(">I4sI", 0, b"tEXt", zlib.crc32(b"tEXt"))
    assert read_picture(content[:33] + extra * 10 + content[33:]).rgb.shape == (16, 16, 3)
    with pytest.raises(PictureError, match="more than 50,000 chunks"):
        read_picture(content[:33] + extra * 60_000 + content[33:])
