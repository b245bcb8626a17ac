"""Turns a picture upright, as the Orientation in its EXIF data says."""

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
    """Turn the picture as its EXIF says. Pillow's exif_transpose is not used: it also rewrites the
    whole EXIF block, and raises where any other entry of the block is damaged."""
    try:
        orientation = image.getexif().get(_ORIENTATION)
        turn = _TURNS.get(int(orientation)) if isinstance(orientation, int | float | str) else None
    except DAMAGED:
        return image
    return image if turn is None else image.transpose(turn)
