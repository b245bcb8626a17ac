"""Tests the bounds of bodies without a server: decompression, and JSON parsed by a process."""

import asyncio
import json
import random
import subprocess
import time
import zlib
from typing import Any

import pytest

from serve import parsing
from serve.encoding import FIRST, PIECE, decoded
from serve.errors import BadRequest
from serve.limits import Limits
from serve.middleware import Message, Middleware
from serve.models import TensorSpec
from serve.routes.tensors import _read_tensor
from serve.telemetry import Telemetry


@pytest.mark.parametrize("size", [0, 1, FIRST - 1, FIRST, FIRST + 1, 3 * PIECE, 5 * PIECE + 7])
@pytest.mark.parametrize("kind", ["equal bytes", "random bytes"])
def test_decoded_returns_every_byte_and_counts_each_before(size: int, kind: str):
    content = bytes(size) if kind == "equal bytes" else random.Random(0).randbytes(size)
    counted: list[int] = []
    found = asyncio.run(decoded(zlib.compress(content), b"deflate", size, counted.append))
    assert found == content and sum(counted) == size and max(counted) <= PIECE


async def _post(middleware: Middleware, body: bytes) -> int:
    """Send a compressed body to the middleware, and return the status of the answer."""
    messages: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Message) -> None:
        messages.append(message)

    headers = [(b"content-encoding", b"deflate"), (b"content-length", b"%d" % len(body))]
    path = "/v2/models/x/infer"
    scope = {"type": "http", "method": "POST", "path": path, "headers": headers}
    await middleware(scope, receive, send)
    return int(messages[0]["status"])


def test_middleware_counts_compressed_bodies_while_they_are_decompressed():
    """Each body may have 4 MB, and all bodies together may have 1 MB."""

    async def app(scope: Message, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})

    limits = Limits(max_body_mb=4, max_bodies_mb=1)
    middleware = Middleware(app, limits, Telemetry())
    real, inflated = asyncio.to_thread, 0

    async def measured(*args: Any) -> Any:
        nonlocal inflated
        piece = await real(*args)
        inflated += len(piece)
        return piece

    body = zlib.compress(bytes(2**22))

    async def run() -> list[int]:
        return await asyncio.gather(*(_post(middleware, body) for _ in range(3)))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asyncio, "to_thread", measured)
        statuses = asyncio.run(run())
    assert statuses == [429] * 3 and inflated <= 3 * 2**20
    assert middleware._body_bytes == 0
    assert asyncio.run(_post(middleware, zlib.compress(bytes(2**19)))) == 200


# -- JSON ------------------------------------------------------------------------------------------

SPEC = TensorSpec("x", "FP32", (2,))


@pytest.mark.parametrize(
    "data",
    [
        [1, 2.5, 3, 4],
        [[1, 2], [3, 4]],
        [True, 2, 3, 4],
        [True, 2.5, 3, 4],
        [True, False, True, True],
        [1, "2", 3, 4],
        [1, None, 3, 4],
        [2**70, 2, 3, 4],
        [[1, 2], [3]],
        [],
        "1234",
        {"a": 1},
        None,
    ],
)
def test_large_json_is_read_like_small_json(data: object):
    text = json.dumps(
        {"inputs": [{"name": "x", "datatype": "FP32", "shape": [2, 2], "data": data}]}
    )

    async def elsewhere() -> Any:
        return await parsing.parse_elsewhere(text.encode(), asyncio.Semaphore(1))

    def read(request: Any) -> Any:
        try:
            return _read_tensor(request["inputs"][0], SPEC, b"")[0].tolist()
        except BadRequest as error:
            return error.message

    assert read(asyncio.run(elsewhere())) == read(json.loads(text))


def test_parse_elsewhere_ends_its_process_when_the_request_is_cancelled(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
):
    program = tmp_path / "slow.py"
    program.write_text("import sys, time\nsys.stdin.buffer.read()\ntime.sleep(60)\n")
    started: list[subprocess.Popen[bytes]] = []

    class Noted(subprocess.Popen):
        def __init__(self, *args: Any, **options: Any):
            super().__init__(*args, **options)
            started.append(self)

    monkeypatch.setattr(parsing, "__file__", str(program))
    monkeypatch.setattr(subprocess, "Popen", Noted)

    async def cancelled() -> None:
        turns = asyncio.Semaphore(1)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(parsing.parse_elsewhere(b"[]", turns), 0.5)
        assert not turns.locked()

    begin = time.monotonic()
    asyncio.run(cancelled())
    assert started[0].wait(10) < 0 and time.monotonic() - begin < 15
    monkeypatch.setattr(parsing, "PARSE_S", 0.3)
    with pytest.raises(ValueError, match="too much time"):
        asyncio.run(parsing.parse_elsewhere(b"[]", asyncio.Semaphore(1)))
