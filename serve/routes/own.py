"""Defines the routes that no standard API has.

The routes find neighbours of a picture, draw latent walks, stream games, report the service's
health, and roll models back.
"""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Annotated, Any, cast

import numpy as np
from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import Response, StreamingResponse
from pydantic import BaseModel

from genray.errors import ConfigError
from genray.rl.env import EnvConfig
from genray.rl.evaluate import PlayedStep, action_names, play_steps
from genray.rl.networks import QNetwork
from serve.errors import BadRequest, TooLarge
from serve.fast_path import FastRequest, FastResponse
from serve.games import Places
from serve.models import Predictor
from serve.pilots import game_of
from serve.routes.common import (
    for_model,
    json_answer,
    json_bytes,
    note_model,
    picture_of,
    png_text,
    refusals,
    shown_query,
    text_row,
)
from serve.service import Check, Service
from serve.walk import walk

Name = Annotated[str, Path(max_length=64, description="A model's name.")]


class Health(BaseModel):
    """The answer of /healthz: the process answers requests."""

    status: str


ALIVE = {"status": "alive"}


async def fast_healthz(request: FastRequest) -> FastResponse:
    """Fast-path handler of /healthz."""
    return ALIVE_RESPONSE


ALIVE_RESPONSE = FastResponse(json_bytes(ALIVE))


class Readiness(BaseModel):
    """The answer of /readyz: which models are loaded, and why other models are not."""

    ready: bool
    models: list[str]
    failed: dict[str, str]


def health_routes(service: Service) -> APIRouter:
    """Return the routes that a load balancer calls."""
    router = APIRouter(tags=["health"])

    @router.get(
        "/healthz", summary="Whether the service is alive (no key needed)", response_model=Health
    )
    async def healthz() -> Response:
        return json_answer(ALIVE)

    @router.get(
        "/readyz",
        summary="Whether every model is loaded (no key needed)",
        response_model=Readiness,
        responses={
            503: {
                "model": Readiness,
                "description": "Some model is not loaded; `failed` has the reason.",
            }
        },
    )
    async def readyz() -> Response:
        ready, about = service.readiness()
        return json_answer(about, 200 if ready else 503)

    return router


def own_routes(service: Service) -> APIRouter:
    """Return the routes under /api, which call `service`."""
    router = APIRouter(prefix="/api", tags=["genray"])
    streams = _Streams(service.places)

    @router.post(
        "/models/{name}/rollback",
        responses=refusals(400, 404, 422),
        summary="Restore an earlier version of a model",
    )
    async def roll_back(
        name: Name,
        version: Annotated[
            str, Query(max_length=64, description="Empty: the newest version but the current one.")
        ] = "",
    ) -> Response:
        return json_answer({"id": name, "version": await service.roll_back(name, version)})

    @router.post(
        "/retrieve/{name}",
        responses=refusals(400, 404, 415, 422),
        summary="Find the nearest neighbours of a picture or a text by the model's codes",
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {
                    **{
                        kind: {"schema": {"type": "string", "format": "binary"}}
                        for kind in PICTURES
                    },
                    "text/plain": {"schema": {"type": "string"}},
                },
            }
        },
    )
    async def retrieve(
        request: Request, name: Name, count: Annotated[int, Query(ge=1, le=1000)] = 10
    ) -> Response:
        predictor = service.model(name)
        note_model(request.scope["state"], predictor)
        if count > service.limits.max_images:
            raise TooLarge(
                f"count {count}: must be at most {service.limits.max_images}", param="count"
            )
        # Raises if the model has no codes.
        encode = service.function(predictor, "encode")
        content = await request.body()
        is_text = request.headers.get("content-type", "").startswith("text/plain")

        # A picture of 25 million pixels takes a second to decode, too long for the event loop.
        def read(check: Check) -> tuple[np.ndarray, dict[str, Any]]:
            if is_text and len(predictor.config.get("shape", ())) == 1:
                row_1V, words = text_row(predictor, content)
                return row_1V, {"words": words}
            picture = picture_of(content, service.limits, "the picture")
            query_1HWC = for_model(picture, predictor)
            return query_1HWC, {"b64_json": png_text(shown_query(picture, query_1HWC, predictor))}

        query, shown = await service.run_slow(read)
        # Encode the query, and search the index in the thread for slow work.
        arrays = await service.predict(predictor, "encode", {encode.inputs[0].name: query})
        found = (
            await service.run_slow(
                lambda check: service.search.neighbours(predictor, arrays["code"], count, check)
            )
        )[0]
        neighbours = [
            {
                "row": row,
                "distance": distance,
                "label": found.labels[index] if found.labels else None,
                "name": found.names[index] if found.names else None,
                "b64_json": png_text(found.images[index]) if found.images is not None else None,
            }
            for index, (row, distance) in enumerate(zip(found.rows, found.distances))
        ]
        return json_answer({"query": shown, "neighbours": neighbours})

    @router.get(
        "/walk/{name}",
        responses={
            **refusals(400, 404, 422),
            200: {"content": {"image/gif": {}}, "description": "A looping GIF."},
        },
        response_class=Response,
        summary="Draw a walk through a generator's latents as a GIF",
    )
    async def latent_walk(
        request: Request,
        name: Name,
        seed: Annotated[int, Query(ge=0, le=2**31 - 1)] = 0,
        stops: Annotated[int, Query(ge=2, le=8)] = 4,
        frames: Annotated[int, Query(ge=1, le=32)] = 12,
    ) -> Response:
        predictor = service.model(name)
        note_model(request.scope["state"], predictor)
        service.function(predictor, "generate")
        if not predictor.can_walk:
            raise BadRequest(
                f"model {name!r} draws a sequence of sprites, and no screen lies between two "
                "others; use /v1/images/generations",
                param="name",
            )
        gif = await service.run_slow(lambda check: walk(predictor, seed, stops, frames))
        return Response(gif, media_type="image/gif")

    @router.get(
        "/play/{name}",
        responses={
            **refusals(400, 404, 422),
            200: {
                "content": {"application/x-ndjson": {}},
                "description": "One line with a JSON object for each step.",
            },
        },
        response_class=StreamingResponse,
        summary="Stream a policy's game: frames, values of the actions, score",
    )
    async def play(
        request: Request,
        name: Name,
        seed: Annotated[int, Query(ge=0, le=2**31 - 1)] = 0,
        steps: Annotated[int, Query(ge=1, le=1_000_000)] = 450,
        epsilon: Annotated[float, Query(ge=0, le=1)] = 0.001,
        fps: Annotated[
            float, Query(ge=1, le=120, description="Steps a second; 15 is the game's own speed.")
        ] = 15,
    ) -> Response:
        predictor = service.model(name)
        note_model(request.scope["state"], predictor)
        service.function(predictor, "act")
        if steps > service.limits.max_play_steps:
            raise TooLarge(
                f"steps {steps}: must be at most {service.limits.max_play_steps}", param="steps"
            )
        # Raise errors of the game before the answer begins, while an error status can be sent.
        env = game_of(predictor)
        if request.scope["state"].get("head"):
            return Response(media_type="application/x-ndjson")
        lines = streams.start(lambda: _game_lines(predictor, env, seed, steps, epsilon), fps)
        return StreamingResponse(lines, media_type="application/x-ndjson")

    return router


