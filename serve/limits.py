"""Limits on the resources that one request may use. Every refusal names the limit."""

from dataclasses import dataclass

from genray.errors import require


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits of one request, and of all requests together."""

    max_body_mb: int = 16
    """Size of a request's body in MB, counted while the body is read, whatever Content-Length says.
    """
    max_bodies_mb: int = 256
    """Size in MB of all bodies that one replica holds in memory at a time."""
    body_timeout_s: int = 20
    """Seconds from the first byte of a body to its last."""
    request_timeout_s: int = 60
    """Seconds from a request's headers to the end of its answer. Play streams have their own
    limits.
    """
    max_images: int = 32
    """Images (or rows) that one request may ask for."""
    max_rows: int = 256
    """Rows of one inference request."""
    max_side: int = 1024
    """Longer side, in pixels, of a requested image or of a picture to edit (larger pictures are
    scaled down).
    """
    max_pixels: int = 25_000_000
    """Pixels of an uploaded picture, read from its header before the picture is decoded."""
    max_steps: int = 100
    """Gradient steps of a dream."""
    max_play_steps: int = 2_000
    """Agent steps of one streamed game."""
    max_streams: int = 4
    """Games that one replica streams at a time."""
    max_in_flight: int = 512
    """Requests in one replica at a time; further requests are answered 429 at once."""
    max_slow: int = 8
    """Styles, dreams and clips that may wait in one replica."""

    def validate(self) -> None:
        for name, value in vars(self).items():
            require(value >= 1, f"--{name.replace('_', '-')} {value}: must be ≥ 1")

    @property
    def max_body_bytes(self) -> int:
        return self.max_body_mb * 2**20
