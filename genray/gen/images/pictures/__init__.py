"""Reads and writes pictures, and converts them between files, arrays and tensors.

    reading     JPEG, PNG and WebP; limits of size; damaged files
    exif        the orientation that a camera recorded
    decoding    colour profiles, 16 bits, palettes, alpha, to 8-bit sRGB
    writing     PNG, JPEG and WebP with metadata
    arrays      arrays and tensors, scaling, transfer of colours

All code in this project reads pictures with `read_picture`.
"""

from genray.gen.images.pictures.arrays import (
    resized,
    scaled,
    to_rgb,
    to_tensor,
    with_colours_of,
)
from genray.gen.images.pictures.errors import PictureError
from genray.gen.images.pictures.reading import (
    DATA_FORMATS,
    MAX_PIXELS,
    Picture,
    read_picture,
)
from genray.gen.images.pictures.writing import FORMATS, check_picture_path, write_picture

__all__ = [
    "DATA_FORMATS",
    "FORMATS",
    "MAX_PIXELS",
    "Picture",
    "PictureError",
    "check_picture_path",
    "read_picture",
    "resized",
    "scaled",
    "to_rgb",
    "to_tensor",
    "with_colours_of",
    "write_picture",
]
