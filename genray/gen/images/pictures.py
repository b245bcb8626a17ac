"""Reads pictures from JPEG, PNG and WebP files, and writes them atomically with metadata.

Shapes: B batch, C channels, H height, W width.
"""

import io
import json
import struct
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from PIL import Image, ImageCms, PngImagePlugin
from torch import Tensor

from genray.errors import ConfigError, ResourceError, require
from genray.runs.files import write_whole

MAX_PIXELS = 50_000_000
"""Largest number of pixels to read (150 MB as RGB), checked in the header before decoding."""
LEAST_SIDE = 8
MAX_ASPECT = 20
STILL_FORMATS = ("JPEG", "PNG", "WEBP")
"""Formats of pictures named by a user (Pillow's names)."""
DATA_FORMATS = (*STILL_FORMATS, "BMP", "GIF", "PPM", "TIFF")
"""Formats of pictures in a data set; of several frames, the first is read."""
FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
_OTHERS = {
    b"GIF8": "a GIF", b"BM": "a BMP", b"II*\0": "a TIFF", b"MM\0*": "a TIFF", b"%PDF": "a PDF",
    b"\0\0\0": "a HEIC, AVIF or MP4", b"<svg": "an SVG", b"<?xm": "an SVG or other XML",
}  # fmt: skip
_ABOUT = "genray"
_DESCRIPTION = 0x010E  # EXIF's ImageDescription, which stores the metadata in JPEG and WebP
_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""The operation that makes a picture upright, by the value of EXIF's Orientation."""
_NEEDED_CHUNKS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
"""The chunks of a PNG on which its pixels depend."""
_DAMAGED = (
    OSError,
    SyntaxError,
    ValueError,
    struct.error,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    AttributeError,
)
"""Errors that Pillow's readers were observed to raise for damaged files."""


class PictureError(ConfigError):
    """A file that cannot be read as a picture."""


def _readable(condition: bool, message: str) -> None:
    if not condition:
        raise PictureError(message)


@dataclass(frozen=True)
class Picture:
    """A still picture, upright, in sRGB."""

    rgb: np.ndarray
    """uint8 [H, W, 3]"""
    alpha: np.ndarray | None
    """uint8 [H, W]; None if the file has no alpha channel."""
    name: str


# -- reading ---------------------------------------------------------------------------------------


def read_picture(
    source: Path | bytes,
    *,
    name: str = "",
    max_pixels: int = MAX_PIXELS,
    formats: tuple[str, ...] = STILL_FORMATS,
    any_shape: bool = False,
) -> Picture:
    """Read a picture, rotate it as its EXIF data says, and convert it to sRGB.

    All code in this project reads pictures with this function. A picture with damaged metadata
    (EXIF, colour profiles, a PNG's text) is still read. CMYK, palettes, grey, 16 bits a channel and
    floating-point grey in 0..1 become 8-bit RGB. Of a camera's multi-picture JPEG, the first
    picture is read.

    Parameters:
        name: the picture's name in error messages; by default its path.
        max_pixels: the largest number of pixels to decode, checked in the header.
        formats: Pillow's names of the accepted formats.
        any_shape: also accept sides below 8 pixels, sides beyond 20:1, and the first frame of an
            animation, as pictures in a data set may have.

    Raises PictureError, one line that begins with `name`, for a file that is missing, not a
    picture, damaged, truncated or too large; ConfigError for floating-point pixels outside 0..1.
    """
    name = name or (str(source) if isinstance(source, Path) else "the picture")
    too_many = f"more pixels than the limit of {max_pixels:,}; give a smaller picture"
    with _open_file(source, name, max_pixels) as file, warnings.catch_warnings(action="ignore"):
        try:
            opened = _open_image(file, formats)
        except Image.DecompressionBombError as error:
            raise PictureError(f"{name}: {too_many}") from error
        except _DAMAGED as error:
            raise PictureError(f"{name}: {_foreign(file)}; give a JPEG, PNG or WebP") from error
        with opened:
            _check_header(opened, name, max_pixels, too_many, any_shape)
            try:
                opened.load()
                rgb, alpha = _decoded(_upright(opened), name)
            except _DAMAGED as error:
                reason = str(error).splitlines()[0] if str(error) else type(error).__name__
                raise PictureError(f"{name}: truncated or damaged ({reason})") from error
    return Picture(rgb, alpha, Path(name).name)


def _open_image(file: BinaryIO, formats: tuple[str, ...]) -> Image.Image:
    try:
        return Image.open(file, formats=formats)
    except _DAMAGED:
        # If a PNG's text or colour profile is damaged, the pixels can be read without them.
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
    # Largest file: uncompressed 16-bit RGBA has 8 bytes a pixel. The limit is needed because
    # opening a WebP reads the whole file into memory.
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
    for magic, what in _OTHERS.items():
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
        "cut a part out",
    )
    # A multi-picture JPEG (MPO) contains a preview or a stereo pair, not an animation.
    if image.format in ("PNG", "WEBP") and getattr(image, "is_animated", False):
        frames = getattr(image, "n_frames", 2)
        raise PictureError(
            f"{name}: animated ({frames} frames); give a still picture, or save one of its frames"
        )


