"""Tests that pictures of every mode, depth and colour profile become 8-bit sRGB."""

import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from genray.gen.images.pictures import (
    read_picture,
)
from tests.helpers.pictures import HEIGHT, WIDTH, chunk, image, png, saved, smooth


@pytest.mark.parametrize(("form", "options", "error"), [
    ("PNG", {}, 0), ("WEBP", {"lossless": True}, 0), ("JPEG", {"quality": 95, "subsampling": 0}, 6)
])  # fmt: skip
def test_read_picture_reads_png_webp_and_jpeg(form: str, options: dict, error: int, tmp_path: Path):
    content = saved(image(), form, **options)
    (tmp_path / "a.bin").write_bytes(content)  # the content decides, not the name
    for source in (content, tmp_path / "a.bin"):
        picture = read_picture(source)
        assert picture.rgb.dtype == np.uint8 and picture.alpha is None
        assert np.abs(picture.rgb.astype(int) - smooth()).max() <= error
    assert (
        read_picture(tmp_path / "a.bin").name == "a.bin"
        and read_picture(content, name="x/b.png").name == "b.png"
    )


def test_read_picture_converts_grey_palette_bilevel_and_cmyk():
    luma = np.asarray(image().convert("L"))
    assert np.array_equal(
        read_picture(saved(image().convert("L"), "PNG")).rgb, np.dstack([luma] * 3)
    )
    few = image().quantize(16)
    assert np.array_equal(read_picture(saved(few, "PNG")).rgb, np.asarray(few.convert("RGB")))
    assert set(np.unique(read_picture(saved(image().convert("1"), "PNG")).rgb)) == {0, 255}
    cmyk = read_picture(saved(image().convert("CMYK"), "JPEG", quality=98, subsampling=0)).rgb
    assert np.abs(cmyk.astype(int) - smooth()).max() <= 10


def test_read_picture_scales_16_bits():
    ramp = np.linspace(0, 65535, HEIGHT * WIDTH).astype(">u2").reshape(HEIGHT, WIDTH)
    rows = b"".join(b"\0" + row.tobytes() for row in ramp)
    picture = read_picture(png(WIDTH, HEIGHT, 16, 0, rows))
    assert np.array_equal(picture.rgb[..., 0], np.rint(ramp.astype(float) / 257).astype(np.uint8))
    assert picture.rgb.max() == 255 and picture.alpha is None
    # One grey level is transparent: the first pixel's.
    clear = read_picture(
        png(WIDTH, HEIGHT, 16, 0, rows, chunk(b"tRNS", struct.pack(">H", int(ramp[0, 0]))))
    )
    assert (
        clear.alpha is not None
        and clear.alpha[0, 0] == 0
        and (clear.alpha == 255).sum() == HEIGHT * WIDTH - 1
    )
    colour = np.repeat(ramp[..., None], 3, axis=2)
    rows = b"".join(b"\0" + row.tobytes() for row in colour)
    assert (
        np.abs(read_picture(png(WIDTH, HEIGHT, 16, 2, rows)).rgb.astype(int) - picture.rgb).max()
        <= 1
    )


@pytest.mark.parametrize("form", ["PNG", "WEBP"])
def test_read_picture_keeps_alpha(form: str):
    alpha = np.arange(HEIGHT * WIDTH, dtype=np.uint8).reshape(HEIGHT, WIDTH)
    rgba = Image.fromarray(np.dstack([smooth(), alpha]))
    picture = read_picture(
        saved(rgba, form, **({"lossless": True, "exact": True} if form == "WEBP" else {}))
    )
    assert picture.alpha is not None and np.array_equal(picture.alpha, alpha)
    assert np.array_equal(picture.rgb, smooth())


def test_read_picture_reads_a_transparent_palette():
    few = image().quantize(16)
    picture = read_picture(saved(few, "PNG", transparency=3))
    assert picture.alpha is not None
    assert np.array_equal(picture.alpha == 0, np.asarray(few) == 3) and (picture.alpha == 0).any()


def test_read_picture_applies_an_embedded_profile():
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    # The primaries red and green of this profile are swapped, which shows whether it is applied.
    swapped = (
        srgb.replace(b"rXYZ", b"tmp!", 1).replace(b"gXYZ", b"rXYZ", 1).replace(b"tmp!", b"gXYZ", 1)
    )
    swapped = swapped.replace("sRGB".encode("utf-16-be"), "swap".encode("utf-16-be"))
    assert np.array_equal(read_picture(saved(image(), "PNG", icc_profile=srgb)).rgb, smooth())
    converted = read_picture(saved(image(), "PNG", icc_profile=swapped)).rgb
    assert np.abs(converted.astype(int) - smooth()[..., [1, 0, 2]]).max() <= 1
    assert np.array_equal(
        read_picture(saved(image(), "PNG", icc_profile=b"rubbish" * 40)).rgb, smooth()
    )


def test_read_picture_reads_the_first_of_a_multi_picture_jpeg():
    content = saved(
        image(), "MPO", save_all=True, append_images=[Image.new("RGB", (WIDTH, HEIGHT))]
    )
    assert np.abs(read_picture(content).rgb.astype(int) - smooth()).mean() < 4
