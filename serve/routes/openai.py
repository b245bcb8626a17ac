"""Defines the routes of OpenAI's images and models API: generate, edit, list and delete.

An edit applies a style or a dream. The OpenAPI document states all departures from OpenAI's API:
prompts are ignored, because the generators are unconditional; `seed` and `latent` are additional
fields; pictures are returned as `b64_json` or as a data URL.
[https://platform.openai.com/docs/api-reference/images]
"""

import time
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Path, Request
from fastapi.responses import Response
from pydantic import Field, ValidationError

from serve.edits import EditOptions, edit
from serve.errors import BadRequest, TooLarge
from serve.fast_path import FastHandler, FastRequest, FastResponse
from serve.models import Arrays, Predictor, describe, image_spec
from serve.routes.common import (
    MAX_SEED,
    Body,
    json_answer,
    json_bytes,
    note_model,
    picture_of,
    png_base64,
    refusals,
)  # fmt: skip
from serve.service import Check, Service, finite

Name = Annotated[str, Path(max_length=64, description="A model's name, as /v1/models lists it.")]


class Generations(Body):
    """Which images to generate."""

    model: str | None = Field(
        None, max_length=200, description="A generator's name; none: the first one."
    )
    prompt: str | None = Field(
        None, max_length=32_000, description="Ignored: the generators are unconditional."
    )
    n: int | None = Field(1, ge=1, le=1_000_000)
    size: str | None = Field(
        None,
        max_length=20,
        description="`auto`, or WIDTHxHEIGHT: a whole multiple of the model's own size.",
    )
    seed: int | None = Field(
        None, ge=0, le=MAX_SEED, description="Image i has the seed `seed` + i; none: a new seed."
    )
    latent: list[list[float]] | None = Field(
        None, max_length=1024, description="Latents instead of a seed, one row for each image."
    )
    response_format: Literal["b64_json", "url"] | None = "b64_json"


def openai_routes(service: Service) -> APIRouter:
    """Return the routes of OpenAI's API, which call `service`."""
    router = APIRouter(prefix="/v1", tags=["OpenAI shape"])

    @router.get("/models", responses=refusals(), summary="All models")
    async def list_models() -> Response:
        return json_answer(
            {"object": "list", "data": [card(service, each) for each in service.models()]}
        )

    @router.get("/models/{name}", responses=refusals(404, 422), summary="One model")
    async def get_model(name: Name) -> Response:
        return json_answer(card(service, service.model(name)))

    @router.delete(
        "/models/{name}",
        responses=refusals(400, 404, 422),
        summary="Delete a model; a rollback restores it",
    )
    async def delete_model(name: Name) -> Response:
        await service.delete(name)
        return json_answer({"id": name, "object": "model", "deleted": True})

    @router.post(
        "/images/generations", responses=refusals(400, 404, 422), summary="Generate images"
    )
    async def generate(request: Request, body: Generations) -> Response:
        return Response(
            await generate_json(service, body, request.scope["state"]),
            media_type="application/json",
        )

    @router.post(
        "/images/edits",
        responses=refusals(400, 404, 415, 422),
        summary="Apply a style or a dream to a picture",
        openapi_extra={
            "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": EDITS}}}
        },
    )
    async def edits(request: Request) -> Response:
        options, contents, as_url = await _edit_form(request, service)
        predictor = service.model(options.model) if options.model else _default_editor(service)
        note_model(request.scope["state"], predictor)

        def written(check: Check) -> bytes:
            # Decoded pictures take up to 75 MB each, so they are decoded only when this request's
            # turn comes.
            content, *styles = (
                picture_of(each, service.limits, f"image {index + 1}")
                for index, each in enumerate(contents)
            )
            result, about = edit(predictor, content, styles, options, service.limits, check)
            answer = {"created": int(time.time()), "model": predictor.name, "about": about}
            return with_pictures(answer, [png_base64(result)], as_url)

        return Response(await service.run_slow(written), media_type="application/json")

    return router


async def generate_json(service: Service, body: Generations, state: dict[str, Any]) -> bytes:
    """Generate images, and return the JSON answer. Raises ApiError."""
    predictor = service.model(body.model) if body.model else service.default_generator()
    note_model(state, predictor)
    service.function(predictor, "generate")
    seeds, latents = _latents(service, predictor, body)
    scale = scale_of(body.size, predictor, service.limits.max_side)
    as_url = body.response_format == "url"
    answer = {"created": int(time.time()), "model": predictor.name, "seed": seeds}

    # This runs in the batcher's thread, so that the event loop can serve other requests.
    def written(arrays: Arrays) -> bytes:
        return with_pictures(
            answer, [png_base64(image, scale) for image in arrays["image"]], as_url
        )

    return await service.predict(predictor, "generate", {"latent": latents}, written)


def fast_generations(service: Service) -> FastHandler:
    """Return the fast-path handler of POST /v1/images/generations."""

    async def handle(request: FastRequest) -> FastResponse | None:
        if request.headers.get(b"content-type") != b"application/json":
            return None
        try:
            body = Generations.model_validate_json(request.body)
        except ValidationError:
            return None  # FastAPI reports what is invalid
        return FastResponse(await generate_json(service, body, request.state))

    return handle


