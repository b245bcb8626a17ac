"""Turns a picture upright, by the orientation in its EXIF data."""

from PIL import Image

from genray.gen.images.pictures.errors import DAMAGED

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


def upright(image: Image.Image) -> Image.Image:
    """Return the picture, turned by EXIF's Orientation; unchanged if the entry cannot be read.

    Pillow's exif_transpose is not used, because it rewrites the whole EXIF block, and fails if any
    entry of the block is damaged.
    """
    try:
        orientation = image.getexif().get(_ORIENTATION)
        turn = _TURNS.get(int(orientation)) if isinstance(orientation, int | float | str) else None
    except DAMAGED:
        return image
    return image if turn is None else image.transpose(turn)
