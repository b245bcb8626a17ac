"""Pictures come in as their makers meant them, bad files are one line, and what is written can
be read back.
"""

import struct
import tracemalloc
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms, ImageOps

from genray.errors import ConfigError, ResourceError
from genray.gen.images.pictures import (
    DATA_FORMATS,
    Picture,
    check_picture_path,
    read_about,
    read_picture,
    scaled,
    to_rgb,
    to_tensor,
    with_colours_of,
    write_picture,
)

HEIGHT, WIDTH = 24, 40


def smooth() -> np.ndarray:
    """A picture that survives JPEG: red grows to the right, green downwards."""
    rgb = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    rgb[..., 0], rgb[..., 1], rgb[..., 2] = (
        np.arange(WIDTH) * 6,
        np.arange(HEIGHT)[:, None] * 10,
        90,
    )
    return rgb


def saved(image: Image.Image, form: str, **options) -> bytes:
    buffer = BytesIO()
    image.save(buffer, format=form, **options)
    return buffer.getvalue()


def image() -> Image.Image:
    return Image.fromarray(smooth())


def chunk(kind: bytes, content: bytes) -> bytes:
    return (
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
    )


def png(
    width: int, height: int, bits: int = 8, colour: int = 2, pixels: bytes = b"", extra: bytes = b""
) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + extra
        + chunk(b"IDAT", zlib.compress(pixels))
        + chunk(b"IEND", b"")
    )


# -- good files ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("form", "options", "error"), [
    ("PNG", {}, 0), ("WEBP", {"lossless": True}, 0), ("JPEG", {"quality": 95, "subsampling": 0}, 6)
])  # fmt: skip
def test_the_three_formats(form: str, options: dict, error: int, tmp_path: Path):
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


def test_grey_palette_bilevel_and_cmyk():
    luma = np.asarray(image().convert("L"))
    assert np.array_equal(
        read_picture(saved(image().convert("L"), "PNG")).rgb, np.dstack([luma] * 3)
    )
    few = image().quantize(16)
    assert np.array_equal(read_picture(saved(few, "PNG")).rgb, np.asarray(few.convert("RGB")))
    assert set(np.unique(read_picture(saved(image().convert("1"), "PNG")).rgb)) == {0, 255}
    cmyk = read_picture(saved(image().convert("CMYK"), "JPEG", quality=98, subsampling=0)).rgb
    assert np.abs(cmyk.astype(int) - smooth()).max() <= 10


def test_sixteen_bits_are_scaled_and_not_cut_off():
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
def test_alpha_is_kept(form: str):
    alpha = np.arange(HEIGHT * WIDTH, dtype=np.uint8).reshape(HEIGHT, WIDTH)
    rgba = Image.fromarray(np.dstack([smooth(), alpha]))
    picture = read_picture(
        saved(rgba, form, **({"lossless": True, "exact": True} if form == "WEBP" else {}))
    )
    assert picture.alpha is not None and np.array_equal(picture.alpha, alpha)
    assert np.array_equal(picture.rgb, smooth())


def test_a_palette_may_be_transparent():
    few = image().quantize(16)
    picture = read_picture(saved(few, "PNG", transparency=3))
    assert picture.alpha is not None
    assert np.array_equal(picture.alpha == 0, np.asarray(few) == 3) and (picture.alpha == 0).any()


@pytest.mark.parametrize("form", ["PNG", "WEBP", "JPEG"])
def test_exif_turns_the_picture(form: str):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright: turn by a quarter, clockwise
    picture = read_picture(saved(image(), form, exif=exif, quality=98))
    assert picture.rgb.shape == (WIDTH, HEIGHT, 3)
    assert np.abs(picture.rgb.astype(int) - np.rot90(smooth(), -1)).mean() < 4


def test_damaged_exif_costs_no_picture():
    content = saved(image(), "PNG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff nonsense")
    assert np.array_equal(read_picture(content).rgb, smooth())


def test_an_embedded_profile_is_applied():
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    # A profile whose red and green primaries are swapped is nobody's taste, but shows whether it is
    # looked at.
    swapped = (
        srgb.replace(b"rXYZ", b"tmp!", 1).replace(b"gXYZ", b"rXYZ", 1).replace(b"tmp!", b"gXYZ", 1)
    )
    swapped = swapped.replace("sRGB".encode("utf-16-be"), "swap".encode("utf-16-be"))
    assert np.array_equal(read_picture(saved(image(), "PNG", icc_profile=srgb)).rgb, smooth())
    seen = read_picture(saved(image(), "PNG", icc_profile=swapped)).rgb
    assert np.abs(seen.astype(int) - smooth()[..., [1, 0, 2]]).max() <= 1
    assert np.array_equal(
        read_picture(saved(image(), "PNG", icc_profile=b"rubbish" * 40)).rgb, smooth()
    )


def test_a_multi_picture_jpeg_is_its_first_picture():
    content = saved(
        image(), "MPO", save_all=True, append_images=[Image.new("RGB", (WIDTH, HEIGHT))]
    )
    assert np.abs(read_picture(content).rgb.astype(int) - smooth()).mean() < 4


# -- bad files -------------------------------------------------------------------------------------


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
def test_bad_files_are_one_line(name: str, tmp_path: Path):
    content, message = BAD[name][0](), BAD[name][1]
    path = tmp_path / "in.png"
    path.write_bytes(content)
    for source in (content, path):
        with pytest.raises(ConfigError, match=message) as caught:
            read_picture(source, name="in.png" if isinstance(source, bytes) else "")
        assert "\n" not in str(caught.value) and "in.png: " in str(caught.value)


