"""Counts the parts of a picture file that cost time whatever the number of pixels.

A decoder passes over the whole picture for each scan of a progressive JPEG, and Pillow runs a few
lines of Python for each chunk of a PNG. A file of 2 MB has room for 45,000 scans.
"""

import re

MAX_SCANS = 100
"""Largest number of scans of a JPEG. Encoders write about 10."""
MAX_CHUNKS = 50_000
"""Largest number of chunks of a PNG. Encoders write one for every 8 kB or more."""

_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
"""A JPEG marker inside of compressed data: neither a stuffed byte nor a restart marker."""
_START_OF_SCAN, _END, _ALONE = 0xDA, 0xD9, frozenset({0x01, *range(0xD0, 0xD9)})


def excess_parts(content: bytes) -> str:
    """Return what the file has too many of, for a message; empty if the file is acceptable."""
    if content.startswith(b"\xff\xd8"):
        return f"more than {MAX_SCANS} scans" if _has_many_scans(content) else ""
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        return f"more than {MAX_CHUNKS:,} chunks" if _has_many_chunks(content) else ""
    return ""


def _has_many_scans(content: bytes) -> bool:
    at, scans = 2, 0
    while found := _MARKER.search(content, at):
        kind, at = content[found.start() + 1], found.end()
        if kind == _END:
            return False
        if kind not in _ALONE:
            # A segment with a length: an embedded preview in it is skipped.
            at += int.from_bytes(content[at : at + 2], "big")
        if kind == _START_OF_SCAN:
            scans += 1
            if scans > MAX_SCANS:
                return True
    return False


def _has_many_chunks(content: bytes) -> bool:
    at, chunks = 8, 0
    while at + 8 <= len(content):
        at += 12 + int.from_bytes(content[at : at + 4], "big")
        chunks += 1
        if chunks > MAX_CHUNKS:
            return True
    return False
