"""Decompresses request bodies (Content-Encoding: gzip or deflate), within the limit of a body."""

import asyncio
import zlib
from collections.abc import Callable

from serve.errors import ApiError, BadRequest, TooLarge

ENCODINGS = {
    b"gzip": zlib.MAX_WBITS | 16,
    b"x-gzip": zlib.MAX_WBITS | 16,
    b"deflate": zlib.MAX_WBITS,
}
"""Maps the name of an encoding to zlib's `wbits`. HTTP's deflate has zlib's header (RFC 9110)."""


FIRST, PIECE = 2**16, 2**20
"""Most bytes that are decompressed at a time: at first, and later."""


class UnsupportedEncoding(ApiError):
    """The Content-Encoding of the body is not known."""

    status, code = 415, "unsupported_encoding"

    def __init__(self, encoding: bytes):
        super().__init__(
            f"Content-Encoding {encoding[:40].decode('latin-1')!r}: must be gzip, deflate or "
            "identity"
        )
        self.headers = {"Accept-Encoding": "gzip, deflate"}


async def decoded(
    body: bytes, encoding: bytes, most_bytes: int, reserve: Callable[[int], None]
) -> bytes:
    """Return the body without its encoding.

    At most `most_bytes` are decompressed, in another thread, whatever the body claims. `reserve` is
    called with a number of bytes before these are decompressed, and may raise an error; it is
    called again with a negative number if there were fewer. Raises UnsupportedEncoding, TooLarge,
    or BadRequest for a damaged body.
    """
    encoding = encoding.strip().lower()
    if encoding in (b"", b"identity"):
        return body
    if encoding not in ENCODINGS:
        raise UnsupportedEncoding(encoding)
    stream, parts, size, at = zlib.decompressobj(ENCODINGS[encoding]), [], 0, 0
    while not stream.eof:
        # The stream returns the compressed bytes for which the previous piece had no space.
        given = stream.unconsumed_tail
        if not given:
            given, at = body[at : at + PIECE], at + PIECE
        most = min(max(FIRST, size), PIECE, most_bytes + 1 - size)
        reserve(most)
        try:
            parts.append(await asyncio.to_thread(stream.decompress, given, most))
        except zlib.error:
            raise BadRequest(
                "the body does not have the encoding of its Content-Encoding"
            ) from None
        reserve(len(parts[-1]) - most)
        size += len(parts[-1])
        if size > most_bytes:
            raise TooLarge(f"the decompressed body exceeds the limit of {most_bytes / 2**20:g} MiB")
        if not given and not parts[-1]:
            break
    if not stream.eof or stream.unused_data or at < len(body):
        raise BadRequest("the compressed body is truncated, or other data follow it")
    return parts[0] if len(parts) == 1 else b"".join(parts)
