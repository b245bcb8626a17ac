"""Provides what all routes share: documented errors, JSON answers and conversion of pictures."""

import base64
import json
from typing import Any

import numpy as np
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict

from genray.errors import ConfigError
from genray.gen.images.embedding import prepared
from genray.gen.images.photo_index import THUMBNAIL, PhotoIndex
from genray.gen.images.pictures import Picture, read_picture, scaled
from serve.errors import BadRequest, NotAPicture, TooLarge
from serve.limits import Limits
from serve.models import Predictor, image_spec
from serve.png import encode_png

MAX_SEED = 2**63 - 1


class ErrorDetail(BaseModel):
    """Describes one error."""

    message: str
    """One line that names the invalid value and a valid choice."""
    type: str
    param: str | None
    code: str


class ErrorAnswer(BaseModel):
    """Format of every error of the /v1 and /api routes."""

    error: ErrorDetail


class InferenceError(BaseModel):
    """Format of every error of the /v2 routes."""

    error: str


ABOUT = {
    400: "A value is invalid.",
    401: "The key is missing or wrong.",
    403: "The request comes from another site's page, or names a Host that is not accepted.",
    404: "There is no such model, version or function.",
    408: "The body arrived too slowly, or the answer took too long.",
    413: "The request has more bytes, pixels, images or rows than one request may have.",
    415: "The file is not a PNG, JPEG or WebP, or the body has an unknown Content-Encoding.",
    422: "The body or a parameter does not match its schema.",
    429: "The service is too busy; Retry-After says when to try again.",
    503: "The service is not ready.",
}


def refusals(
    *statuses: int, model: type[BaseModel] = ErrorAnswer
) -> dict[int | str, dict[str, Any]]:
    """Document these error statuses for a route, and the statuses that any route may return."""
    found: dict[int | str, dict[str, Any]] = {}
    for status in sorted({*statuses, 401, 403, 408, 413, 415, 429}):
        found[status] = {"model": model, "description": ABOUT[status]}
    return found


class Body(BaseModel):
    """A JSON body. Unknown fields are ignored, because clients of the OpenAI API send more fields
    than the service knows.
    """

    model_config = ConfigDict(extra="ignore", protected_namespaces=())


def json_bytes(value: Any) -> bytes:
    """Encode a value as standard JSON, which has no NaN."""
    return json.dumps(value, allow_nan=False).encode()


def json_answer(value: Any, status: int = 200) -> Response:
    """Return a JSON response."""
    return Response(json_bytes(value), status, media_type="application/json")


def note_model(state: dict[str, Any], predictor: Predictor) -> None:
    """Add the model's name to the line of the request log. `state` is the state of the ASGI
    scope.
    """
    state["model"] = f"{predictor.name}@{predictor.version}"


def picture_of(content: bytes, limits: Limits, name: str) -> Picture:
    """Read an uploaded picture. Raises TooLarge for a decompression bomb, NotAPicture for an
    unreadable file.
    """
    try:
        return read_picture(content, name=name, max_pixels=limits.max_pixels)
    except ConfigError as error:
        message = str(error)
        kind = TooLarge if "pixels than the limit" in message else NotAPicture
        raise kind(message, param=name) from error


def for_model(picture: Picture, predictor: Predictor) -> np.ndarray:
    """Crop and scale a picture to the input of a model, uint8 [1, H, W, C]. An index of photographs
    takes the whole picture, squeezed. Raises BadRequest for a text model.
    """
    from PIL import Image, ImageOps

    model: Any = predictor.model
    spec = image_spec(model)
    if spec.datatype != "UINT8":
        raise BadRequest(
            f"model {predictor.name!r} takes text, not pictures; /api/retrieve accepts text with "
            "the header `Content-Type: text/plain`",
            param="model",
        )
    height, width, channels = spec.shape
    if isinstance(model, PhotoIndex):
        return prepared(picture.rgb, height)[None]
    image = Image.fromarray(picture.rgb)
    image = ImageOps.fit(
        image.convert("L") if channels == 1 else image, (width, height), Image.Resampling.BOX
    )
    return np.asarray(image, np.uint8).reshape(1, height, width, channels)


def text_row(predictor: Predictor, content: bytes) -> tuple[np.ndarray, list[str]]:
    """Convert a text to the input of a text model.

    Returns (the bag of words float32 [1, V], the words of the text that the model knows). Raises
    BadRequest if the text has none of these words, or the model does not name its words.
    """
    from genray.gen.data.text import vectorize

    data = predictor.config.get("data")
    data = data if isinstance(data, dict) else {}
    idf = data.get("recipe", {}).get("idf")
    if not idf:
        raise BadRequest(
            f"model {predictor.name!r}: config.json does not name the words of its vocabulary",
            param="model",
        )
    weighting = data.get("options", {}).get("weighting", "tf-idf")
    row_1V = vectorize([content[:100_000].decode("utf-8", "replace")], idf, weighting)
    words = [word for word, weight in zip(idf, row_1V[0]) if weight > 0]
    if not words:
        some = ", ".join(list(idf)[:: max(1, len(idf) // 6)][:6])
        raise BadRequest(
            f"the text has none of the {len(idf):,} words that the model knows, e.g. {some}",
            param="text",
        )
    return row_1V, words


def shown_query(picture: Picture, query_1HWC: np.ndarray, predictor: Predictor) -> np.ndarray:
    """Return the picture that an answer shows for a query, uint8 [H, W, C]: the model's input, or
    for an index of photographs a small copy.
    """
    if isinstance(predictor.model, PhotoIndex):
        return scaled(picture.rgb, THUMBNAIL)
    return query_1HWC[0]


def enlarged(image: np.ndarray, scale: int) -> np.ndarray:
    """Enlarge each pixel to a square of `scale` pixels."""
    return image if scale == 1 else image.repeat(scale, axis=0).repeat(scale, axis=1)


def png_base64(image: np.ndarray, scale: int = 1) -> bytes:
    """Encode uint8 [H, W, C] as a PNG in base64."""
    return base64.b64encode(encode_png(enlarged(image, scale)))


def png_text(image: np.ndarray, scale: int = 1) -> str:
    """Like `png_base64`, but returns a string."""
    return png_base64(image, scale).decode("ascii")
