"""Tests that the fast path and FastAPI give the same answers, and FastAPI all refusals."""

import asyncio
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from serve.fast_path import FastPath, FastRequest
from serve.limits import Limits
from serve.middleware import Middleware
from serve.models import Arrays
from serve.service import Service, Settings
from serve.telemetry import MOST_SAMPLES, Sample
from serve.web import build_web

JSON = {"Content-Type": "application/json"}
KEY = "a-key-of-this-test-0001"
KEYED = {"Authorization": f"Bearer {KEY}"}


@pytest.fixture(scope="module")
def service(trained: Path) -> Iterator[Service]:
    made = Service(Settings(models_dir=str(trained), keys=(KEY,), limits=Limits(max_body_mb=1)))
    yield made
    made.close()


def ask(
    app: Middleware, method: str, path: str, content: bytes = b"", **headers: str
) -> httpx.Response:
    async def run() -> httpx.Response:
        transport = httpx.ASGITransport(app=app)  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.request(method, path, content=content, headers={**KEYED, **headers})

    return asyncio.run(run())


def only_fast_path(service: Service) -> Middleware:
    """Return the application without FastAPI, so that a request beyond the fast path fails."""

    async def nobody(*_: object) -> None:
        raise AssertionError("the fast path did not answer")

    whole = build_web(service)
    return Middleware(
        nobody, service.limits, service.telemetry, service.settings.keys, fast_path=whole._fast_path
    )


def only_fastapi(service: Service) -> Middleware:
    whole = build_web(service)
    whole._fast_path = FastPath({})
    return whole


def tensor(datatype: str, shape: list[int], name: str = "image") -> dict:
    return {"name": name, "shape": shape, "datatype": datatype, "data": [3] * int(np.prod(shape))}


GOOD = [
    ("GET", "/healthz", b"", {}),
    ("GET", "/v2/health/live", b"", {}),
    ("GET", "/v2/health/ready", b"", {}),
    (
        "POST",
        "/v1/images/generations",
        {"model": "digits-gan", "n": 3, "seed": 5, "size": "16x16"},
        JSON,
    ),
    (
        "POST",
        "/v1/images/generations",
        {"model": "digits-vae", "seed": 2**63 - 1, "n": 2, "user": "me"},
        JSON,
    ),
    ("POST", "/v1/images/generations", {"latent": [[0.5] * 32], "response_format": "url"}, JSON),
    ("POST", "/v1/images/generations?ignored=1", {"seed": 1, "model": None}, JSON),
    (
        "POST",
        "/v2/models/digits/infer",
        {"id": "a", "inputs": [tensor("UINT8", [2, 8, 8, 1])]},
        JSON,
    ),
    ("POST", "/v2/models/digits-vae.encode/infer", {"inputs": [tensor("UINT8", [1, 8, 8, 1])]}, {}),
    (
        "POST",
        "/v2/models/digits-vae.encode/infer",
        {"inputs": [tensor("UINT8", [1, 8, 8, 1])], "parameters": {"binary_data_output": True}},
        {},
    ),
]
BAD = [
    ("POST", "/v1/images/generations", b"{", JSON),
    ("POST", "/v1/images/generations", b"[]", JSON),
    ("POST", "/v1/images/generations", b"", JSON),
    ("POST", "/v1/images/generations", {"n": 0}, JSON),
    ("POST", "/v1/images/generations", {"n": 33}, JSON),
    ("POST", "/v1/images/generations", {"seed": -1}, JSON),
    ("POST", "/v1/images/generations", {"model": "nope"}, JSON),
    ("POST", "/v1/images/generations", {"model": "road-runner"}, JSON),
    ("POST", "/v1/images/generations", {"latent": [[1e300] * 32]}, JSON),
    ("POST", "/v1/images/generations", {"seed": 1}, {"Content-Type": "text/plain"}),
    ("POST", "/v1/images/generations", b"\xff" * 2_000_000, JSON),
    ("PUT", "/v1/images/generations", b"", {}),
    ("PUT", "/v2/health/live", b"", {}),
    ("GET", "/v2/models/digits/infer", b"", {}),
    ("POST", "/v2/models/nope/infer", b"{}", {}),
    ("POST", "/v2/models/digits/infer", b"{", {}),
    ("POST", "/v2/models/digits/infer", {"inputs": [tensor("FP32", [2, 8, 8, 1])]}, {}),
    ("POST", "/v2/models/digits/infer", b"{}", {"Inference-Header-Content-Length": "-1"}),
    ("POST", "/v2/models/" + "x" * 200 + "/infer", b"{}", {}),
    ("POST", "/v2/models//infer", b"{}", {}),
    ("POST", "/v2/models/a%2Fb/infer", b"{}", {}),
    ("GET", "/v2/health/live", b"", {"Authorization": "Bearer wrong"}),
]


