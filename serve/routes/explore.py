"""Defines routes that show what a model can do: examples, covers, latents, layers, maps, readings.

The browser page uses them. They are documented like all routes, so programs can use them, too.
"""

import asyncio
from typing import Annotated, Any, cast

import numpy as np
from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import Response

from genray import __version__
from genray.gen.images.dream import choose_layer
from serve.covers import cover
from serve.edits import features_of
from serve.errors import BadRequest, NotFound
from serve.examples import described, example_png, examples
from serve.explore import Explorer, sheet
from serve.models import Predictor
from serve.png import encode_png
from serve.routes.common import (
    for_model,
    json_answer,
    note_model,
    picture_of,
    png_text,
    refusals,
    shown_query,
)
from serve.routes.openai import editor
from serve.service import Check, Service

Name = Annotated[str, Path(max_length=64, description="A model's name.")]
PICTURES = ("image/png", "image/jpeg", "image/webp")
PNG_ANSWER: dict[int | str, dict[str, Any]] = {
    200: {"content": {"image/png": {}}, "description": "A PNG."}
}
PICTURE_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {kind: {"schema": {"type": "string", "format": "binary"}} for kind in PICTURES},
    }
}
SHEET_COLUMNS = 25
KEEP = {"Cache-Control": "private, max-age=3600"}
"""The page adds the model's version to the address, so an old picture is never shown."""


