"""Limits on the resources that one request may use. Every refusal names the limit."""

from dataclasses import dataclass

from genray.bounds import bounded, check_bounds

MOST_STEPS = 10_000
"""A dream of a world model has at most so many steps (`genray.gen.world.dream.MOST_STEPS`)."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits of one request, and of all requests together."""

    max_body_mb: int = bounded(16, min=1)
    """Size of a request's body in MB, counted while the body is read, whatever Content-Length says.
    """
    max_bodies_mb: int = bounded(256, min=1)
    """Size in MB of all bodies that one replica holds in memory at a time."""
    body_timeout_s: int = bounded(20, min=1)
    """Seconds from the first byte of a body to its last."""
    request_timeout_s: int = bounded(60, min=1)
    """Seconds from a request's headers to the end of its answer. Play streams have their own
    limits.
    """
    max_images: int = bounded(32, min=1)
    """Images (or rows) that one request may ask for."""
    max_rows: int = bounded(256, min=1)
    """Rows of one inference request."""
    max_answer_mb: int = bounded(64, min=1)
    """Size in MB of the answer of an inference request, computed before the model runs."""
    max_side: int = bounded(1024, min=1)
    """Longer side, in pixels, of a requested image or of a picture to edit (larger pictures are
    scaled down).
    """
    max_pixels: int = bounded(25_000_000, min=1)
    """Pixels of an uploaded picture, read from its header before the picture is decoded."""
    max_steps: int = bounded(100, min=1)
    """Gradient steps of a dream."""
    max_play_steps: int = bounded(2_000, min=1)
    """Agent steps of one streamed game."""
    max_streams: int = bounded(4, min=1)
    """Games that one replica streams at a time, real and dreamed ones together."""
    max_dream_steps: int = bounded(10_000, min=1, max=MOST_STEPS)
    """Steps of one game inside a world model."""
    dream_idle_s: int = bounded(60, min=1)
    """Seconds without a key after which a game inside a world model is closed."""
    max_in_flight: int = bounded(512, min=1)
    """Requests in one replica at a time; further requests are answered 429 at once."""
    max_slow: int = bounded(8, min=1)
    """Styles, dreams and clips that may wait in one replica."""

    def validate(self) -> None:
        """Raise ConfigError unless every limit is at least 1."""
        check_bounds(self)

    @property
    def max_body_bytes(self) -> int:
        """`max_body_mb` in bytes."""
        return self.max_body_mb * 2**20