PICTURES = ("image/png", "image/jpeg", "image/webp")


class _Streams:
    """Streams games to clients. Each game runs in a thread of the default pool, at the speed at
    which its client reads.
    """

    def __init__(self, places: Places):
        self._places = places

    def start(self, make: Callable[[], Iterator[bytes]], fps: float) -> AsyncIterator[bytes]:
        """Stream the lines of a game, at most `fps` a second. Raises Busy."""
        self._places.take()
        return self._lines(make, fps)

    async def _lines(self, make: Callable[[], Iterator[bytes]], fps: float) -> AsyncIterator[bytes]:
        loop, steps, turn = asyncio.get_running_loop(), make(), threading.Lock()

        def advance() -> bytes | None:
            with turn:
                return next(steps, None)

        def close() -> None:
            with turn:  # The client may disconnect in the middle of a step.
                cast(Any, steps).close()

        try:
            due = loop.time()
            while (line := await loop.run_in_executor(None, advance)) is not None:
                yield line
                # After a delay of up to one second the stream catches up, after a longer one not.
                due = max(due + 1 / fps, loop.time() - 1)
                await asyncio.sleep(max(0.0, due - loop.time()))
        finally:
            self._places.give_back()
            loop.run_in_executor(None, close)


def _game_lines(
    predictor: Predictor, env: EnvConfig, seed: int, steps: int, epsilon: float
) -> Iterator[bytes]:
    """Yield one JSON line for each step. The last line is an error if the game is not installed."""
    network = cast(QNetwork, predictor.model)
    try:
        names = action_names(env)
        for number, step in enumerate(
            play_steps(network, env, epsilon=epsilon, seed=seed, max_steps=steps)
        ):
            yield _json_line(number, step, names)
    except ConfigError as error:
        yield json.dumps({"error": str(error)}).encode() + b"\n"


def _json_line(number: int, step: PlayedStep, names: list[str]) -> bytes:
    values: dict[str, Any] = {"step": number, "score": step.score, "png": png_text(step.frame)}
    if step.action is not None and step.q_A is not None:
        values |= {"action": names[step.action], "q": [round(float(q), 4) for q in step.q_A]}
    if number == 0:
        values["actions"] = names
    return json.dumps(values).encode() + b"\n"
