"""Builds the ASGI application around a `Service`: routes, error responses and middleware."""

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from fastapi.telemetry import TelemetryConfig
from starlette.exceptions import HTTPException

from genray import __version__
from serve.errors import ApiError, InternalError, NotFound
from serve.fast_path import FastPath
from serve.middleware import Middleware
from serve.routes.common import json_answer
from serve.routes.edits import edit_routes
from serve.routes.explore import explore_routes
from serve.routes.inference import fast_health, fast_infer, inference_routes
from serve.routes.openai import fast_generations, openai_routes
from serve.routes.own import fast_healthz, health_routes, own_routes
from serve.routes.page import page_routes
from serve.routes.repository import repository_routes
from serve.routes.worlds import world_routes
from serve.sending import error_body
from serve.service import Service

ABOUT = """Trained generators, encoders, style models and policies.

* `/v1`: requests and answers as in OpenAI's images API.
* `/v2`: the Open Inference Protocol.
* `/api`: operations that neither API has. `/api/worlds/NAME` is a WebSocket: a game inside a world
  model.
* Key: send `Authorization: Bearer KEY` if the service was started with keys.
* `/`: the browser page."""


# Ray sets OpenTelemetry's global meter. FastAPI would record every request there a second time.
UNTRACED: TelemetryConfig = {
    "tracing": False,
    "metrics": False,
    "logs": False,
    "operation_spans": False,
}


class Unacceptable(ApiError):
    """A body or parameter does not match its schema."""

    status, code = 422, "unprocessable"


class WrongMethod(ApiError):
    """The path exists, but not with this HTTP method."""

    status, code = 405, "method_not_allowed"


def build_web(service: Service, *, sends_id: bool = True, local: bool = False) -> Middleware:
    """Build one ASGI application that answers every HTTP request.

    `sends_id`, `local`: see Middleware.
    """
    app = FastAPI(
        title="genray",
        version=__version__,
        description=ABOUT,
        docs_url=None,  # FastAPI's documentation page loads scripts from another site
        redoc_url=None,
        telemetry=UNTRACED,
        redirect_slashes=False,  # the middleware removes the slash
    )
    live, ready = fast_health(service)
    handlers = {
        ("GET", "/healthz"): fast_healthz,
        ("GET", "/v2/health/live"): live,
        ("GET", "/v2/health/ready"): ready,
        ("POST", "/v1/images/generations"): fast_generations(service),
    }
    fast_path = FastPath(handlers, fast_infer(service))
    middleware = Middleware(
        app,
        service.limits,
        service.telemetry,
        service.settings.keys,
        fast_path=fast_path,
        sends_id=sends_id,
        local=local,
        trusted_proxies=service.settings.trusted_proxies,
    )
    for router in (
        openai_routes(service),
        # Before the models, because /v2/models/stats is no model.
        repository_routes(service),
        inference_routes(service),
        own_routes(service),
        world_routes(service),
        edit_routes(service),
        explore_routes(service),
        health_routes(service),
        page_routes(service, middleware),
    ):
        app.include_router(router)

    @app.exception_handler(ApiError)
    async def refused(request: Request, error: ApiError) -> Response:
        return _refusal(request, error)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        kind = request.headers.get("content-type", "")
        if request.method == "POST" and "json" not in kind and _whole_body(error):
            return _refusal(
                request,
                Unacceptable(
                    f"Content-Type {kind[:60]!r}: send JSON with the header `Content-Type: "
                    "application/json` (curl: -H 'Content-Type: application/json')"
                ),
            )
        first = error.errors()[0]
        where = ".".join(
            str(part) for part in first.get("loc", ()) if part not in ("body", "query", "path")
        )
        message = f"{where or 'body'}: {first.get('msg', 'does not match the schema')}"
        return _refusal(request, Unacceptable(message[:300], param=where[:100] or None))

    @app.exception_handler(HTTPException)
    async def unrouted(request: Request, error: HTTPException) -> Response:
        if error.status_code == 405:
            refusal: ApiError = WrongMethod(
                f"{request.method} is not allowed for this path; /openapi.json lists the methods"
            )
            refusal.headers = dict(error.headers or {})
        elif error.status_code == 404:
            refusal = NotFound("no such path; /openapi.json lists all paths")
        else:
            refusal = Unacceptable(str(error.detail)[:300])
        return _refusal(request, refusal)

    @app.exception_handler(Exception)
    async def broken(request: Request, error: Exception) -> Response:
        # Starlette logs the traceback.
        return _refusal(request, InternalError(request.scope["state"].get("request_id", "")))

    return middleware


def _whole_body(error: RequestValidationError) -> bool:
    """Whether the body as a whole is invalid, not one of its fields."""
    return any(tuple(each.get("loc", ())) == ("body",) for each in error.errors())


def _refusal(request: Request, error: ApiError) -> Response:
    answer = json_answer(error_body(error, request.url.path), error.status)
    for name, value in error.headers.items():
        answer.headers[name] = value
    return answer
