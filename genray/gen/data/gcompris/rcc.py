"""Reads Qt's binary resource files (.rcc).

A file has a header with four offsets, and three sections. The tree lists directories and files; the
names are UTF-16 texts; the data are the files' contents, each with its size. Numbers are
big-endian. The format is defined by Qt's `qresource.cpp` and `rcc.cpp`.
"""

import struct
import zlib
from pathlib import Path

from genray.errors import ResourceError

MAGIC = b"qres"
ZLIB, DIRECTORY, ZSTD = 1, 2, 4
"""Flags of an entry of the tree."""
MOST_BYTES = 256 << 20
"""Largest size of one file after decompression."""
DAMAGED = (struct.error, IndexError, ValueError, zlib.error, OSError)
"""What reading a damaged file can raise."""


def read_rcc(path: Path) -> dict[str, bytes]:
    """Return the contents of all files in a .rcc file of version 1, 2 or 3, by path.

    Contents are decompressed (zlib or Zstandard). Of several translations of a file, the first is
    returned. Raises ResourceError for a file that is damaged or has another format.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ResourceError(f"{path}: cannot be read ({error.strerror})") from error
    try:
        return _read(content)
    except DAMAGED as error:
        raise ResourceError(
            f"{path}: damaged, or not a resource file of Qt ({error}); reinstall the package that "
            "it belongs to"
        ) from error


def _read(content: bytes) -> dict[str, bytes]:
    """Return the files by path. Raises one of `DAMAGED`."""
    magic, version, tree, data, names = struct.unpack_from(">4sIIII", content)
    if magic != MAGIC or version not in (1, 2, 3):
        raise ValueError("unknown header")
    entry_bytes = 14 if version == 1 else 22  # since version 2 with the time of change

    def name(at: int) -> str:
        # The length in characters, a hash that is not needed here, and the characters.
        (length,) = struct.unpack_from(">H", content, names + at)
        text = content[names + at + 6 : names + at + 6 + 2 * length]
        if len(text) < 2 * length:
            raise ValueError("a name ends early")
        return text.decode("utf-16-be")

    # Entry 0 is the root. Each entry belongs to one directory, so an entry seen twice is an error.
    found: dict[str, bytes] = {}
    waiting, seen = [(0, "")], {0}
    while waiting:
        number, folder = waiting.pop()
        at = tree + number * entry_bytes
        name_at, flags = struct.unpack_from(">IH", content, at)
        path = f"{folder}{name(name_at)}" if number else ""
        if flags & DIRECTORY:
            count, first = struct.unpack_from(">II", content, at + 6)
            if first + count > (len(content) - tree) // entry_bytes:
                raise ValueError("a directory has more entries than the file")
            children = range(first, first + count)
            if seen.intersection(children):
                raise ValueError("an entry is in two directories")
            seen.update(children)
            waiting.extend((child, f"{path}/" if path else "") for child in reversed(children))
        else:
            (data_at,) = struct.unpack_from(">I", content, at + 10)
            (size,) = struct.unpack_from(">I", content, data + data_at)
            packed = content[data + data_at + 4 : data + data_at + 4 + size]
            if len(packed) < size:
                raise ValueError(f"{path} ends early")
            found.setdefault(path, _unpack(packed, flags))
    return found


def _unpack(packed: bytes, flags: int) -> bytes:
    """Decompress the content of one file as its flags say."""
    if flags & ZLIB:
        (size,) = struct.unpack_from(">I", packed)  # Qt writes the size before the stream
        if size > MOST_BYTES:
            raise ValueError(f"a file of {size} bytes")
        unpacked = zlib.decompressobj().decompress(packed[4:], size + 1)
        if len(unpacked) != size:
            raise ValueError(f"{len(unpacked)} bytes instead of {size}")
        return unpacked
    if flags & ZSTD:
        import pyarrow

        with pyarrow.CompressedInputStream(pyarrow.BufferReader(packed), "zstd") as stream:
            unpacked = stream.read(MOST_BYTES)
        if not unpacked:
            raise ValueError("an empty stream")
        return unpacked
    return packed
