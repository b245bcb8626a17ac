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
from pydantic import ConfigDict, Field, ValidationError

from serve.builtin import builtin_card, builtin_names
from serve.edits import edit
from serve.errors import BadRequest, TooLarge
from serve.fast_path import FastHandler, FastRequest, FastResponse
from serve.models import Arrays, Predictor, describe, image_spec
from serve.routes.common import (
    MAX_SEED,
    Body,
    json_answer,
    note_model,
    refusals,
)  # fmt: skip
from serve.routes.edit_form import EDITS, edit_form, editor
from serve.routes.formats import Output
from serve.service import Check, Service, finite

Name = Annotated[str, Path(max_length=64, description="A model's name, as /v1/models lists it.")]


class Generations(Body):
    """Which images to generate.

    Fields that the service does not know are kept, so that `Output.read` can refuse those that it
    cannot honour.
    """

    model_config = ConfigDict(extra="allow", protected_namespaces=())

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
    output_format: Literal["png", "jpeg", "webp"] | None = "png"
    output_compression: int | None = Field(
        None, ge=0, le=100, description="Quality of a JPEG or WebP; 100 is the best."
    )
    stream: bool | None = Field(
        None, description="Send an event `image_generation.completed` for each image."
    )
    background: str | None = Field(None, max_length=20, description="`auto` or `opaque`.")
    partial_images: int | None = Field(None, description="0: no partial images are made.")


def openai_routes(service: Service) -> APIRouter:
    """Return the routes of OpenAI's API, which call `service`."""
    router = APIRouter(prefix="/v1", tags=["OpenAI shape"])

    @router.get("/models", responses=refusals(), summary="All models")
    async def list_models() -> Response:
        return json_answer(
            {
                "object": "list",
                "data": [card(service, each) for each in service.models()],
                # An extra field, because OpenAI's clients may generate with every model of `data`.
                "builtin": [
                    builtin_card(int(service.started))
                    for name in builtin_names()
                    if name not in service.registry.models
                ],
            }
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
        content, media_type = await generate_images(service, body, request.scope["state"])
        return Response(content, media_type=media_type)

    @router.post(
        "/images/edits",
        responses=refusals(400, 404, 415, 422),
        summary="Apply a style or a dream to a picture",
        openapi_extra={
            "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": EDITS}}}
        },
    )
    async def edits(request: Request) -> Response:
        form = await edit_form(request, service)
        predictor = await editor(service, form.options.model)
        note_model(request.scope["state"], predictor)

        def written(check: Check) -> tuple[bytes, str]:
            # Decoded pictures take up to 75 MB each, so they are decoded only when this request's
            # turn comes.
            content, styles, mask = form.pictures(service.limits)
            result, about = edit(
                predictor, content, styles, form.options, service.limits, check, mask=mask
            )
            answer = {"created": int(time.time()), "model": predictor.name, "about": about}
            height, width = result.shape[:2]
            return form.output.answer(
                answer, [form.output.encode(result)], (width, height), "image_edit.completed"
            )

        body, media_type = await service.run_slow(written)
        return Response(body, media_type=media_type)

    return router


async def generate_images(
    service: Service, body: Generations, state: dict[str, Any]
) -> tuple[bytes, str]:
    """Generate images. Returns (the body of the answer, its media type). Raises ApiError."""
    output = Output.read({**(body.model_extra or {}), **dict(body)})
    predictor = service.model(body.model) if body.model else service.default_generator()
    note_model(state, predictor)
    service.function(predictor, "generate")
    seeds, latents = _latents(service, predictor, body)
    scale = scale_of(body.size, predictor, service.limits.max_side)
    answer = {"created": int(time.time()), "model": predictor.name, "seed": seeds}

    # This runs in the batcher's thread, so that the event loop can serve other requests.
    def written(arrays: Arrays) -> tuple[bytes, str]:
        images = arrays["image"]
        height, width = (scale * side for side in images.shape[1:3])
        pictures = [output.encode(image, scale) for image in images]
        return output.answer(answer, pictures, (width, height), "image_generation.completed")

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
        content, media_type = await generate_images(service, body, request.state)
        return FastResponse(content, media_type.encode())

    return handle


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