def _upright(image: Image.Image) -> Image.Image:
    """Turn the picture as its EXIF says. Pillow's exif_transpose is not used: it also rewrites the
    whole EXIF block, and raises where any other entry of the block is damaged."""
    try:
        orientation = image.getexif().get(_ORIENTATION)
        turn = _TURNS.get(int(orientation)) if isinstance(orientation, int | float | str) else None
    except _DAMAGED:
        return image
    return image if turn is None else image.transpose(turn)


def _decoded(image: Image.Image, name: str) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the decoded colours, uint8 [H, W, 3] in sRGB, and alpha, uint8 [H, W] or None."""
    if image.mode == "F":
        return _from_floats(np.asarray(image), name), None
    if image.mode.startswith("I"):  # 16-bit grey
        grey = np.asarray(image).astype(np.int64)
        # The transparent grey level is compared before the conversion to 8 bits.
        level = image.info.get("transparency")
        alpha = np.where(grey == level, 0, 255).astype(np.uint8) if isinstance(level, int) else None
        return np.repeat(np.asarray(eight_bits(image))[..., None], 3, axis=2), alpha
    transparency = None
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        rgba.info["icc_profile"] = image.info.get("icc_profile")
        transparency, image = np.asarray(rgba.getchannel("A")).copy(), _without_alpha(image, rgba)
    return np.asarray(_in_srgb(image)).copy(), transparency


def _from_floats(grey_HW: np.ndarray, name: str) -> np.ndarray:
    require(
        bool(np.isfinite(grey_HW).all()), f"{name} has NaN or infinite pixels; mend or remove it"
    )
    low, high = grey_HW.min(), grey_HW.max()
    require(
        low >= 0 and high <= 1,
        f"{name} has floating-point pixels in {low:g}..{high:g}; save them in 0..1, or with 8 or "
        "16 bits",
    )
    return np.repeat(np.rint(grey_HW * 255).astype(np.uint8)[..., None], 3, axis=2)


def eight_bits(image: Image.Image) -> Image.Image:
    """Convert 16-bit grey (modes I, I;16, …) to 8 bits, 65,535 → 255; return other modes unchanged.

    Pillow's own conversion clips at 255.
    """
    if not image.mode.startswith("I"):
        return image
    return Image.fromarray(
        np.rint(np.asarray(image).astype(np.int64).clip(0, 65535) / 257).astype(np.uint8)
    )


def _without_alpha(image: Image.Image, rgba: Image.Image) -> Image.Image:
    opaque = rgba.convert("RGB")
    # A grey image's colour profile is not valid for three channels.
    opaque.info["icc_profile"] = (
        None if image.mode in ("L", "LA", "1") else rgba.info["icc_profile"]
    )
    return opaque


def _in_srgb(image: Image.Image) -> Image.Image:
    """Convert to sRGB by the embedded colour profile, e.g. Display P3 or CMYK. Without a usable
    profile, convert to RGB directly.
    """
    profile = image.info.get("icc_profile")
    if profile and image.mode in ("RGB", "CMYK", "L"):
        try:
            embedded = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            # An sRGB picture is not converted, to avoid rounding.
            if "sRGB" not in ImageCms.getProfileDescription(embedded):
                changed = ImageCms.profileToProfile(
                    image, embedded, ImageCms.createProfile("sRGB"), outputMode="RGB"
                )
                assert changed is not None
                return changed
        except (ImageCms.PyCMSError, *_DAMAGED):
            pass
    return image.convert("RGB")


# -- writing ---------------------------------------------------------------------------------------


def check_picture_path(path: Path, *, alpha: bool = False) -> None:
    """Raise ConfigError unless `write_picture` can write to `path`.

    Call this before a long computation.
    """
    suffix = path.suffix.lower()
    require(
        suffix in FORMATS,
        f"{path}: a picture's name must end in {', '.join(FORMATS)}, e.g. {path.stem or 'out'}.png",
    )
    require(
        not (alpha and FORMATS[suffix] == "JPEG"),
        f"{path}: a JPEG has no transparency, and this picture has; use {path.stem}.png or .webp",
    )
    require(not path.is_dir(), f"{path}: a folder; name a file in it, e.g. {path / 'out.png'}")


def write_picture(
    path: Path,
    rgb: np.ndarray,
    alpha: np.ndarray | None = None,
    about: Mapping[str, Any] | None = None,
) -> Path:
    """Write uint8 RGB [H, W, 3], and optional alpha uint8 [H, W], as PNG, JPEG or WebP, depending
    on the path's suffix.

    `about`: metadata, written as JSON in a PNG's text chunk "genray", or in the EXIF description of
    JPEG and WebP. The write is atomic. Raises ConfigError for another suffix or a JPEG with alpha,
    ResourceError when the file cannot be written.
    """
    check_picture_path(path, alpha=alpha is not None)
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3:
        raise ValueError(f"a picture is uint8 [H, W, 3], not {rgb.dtype} {rgb.shape}")
    if alpha is not None and (alpha.dtype != np.uint8 or alpha.shape != rgb.shape[:2]):
        raise ValueError(f"alpha is uint8 {rgb.shape[:2]}, not {alpha.dtype} {alpha.shape}")
    image = Image.fromarray(rgb if alpha is None else np.dstack([rgb, alpha]))
    options: dict[str, Any] = {
        "JPEG": {"quality": 95, "subsampling": 0},
        "WEBP": {"quality": 95, "exact": True},
    }.get(FORMATS[path.suffix.lower()], {})
    if about:
        text = json.dumps(dict(about))
        if FORMATS[path.suffix.lower()] == "PNG":
            options["pnginfo"] = PngImagePlugin.PngInfo()
            options["pnginfo"].add_text(_ABOUT, text)
        else:
            exif = Image.Exif()
            exif[_DESCRIPTION] = text
            options["exif"] = exif
    buffer = io.BytesIO()
    try:
        image.save(buffer, format=FORMATS[path.suffix.lower()], **options)
    except (OSError, ValueError) as error:  # e.g. a WebP's side is limited to 16,383 pixels
        raise ResourceError(
            f"{path}: cannot be written ({str(error).splitlines()[0]}); use .png"
        ) from error
    return write_whole(path, buffer.getvalue())


def read_about(path: Path) -> dict[str, Any]:
    """Read the metadata that `write_picture` wrote. Raises ConfigError for a file without it."""
    try:
        with (
            warnings.catch_warnings(action="ignore"),
            Image.open(path, formats=("JPEG", "PNG", "WEBP")) as image,
        ):
            note = (
                image.info.get(_ABOUT)
                if image.format == "PNG"
                else image.getexif().get(_DESCRIPTION)
            )
            about = json.loads(note) if isinstance(note, str) else None
    except (Image.DecompressionBombError, *_DAMAGED) as error:
        raise ConfigError(f"{path}: not a picture, or one with a damaged note") from error
    if not isinstance(about, dict):
        raise ConfigError(f"{path}: carries no note of genray's")
    return about


# -- arrays ----------------------------------------------------------------------------------------


def to_tensor(rgb: np.ndarray) -> Tensor:
    """Convert uint8 [H, W, 3] to float32 [1, 3, H, W] in 0..1."""
    return torch.from_numpy(np.ascontiguousarray(rgb)).permute(2, 0, 1)[None].float() / 255


def to_rgb(image_1CHW: Tensor) -> np.ndarray:
    """Convert float [1, 3, H, W] in 0..1 to uint8 [H, W, 3], rounded and clipped.

    Raises ValueError for NaN.
    """
    if image_1CHW.ndim != 4 or image_1CHW.shape[:2] != (1, 3):
        raise ValueError(f"a picture is [1, 3, H, W], not {tuple(image_1CHW.shape)}")
    image = image_1CHW.detach()[0].float()
    if not torch.isfinite(image).all():
        raise ValueError("a picture with NaN or infinite values")
    return image.mul(255).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).cpu().numpy()


def scaled(rgb: np.ndarray, longest: int, *, enlarge: bool = False) -> np.ndarray:
    """Scale uint8 [H, W, 3] or [H, W] to a longest side of `longest` pixels (Lanczos).

    Smaller pictures are only scaled if `enlarge`.
    """
    height, width = rgb.shape[:2]
    factor = longest / max(height, width)
    if factor == 1 or (factor > 1 and not enlarge):
        return rgb
    return resized(rgb, max(1, round(height * factor)), max(1, round(width * factor)))


def resized(rgb: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize uint8 [H, W, 3] or [H, W] to `height` x `width` (Lanczos)."""
    return np.asarray(Image.fromarray(rgb).resize((width, height), Image.Resampling.LANCZOS)).copy()


def with_colours_of(result_rgb: np.ndarray, content_rgb: np.ndarray) -> np.ndarray:
    """Combine the result's luminance with the content's colours; uint8 [H, W, 3], result's size.

    Uses the luma Y and the chroma Cb, Cr of ITU-R 601, as in JPEG. Values are clipped to 0..255.
    [Gatys 2016, Preserving color in neural artistic style transfer,
    https://arxiv.org/abs/1606.05897, luminance-only]
    """
    if content_rgb.shape != result_rgb.shape:
        content_rgb = resized(content_rgb, *result_rgb.shape[:2])
    weights = np.array([0.299, 0.587, 0.114], np.float32)
    content = content_rgb.astype(np.float32)
    # R − Y, G − Y and B − Y are the chroma. Adding one number to R, G and B changes only Y.
    change_HW = result_rgb.astype(np.float32) @ weights - content @ weights
    return np.rint(content + change_HW[..., None]).clip(0, 255).astype(np.uint8)
