"""Sends the answers of the middleware, and records what was sent."""

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from serve.errors import ApiError
from serve.fast_path import FastResponse
from serve.login import LOGIN_POLICY, login_page

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class Replay:
    """An ASGI `receive` that first returns a body that has been read already. Later calls wait for
    the client's disconnection.
    """

    def __init__(self, body: bytes, receive: Receive):
        self._body: bytes | None = body
        self._receive = receive

    async def __call__(self) -> Message:
        if self._body is None:
            return await self._receive()
        body, self._body = self._body, None
        return {"type": "http.request", "body": body, "more_body": False}


class RecordingSend:
    """An ASGI `send` that adds headers and records what was sent."""

    def __init__(self, send: Send, request_id: bytes):
        self._send = send
        self._headers = [(b"x-content-type-options", b"nosniff")]
        if request_id:
            self._headers.append((b"x-request-id", request_id))
        self.status, self.bytes = 499, 0  # 499 (the client disconnected) unless an answer is sent
        self.head = False
        """Whether bodies are left out."""

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message = {**message, "headers": [*message.get("headers", ()), *self._headers]}
        elif self.head:
            message = {**message, "body": b""}
        else:
            self.bytes += len(message.get("body", b""))
        await self._send(message)

    async def reply(self, reply: FastResponse) -> None:
        """Send a complete answer."""
        headers = [
            (b"content-type", reply.media_type),
            (b"content-length", b"%d" % len(reply.body)),
            *reply.headers,
        ]
        await self({"type": "http.response.start", "status": 200, "headers": headers})
        await self({"type": "http.response.body", "body": reply.body})

    async def login(self, query: bytes) -> None:
        """Send the page that asks a browser for a key. `query`: see `login_page`."""
        body = login_page(query)
        headers = [
            (b"content-type", b"text/html; charset=utf-8"),
            (b"content-length", str(len(body)).encode()),
        ]
        headers.append((b"content-security-policy", LOGIN_POLICY.encode()))
        await self({"type": "http.response.start", "status": 401, "headers": headers})
        await self({"type": "http.response.body", "body": body})

    async def refuse(self, error: ApiError, path: str) -> None:
        if self.status != 499:
            return  # the answer has begun: the connection can only be closed
        body = json.dumps(error_body(error, path)).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
        ]
        headers += [
            (name.lower().encode(), value.encode()) for name, value in error.headers.items()
        ]
        if error.status in (408, 413):  # the rest of the body will not be read
            headers.append((b"connection", b"close"))
        await self({"type": "http.response.start", "status": error.status, "headers": headers})
        await self({"type": "http.response.body", "body": body})


async def refuse_websocket(error: ApiError, path: str, scope: Message, send: Send) -> None:
    """Refuse a WebSocket before it is open: with the error's status and body, where the server can
    send these.
    """
    if "websocket.http.response" not in (scope.get("extensions") or {}):
        await send({"type": "websocket.close", "code": 1008, "reason": error.message[:120]})
        return
    body = json.dumps(error_body(error, path)).encode()
    headers = [(b"content-type", b"application/json")]
    start = {"type": "websocket.http.response.start", "status": error.status, "headers": headers}
    await send(start)
    await send({"type": "websocket.http.response.body", "body": body})


def error_body(error: ApiError, path: str) -> dict[str, Any]:
    """Format an error for the API of `path`: the Open Inference Protocol, or OpenAI's."""
    if path.startswith("/v2"):
        return {"error": error.message}
    kind = "server_error" if error.status >= 500 else "invalid_request_error"
    kind = "rate_limit_error" if error.status == 429 else kind
    return {
        "error": {"message": error.message, "type": kind, "param": error.param, "code": error.code}
    }
