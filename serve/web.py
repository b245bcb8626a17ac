"""Builds the ASGI application around a `Service`: all routes, error responses, and the
middleware.
"""

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from fastapi.telemetry import TelemetryConfig
from starlette.exceptions import HTTPException

from genray import __version__
from serve.errors import ApiError, Fault, NotFound
from serve.express import Express
from serve.middleware import Middleware, error_body
from serve.routes.common import json_answer
from serve.routes.inference import inference_routes, quick_health, quick_infer
from serve.routes.openai import openai_routes, quick_generations
from serve.routes.own import health_routes, own_routes, quick_healthz
from serve.routes.page import page_routes
from serve.service import Service

ABOUT = """Trained generators, encoders, style models and policies.

* `/v1`: the shape of OpenAI's images API. * `/v2`: the Open Inference Protocol.
* `/api`: what neither has.
* Key: `Authorization: Bearer KEY`, where the service was started with keys. * Page: `/`."""


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
    """Build one ASGI application that answers every HTTP request. `sends_id`, `local`: see
    Middleware.
    """
    app = FastAPI(
        title="genray",
        version=__version__,
        description=ABOUT,
        docs_url=None,  # FastAPI's documentation page loads scripts from another site
        redoc_url=None,
        telemetry=UNTRACED,
    )
    live, ready = quick_health(service)
    short = {
        ("GET", "/healthz"): quick_healthz,
        ("GET", "/v2/health/live"): live,
        ("GET", "/v2/health/ready"): ready,
        ("POST", "/v1/images/generations"): quick_generations(service),
    }
    express = Express(short, quick_infer(service))
    guard = Middleware(
        app,
        service.limits,
        service.telemetry,
        service.settings.keys,
        express=express,
        sends_id=sends_id,
        local=local,
    )
    for router in (
        openai_routes(service),
        inference_routes(service),
        own_routes(service),
        health_routes(service),
        page_routes(service, guard),
    ):
        app.include_router(router)

    @app.exception_handler(ApiError)
    async def refused(request: Request, error: ApiError) -> Response:
        return _refusal(request, error)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        where = ".".join(
            str(part) for part in first.get("loc", ()) if part not in ("body", "query", "path")
        )
        message = f"{where or 'body'}: {first.get('msg', 'does not fit')}"
        return _refusal(request, Unacceptable(message[:300], param=where[:100] or None))

    @app.exception_handler(HTTPException)
    async def unrouted(request: Request, error: HTTPException) -> Response:
        if error.status_code == 405:
            refusal: ApiError = WrongMethod(f"{request.method} is not for this path")
            refusal.headers = dict(error.headers or {})
        elif error.status_code == 404:
            refusal = NotFound("no such path; /openapi.json lists them")
        else:
            refusal = Unacceptable(str(error.detail)[:300])
        return _refusal(request, refusal)

    @app.exception_handler(Exception)
    async def broken(request: Request, error: Exception) -> Response:
        # Starlette logs the traceback.
        return _refusal(request, Fault(request.scope["state"].get("request_id", "")))

    return guard


def _refusal(request: Request, error: ApiError) -> Response:
    answer = json_answer(error_body(error, request.url.path), error.status)
    for name, value in error.headers.items():
        answer.headers[name] = value
    return answer
