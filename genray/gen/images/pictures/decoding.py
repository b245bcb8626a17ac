"""Converts a decoded picture of any mode to 8-bit sRGB, with alpha if the file has any.

Shapes: H height, W width.
"""

import io

import numpy as np
from PIL import Image, ImageCms

from genray.errors import require
from genray.gen.images.pictures.errors import DAMAGED


def to_srgb(image: Image.Image, name: str) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the decoded colours, uint8 [H, W, 3] in sRGB, and alpha, uint8 [H, W] or None.

    `name`: the picture's name, for messages. Raises ConfigError for floating-point pixels that are
    NaN or outside 0..1.
    """
    if image.mode == "F":
        return _from_floats(np.asarray(image), name), None
    if image.mode.startswith("I"):  # 16-bit grey
        grey = np.asarray(image).astype(np.int64)
        # The transparent grey level has 16 bits, so pixels are compared with it before the
        # conversion to 8 bits.
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
    """Convert floating-point grey in 0..1 to uint8 [H, W, 3]."""
    require(
        bool(np.isfinite(grey_HW).all()), f"{name} has NaN or infinite pixels; correct or remove it"
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
    """Return the colours of `rgba`, with the colour profile of `image` if it is valid for RGB."""
    opaque = rgba.convert("RGB")
    # A grey image's colour profile is not valid for three channels.
    opaque.info["icc_profile"] = (
        None if image.mode in ("L", "LA", "1") else rgba.info["icc_profile"]
    )
    return opaque


def _in_srgb(image: Image.Image) -> Image.Image:
    """Convert to sRGB by the embedded colour profile, e.g. Display P3 or CMYK.

    Without a usable profile, the picture is converted to RGB directly.
    """
    profile = image.info.get("icc_profile")
    if profile and image.mode in ("RGB", "CMYK", "L"):
        try:
            embedded = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            # An sRGB picture is not converted, because conversion rounds.
            if "sRGB" not in ImageCms.getProfileDescription(embedded):
                changed = ImageCms.profileToProfile(
                    image, embedded, ImageCms.createProfile("sRGB"), outputMode="RGB"
                )
                assert changed is not None
                return changed
        except (ImageCms.PyCMSError, *DAMAGED):
            pass
    return image.convert("RGB")