def explore_routes(service: Service) -> APIRouter:
    """Return the routes under /api that describe models and read pictures."""
    router = APIRouter(prefix="/api", tags=["genray"])
    explorer = Explorer(service.search)

    def chosen(request: Request, name: str, function: str = "") -> Predictor:
        predictor = service.model(name)
        note_model(request.scope["state"], predictor)
        if function:
            service.function(predictor, function)
        return predictor

    @router.get("/service", responses=refusals(), summary="Version, limits and rights")
    async def about_service() -> Response:
        limits = service.limits
        return json_answer(
            {
                "version": __version__,
                "login": bool(service.settings.keys),
                "allow_changes": service.settings.allow_changes,
                "limits": {
                    name: getattr(limits, name)
                    for name in (
                        "max_images",
                        "max_side",
                        "max_steps",
                        "max_play_steps",
                        "max_dream_steps",
                    )
                },
            }
        )

    @router.get("/examples", responses=refusals(), summary="Example pictures with their credits")
    async def list_examples() -> Response:
        return json_answer({"examples": await asyncio.to_thread(described)})

    @router.get(
        "/examples/{name}",
        responses={**refusals(404, 422), **PNG_ANSWER},
        response_class=Response,
        summary="An example picture",
    )
    async def example(
        name: Annotated[str, Path(max_length=40)],
        size: Annotated[int, Query(ge=16, le=512, description="Longest side in pixels.")] = 512,
    ) -> Response:
        found = await asyncio.to_thread(examples)
        if name not in found:
            raise NotFound(f"no example {name!r}; there are {', '.join(found)}", param="name")
        content = await asyncio.to_thread(example_png, name, size)
        return Response(content, media_type="image/png", headers=KEEP)

    @router.get(
        "/cover/{name}",
        responses={**refusals(400, 404, 422, 503), **PNG_ANSWER},
        response_class=Response,
        summary="A picture that shows what a model makes",
    )
    async def model_cover(
        request: Request,
        name: Name,
        version: Annotated[str, Query(max_length=64, description="Ignored; for caches.")] = "",
    ) -> Response:
        predictor = await editor(service, name)
        note_model(request.scope["state"], predictor)
        content = await service.run_slow(
            lambda check: explorer.kept(
                predictor, "cover", lambda: encode_png(cover(predictor, explorer, check))
            )
        )
        return Response(content, media_type="image/png", headers=KEEP)

    @router.get(
        "/pictures/{name}",
        responses=refusals(400, 404, 422),
        summary="Pictures or texts that a model was not trained on",
    )
    async def test_pictures(
        request: Request, name: Name, count: Annotated[int, Query(ge=1, le=32)] = 12
    ) -> Response:
        predictor = chosen(request, name)

        def work(check: Check) -> dict[str, Any]:
            rows = explorer.test_rows(predictor, count)
            labels = rows["labels"] or [None] * len(rows["images"])
            pictures = [
                {"label": label, "b64_json": png_text(image)}
                for label, image in zip(labels, rows["images"])
            ]
            return {"pictures": pictures, "texts": rows["texts"], "credit": rows["credit"]}

        return json_answer(await service.run_slow(work))

    @router.get(
        "/latents/{name}",
        responses=refusals(400, 404, 422),
        summary="The latents of a seed, and how much each latent changes the image",
    )
    async def latents(
        request: Request, name: Name, seed: Annotated[int, Query(ge=0, le=2**63 - 1)] = 0
    ) -> Response:
        predictor = chosen(request, name, "generate")
        if not predictor.can_walk:
            raise BadRequest(
                f"model {name!r} draws a sequence of sprites: its latents have no single effect",
                param="name",
            )
        effect_Z = await service.run_slow(lambda check: explorer.effects(predictor, check))
        uniform = predictor.config.get("prior") == "uniform"
        return json_answer(
            {
                "seed": seed,
                "latent": [round(float(value), 6) for value in predictor.latents([seed])[0]],
                "effect": [round(float(value), 4) for value in effect_Z],
                "order": np.argsort(-effect_Z, kind="stable").tolist(),
                "reach": 1 if uniform else 3,
            }
        )

    @router.get(
        "/layers/{name}",
        responses=refusals(400, 404, 422, 503),
        summary="The layers that a dream can excite, with their numbers of channels",
    )
    async def layers(request: Request, name: Name) -> Response:
        predictor = await editor(service, name)
        note_model(request.scope["state"], predictor)

        def work(check: Check) -> dict[str, Any]:
            features = features_of(predictor)
            found = [
                {"name": layer, "channels": features.width_of(layer)} for layer in features.layers
            ]
            return {"layers": found, "default": choose_layer(features, "")}

        return json_answer(await service.run_slow(work))

    @router.get(
        "/map/{name}",
        responses=refusals(400, 404, 413, 422),
        summary="The codes of training pictures as points in the plane",
    )
    async def code_map(
        request: Request, name: Name, count: Annotated[int, Query(ge=3, le=1000)] = 500
    ) -> Response:
        predictor = chosen(request, name, "encode")

        def work(check: Check) -> dict[str, Any]:
            found = dict(explorer.code_map(predictor, count, check))
            images = found.pop("images")
            if images is None:
                return found
            height, width = images[0].shape[:2]
            return {
                **found,
                "sheet": png_text(sheet(images, SHEET_COLUMNS)),
                "columns": SHEET_COLUMNS,
                "tile": [height, width],
            }

        return json_answer(await service.run_slow(work))

    async def read(
        request: Request, name: str, function: str
    ) -> tuple[Predictor, np.ndarray, str, Any]:
        """Return (the model, its input, the picture to show for it, the function's output)."""
        predictor = chosen(request, name, function)
        content = await request.body()

        def decode(check: Check) -> tuple[np.ndarray, np.ndarray]:
            picture = picture_of(content, service.limits, "the picture")
            query_1HWC = for_model(picture, predictor)
            return query_1HWC, shown_query(picture, query_1HWC, predictor)

        query_1HWC, shown = await service.run_slow(decode)
        found = await service.predict(predictor, function, {"image": query_1HWC})
        return predictor, query_1HWC, png_text(shown), found

    @router.post(
        "/classify/{name}",
        responses=refusals(400, 404, 415, 422),
        summary="The probability of each class of a picture",
        openapi_extra=PICTURE_BODY,
    )
    async def classify(request: Request, name: Name) -> Response:
        predictor, _, shown, found = await read(request, name, "classify")
        data = predictor.config.get("data")
        names = list(data.get("classes") or []) if isinstance(data, dict) else []
        probabilities = [float(value) for value in found["probability"][0]]
        ranked = sorted(enumerate(probabilities), key=lambda each: -each[1])
        classes = [
            {"label": names[index] if index < len(names) else str(index), "probability": value}
            for index, value in ranked
        ]
        return json_answer({"query": {"b64_json": shown}, "classes": classes})

    @router.post(
        "/reconstruct/{name}",
        responses=refusals(400, 404, 415, 422),
        summary="A picture, encoded and decoded again",
        openapi_extra=PICTURE_BODY,
    )
    async def reconstruct(request: Request, name: Name) -> Response:
        _, query_1HWC, shown, found = await read(request, name, "reconstruct")
        image = cast(np.ndarray, found["image"])[0]
        error = float(np.mean((image.astype(float) - query_1HWC[0]) ** 2)) / 255**2
        return json_answer(
            {
                "query": {"b64_json": shown},
                "b64_json": png_text(image),
                "mean_squared_error": round(error, 6),
            }
        )

    return router
