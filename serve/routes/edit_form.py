"""Reads the form of an edit: the options, the pictures, and the mask."""

import asyncio
from dataclasses import dataclass
from typing import Any

from fastapi import Request

from genray.gen.images.pictures import Picture
from serve.builtin import LITE0, load_lite0
from serve.edits import TRANSLATOR, EditOptions
from serve.errors import BadRequest
from serve.limits import Limits
from serve.models import Predictor
from serve.routes.common import picture_of
from serve.routes.formats import Output
from serve.service import Service


async def editor(service: Service, name: str) -> Predictor:
    """Return the model of an edit. An empty name chooses the first style model, or else the first
    translator. Raises ApiError.
    """
    if name == LITE0 and name not in service.registry.models:
        return await asyncio.to_thread(load_lite0)  # the first call reads a file
    return service.model(name) if name else _defaulteditor(service)


def _defaulteditor(service: Service) -> Predictor:
    models = service.models()
    for wanted in ("style_", TRANSLATOR):
        for predictor in models:
            if predictor.kind.startswith(wanted):
                return predictor
    raise BadRequest(
        "model: no style model is loaded; name lite0 or a classifier to dream with, or train a "
        "style model: genray train style",
        param="model",
    )


MAX_FILES, MAX_FIELDS = 8, 32
EDITS: dict[str, Any] = {
    "type": "object",
    "required": ["image"],
    "properties": {
        "image": {
            "description": (
                "The picture; further pictures (or `image[]`) are styles for a style_any model."
            ),
            "anyOf": [
                {"type": "string", "format": "binary"},
                {"type": "array", "items": {"type": "string", "format": "binary"}},
            ],
        },
        "mask": {
            "type": "string",
            "format": "binary",
            "description": "A PNG of the picture's size: only where it is transparent, the picture "
            "is edited. The edges are softened.",
        },
        "model": {
            "type": "string",
            "description": "The name of a style model, a translator (pix2pix, CycleGAN) or a "
            "classifier, or lite0, which is built in and makes dreams; none: the first style "
            "model, or else the first translator.",
        },
        "prompt": {"type": "string", "description": "Ignored."},
        "size": {
            "type": "string",
            "description": "`auto`, or the longest side in pixels as SIDExSIDE.",
        },
        "n": {"type": "integer", "minimum": 1, "maximum": 1},
        "alpha": {
            "type": "number",
            "minimum": 0,
            "maximum": 1,
            "description": "Strength of the style; 1 applies the full style.",
        },
        "keep_colours": {"type": "boolean"},
        "direction": {
            "type": "string",
            "enum": ["a_to_b", "b_to_a"],
            "description": "The direction of a translator.",
        },
        "prepare": {
            "type": "boolean",
            "description": "Make a translator's input from the picture, such as its edges.",
        },
        "layer": {"type": "string", "description": "The layer that a dream excites."},
        "channels": {
            "type": "string",
            "description": "Channels of the layer that a dream excites, e.g. `12,40`; none: all.",
        },
        "steps": {
            "type": "integer",
            "minimum": 1,
            "description": "Gradient steps of a dream at each of "
            "its sizes; none: 8 with a classifier, 24 with lite0.",
        },
        "seed": {"type": "integer", "minimum": 0},
        "response_format": {"type": "string", "enum": ["b64_json", "url"]},
        "output_format": {"type": "string", "enum": ["png", "jpeg", "webp"]},
        "output_compression": {"type": "integer", "minimum": 0, "maximum": 100},
        "stream": {"type": "boolean", "description": "Send an event `image_edit.completed`."},
        "background": {"type": "string", "enum": ["auto", "opaque"]},
    },
}


@dataclass(frozen=True)
class EditForm:
    """The fields and the files of an edit."""

    options: EditOptions
    output: Output
    images: list[bytes]
    """The picture, and the styles."""
    mask: bytes | None

    def pictures(self, limits: Limits) -> tuple[Picture, list[Picture], Picture | None]:
        """Return (the picture, the styles, the mask). Raises TooLarge or NotAPicture."""
        content, *styles = (
            picture_of(each, limits, f"image {index + 1}") for index, each in enumerate(self.images)
        )
        mask = None if self.mask is None else picture_of(self.mask, limits, "mask")
        return content, styles, mask


async def edit_form(request: Request, service: Service) -> EditForm:
    """Parse a multipart form. Raises BadRequest."""
    from starlette.datastructures import UploadFile
    from starlette.exceptions import HTTPException
    from starlette.formparsers import MultiPartException

    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise BadRequest("send a multipart/form-data body with the field `image`", param="image")
    contents: list[bytes] = []
    mask: bytes | None = None
    fields: dict[str, str] = {}
    try:
        # The form is closed at the end, because its large parts are temporary files.
        async with request.form(
            max_files=MAX_FILES, max_fields=MAX_FIELDS, max_part_size=2**16
        ) as form:
            for key, value in form.multi_items():
                if not isinstance(value, UploadFile):
                    fields[key] = value
                elif key in ("image", "image[]", "style"):
                    contents.append(await value.read())
                elif key == "mask":
                    mask = await value.read()
                else:
                    fields.setdefault(key, "a file")
    except (
        HTTPException,
        MultiPartException,
        ValueError,
        AssertionError,
        KeyError,
        RuntimeError,
    ) as error:
        many = str(getattr(error, "detail", error)).startswith("Too many")
        raise BadRequest(
            f"image: a form may have at most {MAX_FILES} files and {MAX_FIELDS} fields"
            if many
            else "the multipart body cannot be read",
            param="image",
        ) from error
    if not contents:
        raise BadRequest("image: send a picture as a file in this field", param="image")
    return EditForm(EditOptions.read(fields, service.limits), Output.read(fields), contents, mask)
