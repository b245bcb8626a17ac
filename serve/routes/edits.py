"""Defines /api/edits: the edits of /v1/images/edits with their progress, as a stream of lines."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse

from serve.edits import edit
from serve.errors import ApiError, InternalError
from serve.middleware import TooSlow
from serve.routes.common import note_model, refusals
from serve.routes.edit_form import EDITS, edit_form, editor
from serve.sending import error_body
from serve.service import Check, Service


def edit_routes(service: Service) -> APIRouter:
    """Return the route, which calls `service`."""
    router = APIRouter(prefix="/api", tags=["genray"])

    @router.post(
        "/edits",
        responses={
            **refusals(400, 404, 415, 422, 503),
            200: {
                "content": {"application/x-ndjson": {}},
                "description": "Lines with JSON objects: `waiting` (earlier slow requests), "
                "then `done` and `of` (steps of a dream), then the answer of /v1/images/edits, or "
                "`error`.",
            },
        },
        response_class=StreamingResponse,
        summary="Apply a style or a dream to a picture, and report the progress",
        openapi_extra={
            "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": EDITS}}}
        },
    )
    async def edits(request: Request) -> StreamingResponse:
        form = await edit_form(request, service)
        predictor = await editor(service, form.options.model)
        note_model(request.scope["state"], predictor)
        loop, lines = asyncio.get_running_loop(), asyncio.Queue[bytes | None]()

        def report(done: int, total: int) -> None:
            loop.call_soon_threadsafe(lines.put_nowait, _line({"done": done, "of": total}))

        def work(check: Check) -> bytes:
            report(0, 0)
            content, styles, mask = form.pictures(service.limits)
            result, about = edit(
                predictor, content, styles, form.options, service.limits, check, report, mask
            )
            encoded = form.output.encode(result).decode("ascii")
            return _line({"model": predictor.name, "about": about, "b64_json": encoded})

        async def work_in_time() -> bytes:
            limit_s = service.limits.request_timeout_s
            try:
                async with asyncio.timeout(limit_s):
                    return await service.run_slow(work)
            except TimeoutError:
                raise TooSlow(
                    f"the edit took longer than {limit_s} s: choose a smaller size or fewer steps"
                ) from None

        lines.put_nowait(_line({"waiting": service.waiting}))
        task = asyncio.ensure_future(work_in_time())
        task.add_done_callback(lambda ended: lines.put_nowait(None))
        # A service that is too busy refuses at once, with a status.
        await asyncio.sleep(0)
        if task.done() and isinstance(task.exception(), ApiError):
            raise task.exception()  # type: ignore[misc]
        request_id = request.scope["state"].get("request_id", "")
        return StreamingResponse(_lines(task, lines, request_id), media_type="application/x-ndjson")

    return router


async def _lines(
    task: "asyncio.Future[bytes]", lines: "asyncio.Queue[bytes | None]", request_id: str
) -> AsyncIterator[bytes]:
    """Yield the lines of an edit. When the client disconnects, the edit is cancelled."""
    try:
        while (line := await lines.get()) is not None:
            yield line
        try:
            yield task.result()
        except ApiError as error:
            yield _line(error_body(error, "/api"))
        except Exception:
            yield _line(error_body(InternalError(request_id), "/api"))
            raise
    finally:
        task.cancel()


def _line(value: dict[str, Any]) -> bytes:
    return json.dumps(value).encode() + b"\n"
