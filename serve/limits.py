"""What one request may cost. Every refusal states the limit that it met."""

from dataclasses import dataclass

from genray.errors import require


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds of a request, and of all requests together."""

    max_body_mb: int = 16
    """Of a request's body: counted while it is read, whatever the header says."""
    max_bodies_mb: int = 256
    """Of all bodies in one replica's memory at a time."""
    body_timeout_s: int = 20
    """From the first byte of a body to its last."""
    request_timeout_s: int = 60
    """From a request's head to the end of its answer (play streams have bounds of their own)."""
    max_images: int = 32
    """Images (or rows) that one request may ask for."""
    max_rows: int = 256
    """Rows of one inference request."""
    max_side: int = 1024
    """Pixels of an image's longer side, asked for or sent to be styled (larger ones are scaled
    down).
    """
    max_pixels: int = 25_000_000
    """Of an uploaded picture, read from its header before anything is decoded."""
    max_steps: int = 100
    """Steps of a dream."""
    max_play_steps: int = 2_000
    """Agent steps of one watched game."""
    max_streams: int = 4
    """Games watched at a time, in one replica."""
    max_in_flight: int = 512
    """Requests in one replica at a time; beyond it clients are told 429 at once."""
    max_slow: int = 8
    """Styles, dreams and clips that may wait in one replica."""

    def validate(self) -> None:
        for name, value in vars(self).items():
            require(value >= 1, f"--{name.replace('_', '-')} {value}: must be ≥ 1")

    @property
    def max_body_bytes(self) -> int:
        return self.max_body_mb * 2**20