def content_of(body: object) -> bytes:
    return body if isinstance(body, bytes) else json.dumps(body).encode()


def plain(answer: httpx.Response) -> tuple[int, str, object]:
    """Return (status, type, body) without the time of creation."""
    try:
        body = answer.json()
    except ValueError:
        body = answer.content
    if isinstance(body, dict):
        body.pop("created", None)
    return answer.status_code, answer.headers.get("content-type", ""), body


@pytest.mark.parametrize(("method", "path", "body", "headers"), GOOD)
def test_fast_path_answers_valid_requests_as_fastapi_does(
    service: Service, method: str, path: str, body: object, headers: dict
):
    fast = ask(only_fast_path(service), method, path, content_of(body), **headers)
    framework = ask(only_fastapi(service), method, path, content_of(body), **headers)
    assert fast.status_code == 200 and plain(fast) == plain(framework)
    own = ("inference-header-content-length", "x-content-type-options")
    assert [fast.headers.get(name) for name in own] == [framework.headers.get(name) for name in own]


@pytest.mark.parametrize(("method", "path", "body", "headers"), BAD)
def test_fast_path_leaves_invalid_requests_to_fastapi(
    service: Service, method: str, path: str, body: object, headers: dict
):
    both = ask(build_web(service), method, path, content_of(body), **headers)
    framework = ask(only_fastapi(service), method, path, content_of(body), **headers)
    assert both.status_code >= 400 and plain(both) == plain(framework)


def test_fast_path_counts_the_same_routes_as_fastapi(service: Service):
    counted = []
    for app in (only_fast_path(service), only_fastapi(service)):
        service.telemetry.take()
        for method, path, body, headers in GOOD:
            ask(app, method, path, content_of(body), **headers)
        counted.append(service.telemetry.take()[0])
    assert counted[0] == counted[1] and counted[0]["/v2/models/{name}/infer", "200"] == 3


def test_fast_path_logs_an_exception_and_returns_only_the_request_id(
    service: Service, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def broken(arrays: Arrays) -> Arrays:
        raise RuntimeError("a secret of the service")

    generate = service.registry.get("digits-gan").functions["generate"]
    monkeypatch.setitem(
        service.registry.get("digits-gan").functions,
        "generate",
        generate.__class__(*_with(generate, broken)),
    )
    with caplog.at_level(logging.ERROR):
        answer = ask(
            build_web(service), "POST", "/v1/images/generations", b'{"model": "digits-gan"}', **JSON
        )
    error = answer.json()["error"]
    assert (
        answer.status_code == 500
        and error["type"] == "server_error"
        and "secret" not in answer.text
    )
    assert (
        answer.headers["x-request-id"] in error["message"]
        and answer.headers["x-request-id"] in caplog.text
    )
    assert "a secret of the service" in caplog.text


def _with(function, run) -> tuple:
    return function.inputs, function.outputs, run


def test_middleware_sends_no_request_id_behind_a_server(service: Service):
    assert "x-request-id" not in ask(build_web(service, sends_id=False), "GET", "/healthz").headers


def test_fast_path_find_needs_a_name_between_slashes():
    async def infer(name: str, asked: FastRequest) -> None:
        return None

    fast_path = FastPath({}, infer)
    assert fast_path.find("POST", "/v2/models/a/infer")[1] == "/v2/models/{name}/infer"
    for path in (
        "/v2/models/infer",
        "/v2/models//infer",
        "/v2/models/a/b/infer",
        "/v2/models/a/infer/",
    ):
        assert fast_path.find("POST", path) == (None, "")
    assert fast_path.find("GET", "/v2/models/a/infer") == (None, "")


def test_sample_is_small_and_uniform():
    means = []
    for _ in range(20):
        sample = Sample()
        for value in range(10_000):
            sample.add(value)
        assert len(sample.kept) == MOST_SAMPLES
        means.append(np.mean(sample.kept))
    assert abs(np.mean(means) - 5_000) < 400  # 2,887 / sqrt(20 * 100) = 65 is one standard error
    few = Sample()
    for value in range(5):
        few.add(value)
    assert few.kept == [0, 1, 2, 3, 4]
