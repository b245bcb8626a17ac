"""Reads IDX files, the format of MNIST: a header with the sizes, and bytes."""

import gzip
import struct
import zlib
from pathlib import Path

import numpy as np


def read_idx(path: Path) -> np.ndarray:
    """Return the array in a gzipped IDX file of unsigned bytes, uint8 with 1 to 3 axes.

    Raises ValueError for a damaged file, OSError for one that cannot be opened.
    """
    try:
        with gzip.open(path) as file:
            content = file.read()
        zeros, kind, axes = struct.unpack_from(">HBB", content)
        shape = struct.unpack_from(f">{axes}I", content, 4)
    except (EOFError, struct.error, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path}: damaged, or not an IDX file") from error
    values = np.frombuffer(content, np.uint8, offset=4 + 4 * axes)
    if zeros or kind != 8 or not 1 <= axes <= 3 or values.size != np.prod(shape, dtype=np.int64):
        raise ValueError(f"{path}: damaged, or not an IDX file of bytes")
    return values.reshape(shape).copy()  # an array that may be written to
