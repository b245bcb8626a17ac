"""Options of OpenAI's images API on the form of an answer: honoured, or refused by name.

An option that changed nothing would leave a client with a result that it did not ask for. Only
options without any meaning for these models are ignored: IGNORED names them.
"""

import base64
import io
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from serve.errors import BadRequest
from serve.routes.common import enlarged, json_bytes, png_base64

FORMATS = ("png", "jpeg", "webp")
IGNORED = (
    "prompt", "quality", "style", "moderation", "input_fidelity", "user", "safety_identifier"
)  # fmt: skip
ONLY: Mapping[str, tuple[tuple[Any, ...], str]] = {
    "background": (("auto", "opaque"), "must be `auto` or `opaque`: pictures have no transparency"),
    "partial_images": ((0,), "must be 0: no partial pictures are made"),
    "frame_count": ((1,), "must be 1: no clips are made here; see /api/walk"),
    "frame_duration_ms": ((), "is not supported: no clips are made here; see /api/walk"),
    "mask": ((), "must be a PNG file of /v1/images/edits"),
    "markup": ((), "is not supported: leave it out"),
    "svg": ((), "is not supported: pictures are made of pixels; leave it out"),
    "complexity": ((), "is not supported: leave it out"),
}
"""Maps an option to (the values that are accepted, why others are not)."""
EVENT_STREAM = "text/event-stream"


@dataclass(frozen=True)
class Output:
    """The form of an answer."""

    format: str = "png"
    quality: int = 100
    """Of a JPEG or WebP: 0 (smallest file) to 100 (best picture)."""
    as_url: bool = False
    """Whether pictures are data URLs instead of base64."""
    stream: bool = False
    """Whether the answer is a stream of events, one for each picture."""

    @staticmethod
    def read(fields: Mapping[str, Any]) -> "Output":
        """Parse the options of a request, JSON values or texts of a form. Raises BadRequest, which
        names the option, its value and the valid choices.
        """
        for name, (accepted, reason) in ONLY.items():
            value = fields.get(name)
            if value not in (None, "") and str(value) not in [str(each) for each in accepted]:
                raise BadRequest(f"{name} {str(value)[:40]!r}: {reason}", param=name)
        form = fields.get("output_format") or "png"
        if form not in FORMATS:
            raise BadRequest(
                f"output_format {str(form)[:40]!r}: must be {', '.join(FORMATS)}",
                param="output_format",
            )
        return Output(
            form,
            _quality(fields.get("output_compression"), form),
            fields.get("response_format") == "url",
            _switch(fields.get("stream")),
        )

    def encode(self, image: np.ndarray, scale: int = 1) -> bytes:
        """Encode uint8 [H, W, C] in base64, each pixel enlarged to a square of `scale` pixels."""
        if self.format == "png":
            return png_base64(image, scale)
        from PIL import Image

        file = io.BytesIO()
        large = enlarged(image, scale)
        picture = Image.fromarray(large[:, :, 0] if large.shape[2] == 1 else large)
        picture.save(file, self.format.upper(), quality=max(1, self.quality))
        return base64.b64encode(file.getvalue())

    def answer(
        self, about: dict[str, Any], pictures: list[bytes], size: tuple[int, int], event: str
    ) -> tuple[bytes, str]:
        """Return (the body, its media type).

        `pictures`: in base64, which needs no escaping, so they are joined as bytes. `size`: width
        and height. `event`: the name of the events of a stream.
        """
        if self.stream:
            return b"".join(self._event(picture, size, event) for picture in pictures), EVENT_STREAM
        key = f'"url": "data:image/{self.format};base64,' if self.as_url else '"b64_json": "'
        data = b", ".join(b"{" + key.encode() + picture + b'"}' for picture in pictures)
        return json_bytes(about)[:-1] + b', "data": [' + data + b"]}", "application/json"

    def _event(self, picture: bytes, size: tuple[int, int], event: str) -> bytes:
        tokens = {"image_tokens": 0, "text_tokens": 0}
        about = {
            "type": event,
            "created_at": int(time.time()),
            "size": f"{size[0]}x{size[1]}",
            "quality": "auto",
            "background": "opaque",
            "output_format": self.format,
            "usage": {
                "input_tokens": 0,
                "output_tokens": 0,
                "total_tokens": 0,
                "input_tokens_details": tokens,
            },
        }
        data = json_bytes(about)[:-1] + b', "b64_json": "' + picture + b'"}'
        return b"event: " + event.encode() + b"\ndata: " + data + b"\n\n"


def _quality(value: Any, form: str) -> int:
    if value in (None, ""):
        return 100
    text = str(value)
    if not (text.isascii() and text.isdigit() and int(text[:9]) <= 100):
        raise BadRequest(
            f"output_compression {text[:40]!r}: must be a whole number in 0..100",
            param="output_compression",
        )
    if form == "png" and int(text) != 100:
        raise BadRequest(
            f"output_compression {text}: a PNG loses nothing; choose output_format jpeg or webp",
            param="output_compression",
        )
    return int(text)


def _switch(value: Any) -> bool:
    text = str(value).lower() if value not in (None, "") else "false"
    if text not in ("true", "false", "1", "0"):
        raise BadRequest(f"stream {str(value)[:40]!r}: must be true or false", param="stream")
    return text in ("true", "1")
