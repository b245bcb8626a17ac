"""Decompresses request bodies (Content-Encoding: gzip or deflate), within the limit of a body."""

import asyncio
import zlib

from serve.errors import ApiError, BadRequest, TooLarge

ENCODINGS = {
    b"gzip": zlib.MAX_WBITS | 16,
    b"x-gzip": zlib.MAX_WBITS | 16,
    b"deflate": zlib.MAX_WBITS,
}
"""Maps the name of an encoding to zlib's `wbits`. HTTP's deflate has zlib's header (RFC 9110)."""


class UnsupportedEncoding(ApiError):
    """The Content-Encoding of the body is not known."""

    status, code = 415, "unsupported_encoding"

    def __init__(self, encoding: bytes):
        super().__init__(
            f"Content-Encoding {encoding[:40].decode('latin-1')!r}: must be gzip, deflate or "
            "identity"
        )
        self.headers = {"Accept-Encoding": "gzip, deflate"}


async def decoded(body: bytes, encoding: bytes, most_bytes: int) -> bytes:
    """Return the body without its encoding.

    At most `most_bytes` are decompressed, in another thread, whatever the body claims. Raises
    UnsupportedEncoding, TooLarge, or BadRequest for a damaged body.
    """
    encoding = encoding.strip().lower()
    if encoding in (b"", b"identity"):
        return body
    if encoding not in ENCODINGS:
        raise UnsupportedEncoding(encoding)
    return await asyncio.to_thread(_decompress, body, ENCODINGS[encoding], most_bytes)


def _decompress(body: bytes, wbits: int, most_bytes: int) -> bytes:
    stream = zlib.decompressobj(wbits)
    try:
        found = stream.decompress(body, most_bytes + 1)
    except zlib.error:
        raise BadRequest("the body does not have the encoding of its Content-Encoding") from None
    if len(found) > most_bytes:
        raise TooLarge(f"the decompressed body exceeds the limit of {most_bytes / 2**20:g} MiB")
    if not stream.eof or stream.unused_data:
        raise BadRequest("the compressed body is truncated, or other data follow it")
    return found