def test_a_bomb_is_refused_before_it_is_decoded():
    """A million zeros deflate to a kilobyte; 7,000 x 7,000 claimed pixels would be 147 MB."""
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


def test_no_file_and_folders(tmp_path: Path):
    with pytest.raises(ConfigError, match="none.png: no such file"):
        read_picture(tmp_path / "none.png")
    with pytest.raises(ConfigError, match="not a file"):
        read_picture(tmp_path)


# -- writing ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_what_is_written_can_be_read_with_its_note(suffix: str, tmp_path: Path):
    alpha = None if suffix == ".jpg" else np.full((HEIGHT, WIDTH), 77, np.uint8)
    about = {
        "command": "dream",
        "layer": "conv3",
        "name": "Möwe",
        "rate": 0.5,
        "nested": {"a": [1, None]},
    }
    path = write_picture(tmp_path / "new" / f"out{suffix}", smooth(), alpha, about)
    assert read_about(path) == about
    picture = read_picture(path)
    assert np.abs(picture.rgb.astype(int) - smooth()).mean() < 3
    assert (picture.alpha is None) == (alpha is None)
    assert picture.alpha is None or (picture.alpha == 77).all()
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_pictures_without_a_note(tmp_path: Path):
    with pytest.raises(ConfigError, match="no note"):
        read_about(write_picture(tmp_path / "out.png", smooth()))
    (tmp_path / "text.png").write_text("hello")
    with pytest.raises(ConfigError, match="not a picture"):
        read_about(tmp_path / "text.png")


def test_what_cannot_be_written_is_one_line(tmp_path: Path):
    alpha = np.zeros((HEIGHT, WIDTH), np.uint8)
    with pytest.raises(ConfigError, match="a JPEG has no transparency.*out.png or .webp"):
        write_picture(tmp_path / "out.jpg", smooth(), alpha)
    with pytest.raises(ConfigError, match="must end in .png"):
        check_picture_path(tmp_path / "out.bmp")
    with pytest.raises(ResourceError, match="cannot be written"):
        write_picture(tmp_path / "wide.webp", np.zeros((8, 16_500, 3), np.uint8))
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ResourceError, match="cannot be written"):
        write_picture(tmp_path / "file" / "out.png", smooth())
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


# -- arrays ----------------------------------------------------------------------------------------


def test_tensors_and_back():
    x = to_tensor(smooth())
    assert (
        x.shape == (1, 3, HEIGHT, WIDTH)
        and x.dtype == torch.float32
        and x.min() >= 0
        and x.max() <= 1
    )
    assert np.array_equal(to_rgb(x), smooth())
    values = torch.tensor([-0.5, 0.4999 / 255, 0.501 / 255, 1.5])
    assert to_rgb(values.expand(1, 3, 1, 4))[0, :, 0].tolist() == [0, 0, 1, 255]
    with pytest.raises(ValueError, match="NaN"):
        to_rgb(torch.full((1, 3, 2, 2), torch.nan))


def test_scaling_keeps_the_shape_and_never_enlarges():
    assert scaled(smooth(), 20).shape == (12, 20, 3) and scaled(smooth()[..., 0], 20).shape == (
        12,
        20,
    )
    assert np.array_equal(scaled(smooth(), 100), smooth())
    assert scaled(smooth(), 80, enlarge=True).shape == (48, 80, 3)
    # What shrinks is averaged, not skipped: a fine chequerboard becomes grey.
    board = np.indices((64, 64)).sum(0) % 2 * np.uint8(255)
    assert np.abs(scaled(board.astype(np.uint8), 16)[2:-2, 2:-2].astype(int) - 127).max() < 12


def test_keeping_colours_changes_the_luminance_alone():
    content, result = smooth() // 2 + 60, (smooth()[::-1] // 4 + 90).astype(np.uint8)
    mixed = with_colours_of(result, content).astype(float)
    luma = np.array([0.299, 0.587, 0.114])
    assert np.abs(mixed @ luma - result @ luma).max() < 1
    chroma = mixed - (mixed @ luma)[..., None]
    assert np.abs(chroma - (content - (content @ luma)[..., None])).max() < 1
    assert with_colours_of(result, content[::2, ::2]).shape == result.shape
    assert np.array_equal(with_colours_of(content, content), content)


def test_a_picture_is_a_value():
    with pytest.raises(AttributeError):
        Picture(smooth(), None, "a").name = "b"  # type: ignore[misc]


# -- damaged metadata ------------------------------------------------------------------------------

SIX = (0x0112, 3, 1, struct.pack(">HH", 6, 0))
"""EXIF's Orientation as a SHORT: turn the picture by 90 degrees clockwise."""


def exif(*entries: tuple[int, int, int, bytes], count: int | None = None) -> bytes:
    """An EXIF block whose IFD0 holds (tag, type, number, four bytes of value), big-endian."""
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


def test_read_picture_of_a_png_with_a_damaged_text_keeps_the_pixels():
    content = saved(image(), "PNG")
    bad = chunk(b"tEXt", b"comment\0hello")[:-4] + b"????"  # a wrong checksum
    after_header = 8 + 25
    np.testing.assert_array_equal(
        read_picture(content[:after_header] + bad + content[after_header:]).rgb, smooth()
    )


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "TIFF"])
def test_every_orientation_is_honoured_once(orientation, form):
    tags = Image.Exif()
    tags[0x0112] = orientation
    content = saved(image(), form, exif=tags)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(BytesIO(content))).convert("RGB"))
    np.testing.assert_array_equal(read_picture(content, formats=DATA_FORMATS).rgb, expected)
