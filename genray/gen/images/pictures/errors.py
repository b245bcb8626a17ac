"""Errors of pictures: what this package raises, and what Pillow raises for damaged files."""

import struct

from genray.errors import ConfigError

DAMAGED = (
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