def with_pictures(answer: dict[str, Any], pictures: list[bytes], as_url: bool) -> bytes:
    """Return `answer` as JSON with OpenAI's `data` at its end.

    The pictures are base64, which needs no escaping, so they are joined as bytes.
    """
    before, after = (
        (b'{"url": "data:image/png;base64,', b'"}') if as_url else (b'{"b64_json": "', b'"}')
    )
    data = b", ".join(before + picture + after for picture in pictures)
    return json_bytes(answer)[:-1] + b', "data": [' + data + b"]}"


def card(service: Service, predictor: Predictor) -> dict[str, Any]:
    """Describe a model for /v1/models: OpenAI's four fields, and the model's functions."""
    return {
        "id": predictor.name,
        "object": "model",
        "created": int(service.started),
        "owned_by": "genray",
        "kind": predictor.kind,
        "version": predictor.version,
        "versions": service.registry.versions(predictor.name),
        "functions": sorted(predictor.functions),
        "about": describe(predictor),
    }


def scale_of(size: str | None, predictor: Predictor, max_side: int) -> int:
    """Return the factor by which `size` enlarges each pixel. Raises BadRequest, which lists the
    valid sizes, or TooLarge.
    """
    height, width, _ = image_spec(predictor.model).shape
    if size in (None, "", "auto"):
        return 1
    assert size is not None
    try:
        wide, high = (int(part) for part in size.lower().split("x"))
    except ValueError:
        raise BadRequest(
            f"size {size!r}: must be `auto` or WIDTHxHEIGHT, e.g. {4 * width}x{4 * height}",
            param="size",
        ) from None
    if max(wide, high) > max_side:
        raise TooLarge(
            f"size {size}: the longer side may have at most {max_side} pixels", param="size"
        )
    scale = wide // width if width else 0
    if scale < 1 or (scale * width, scale * height) != (wide, high):
        some = ", ".join(
            f"{k * width}x{k * height}" for k in (1, 2, 4, 8) if k * max(width, height) <= max_side
        )
        raise BadRequest(
            f"size {size}: model {predictor.name!r} makes multiples of {width}x{height}: {some}",
            param="size",
        )
    return scale


def _latents(
    service: Service, predictor: Predictor, body: Generations
) -> tuple[list[int], np.ndarray]:
    """Return (the seeds, empty if the client sends latents; latents float32 [n, Z])."""
    limit = service.limits.max_images
    number = len(body.latent) if body.latent is not None else (body.n or 1)
    if number > limit:
        raise TooLarge(f"n {number}: one request may ask for at most {limit} images", param="n")
    if body.latent is None:
        seed = body.seed if body.seed is not None else int(np.random.default_rng().integers(2**31))
        seeds = [(seed + index) % (MAX_SEED + 1) for index in range(number)]
        return seeds, predictor.latents(seeds)
    width = predictor.functions["generate"].inputs[0].shape[0]
    if not body.latent or any(len(row) != width for row in body.latent):
        raise BadRequest(
            f"latent: must be rows of {width} numbers, one row for each image", param="latent"
        )
    with np.errstate(over="ignore"):
        return [], finite(np.asarray(body.latent, np.float32), "latent")


def _default_editor(service: Service) -> Predictor:
    for predictor in service.models():
        if predictor.kind.startswith("style_"):
            return predictor
    raise BadRequest(
        "model: no style model is loaded; name a classifier to dream with, or train a style model: "
        "genray train style",
        param="model",
    )


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
        "model": {
            "type": "string",
            "description": "The name of a style model or classifier; none: the first style model.",
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
        "layer": {"type": "string", "description": "The layer that a dream excites."},
        "steps": {"type": "integer", "minimum": 1, "description": "Gradient steps of a dream."},
        "seed": {"type": "integer", "minimum": 0},
        "response_format": {"type": "string", "enum": ["b64_json", "url"]},
    },
}


async def _edit_form(request: Request, service: Service) -> tuple[EditOptions, list[bytes], bool]:
    """Parse a multipart form. Returns (the options, the picture files, whether the result is a data
    URL).
    """
    from starlette.datastructures import UploadFile
    from starlette.exceptions import HTTPException
    from starlette.formparsers import MultiPartException

    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise BadRequest("send a multipart/form-data body with the field `image`", param="image")
    contents: list[bytes] = []
    fields: dict[str, str] = {}
    try:
        # The form is closed at the end, because its large parts are temporary files.
        async with request.form(max_files=8, max_fields=32, max_part_size=2**16) as form:
            for key, value in form.multi_items():
                if not isinstance(value, UploadFile):
                    fields[key] = value
                elif key in ("image", "image[]", "style"):
                    contents.append(await value.read())
    except (
        HTTPException,
        MultiPartException,
        ValueError,
        AssertionError,
        KeyError,
        RuntimeError,
    ) as error:
        raise BadRequest("the multipart body cannot be read", param="image") from error
    if not contents:
        raise BadRequest("image: send a picture as a file in this field", param="image")
    return (
        EditOptions.read(fields, service.limits),
        contents,
        fields.get("response_format") == "url",
    )
