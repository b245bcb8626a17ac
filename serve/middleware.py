"""ASGI middleware that checks every request before its route runs, and records the request.

The middleware sets request ids, checks API keys, limits the size of bodies, the time of a request
and the number of concurrent requests, and writes the request log. The middleware uses plain ASGI,
because a framework's middleware would cost as much CPU time for a request as a small model.
"""

import asyncio
import hmac
import logging
import os
import re
import secrets
import time
from typing import Any

from serve.encoding import decoded
from serve.errors import ApiError, Busy, InternalError, TooLarge
from serve.fast_path import FastHandler, FastPath, FastRequest, FastResponse
from serve.forwarded import TrustedProxies, networks, own_path, redirect_to_directory
from serve.limits import Limits
from serve.login import Sessions
from serve.origin import check_origin
from serve.sending import Message, Receive, RecordingSend, Replay, Send, refuse_websocket
from serve.telemetry import Telemetry

log = logging.getLogger("genray.serve")

KEYLESS_PATHS = frozenset({"/healthz", "/readyz", "/login", "/page/login.css", "/page/icon.svg"})
"""Paths without checks of key, origin, load and Content-Length: load balancers check the health,
and the browser page shows and sends its login.
"""
MAX_HEAD_BYTES = 16_384  # the limit of HAProxy, too
SMALL_BODIES = {"/v1/images/generations": 2**20, "/login": 2**14}
"""Most bytes of a body by path: these bodies are parsed in the event loop. 32 latents have less."""
STREAMS = ("/api/play/", "/api/edits")
"""Prefixes of paths whose answers are streams. Their routes limit the time themselves, because a
stream that is cut off has no status: its last line must name the error.
"""
REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")  # serve/haproxy.py has the same pattern


class Unauthorized(ApiError):
    """The request has no key, or a wrong one."""

    status, code = 401, "invalid_api_key"

    def __init__(self) -> None:
        super().__init__("a key is needed: send the header `Authorization: Bearer KEY`")
        self.headers = {"WWW-Authenticate": "Bearer"}


class TooSlow(ApiError):
    """The body arrived too slowly, or the answer took too long."""

    status, code = 408, "timeout"


class HeadTooLarge(ApiError):
    """The path and the headers together exceed MAX_HEAD_BYTES."""

    status, code = 431, "headers_too_large"


class Disconnected(Exception):
    """The client disconnected before its request was complete."""


class Middleware:
    """Wraps an ASGI application with the checks and limits of the service.

    Args:
        app: the ASGI application, which answers requests that pass all checks.
        limits: the limits of one request and of all requests together.
        telemetry: receives the counts and the request log.
        keys: the accepted API keys. Empty: no key is needed.
        fast_path: routes that are answered without `app`.
        sends_id: False if a server in front adds the request id to each answer.
        local: the service listens on loopback and was not opened to other hosts. If there are no
            keys, only loopback names are accepted as Host. This prevents DNS rebinding, where a
            site lets its own host name resolve to the service.
        trusted_proxies: addresses and networks of proxies whose X-Forwarded headers are honoured.
    """

    def __init__(
        self,
        app: Any,
        limits: Limits,
        telemetry: Telemetry,
        keys: tuple[str, ...] = (),
        *,
        fast_path: FastPath | None = None,
        sends_id: bool = True,
        local: bool = False,
        trusted_proxies: tuple[str, ...] = (),
    ):
        self._proxies = TrustedProxies(networks(trusted_proxies))
        self._app, self._limits, self._telemetry = app, limits, telemetry
        self._keys = [key.encode() for key in keys]
        self.sessions = Sessions(keys)
        self._fast_path = fast_path or FastPath({})
        self._sends_id, self._local = sends_id, local and not keys

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)
        else:
            await self._websocket(scope, receive, send)

    async def _http(self, scope: Message, receive: Receive, send: Send) -> None:
        # Keep a valid request id of the client, or create one.
        start = time.perf_counter()
        scope = self._proxies.resolved(scope)
        method, headers = scope["method"], dict(scope["headers"])
        # One path for each route, behind a proxy that adds a prefix and with a trailing slash, too.
        path, prefix = own_path(scope)
        bare = path == "/" and not scope["path"].endswith("/")  # /gen without its slash
        if prefix and bare and method in ("GET", "HEAD"):
            await redirect_to_directory(prefix, send)
            return
        # The schema names the prefix; routes do not know the prefix.
        known = prefix if path == "/openapi.json" else ""
        scope = {**scope, "path": known + path, "root_path": known}
        given = headers.get(b"x-request-id", b"")
        request_id = given if REQUEST_ID.fullmatch(given) else secrets.token_hex(8).encode()
        answer, held, route = RecordingSend(send, request_id if self._sends_id else b""), 0, ""
        state: dict[str, Any] = scope.setdefault("state", {})
        state["request_id"] = request_id.decode()

        def reserve(count: int) -> None:
            """Add `count` bytes to those of all bodies. Raises Busy if these exceed the limit."""
            nonlocal held
            self._telemetry.body_bytes += count
            held += count
            if count > 0 and self._telemetry.body_bytes > self._limits.max_bodies_mb * 2**20:
                raise Busy("the bodies of other requests fill the memory for bodies")

        # HEAD is answered like GET, without the body.
        if method == "HEAD":
            scope["method"], state["head"], answer.head = "GET", True, True
        self._telemetry.in_flight += 1
        try:
            # Check the headers, then read the body.
            self._check_headers(scope["method"], path, headers)
            has_body = b"content-length" in headers or b"transfer-encoding" in headers
            body = await self._read(receive, self._limit(path)) if has_body else b""
            held = len(body)
            if b"content-encoding" in headers and body:
                encoding = headers.pop(b"content-encoding")
                body = await decoded(body, encoding, self._limit(path), reserve)
                reserve(len(body) - held)
            # Streams limit their time themselves. Others use the fast path or FastAPI.
            if path.startswith(STREAMS):
                await self._app(scope, Replay(body, receive), answer)
            else:
                handler, route = self._fast_path.find(scope["method"], path)
                async with asyncio.timeout(self._limits.request_timeout_s):
                    reply = (
                        await _run_handler(handler, FastRequest(headers, body, state))
                        if handler
                        else None
                    )
                    if reply:
                        await answer.reply(reply)
                    else:
                        await self._app(scope, Replay(body, receive), answer)
        # Send errors in the format of the API; a browser without a key gets the login page.
        except Unauthorized as error:
            is_browser = path == "/" and b"text/html" in headers.get(b"accept", b"")
            query = scope.get("query_string", b"")
            await (answer.login(query) if is_browser else answer.refuse(error, path))
        except ApiError as error:
            await answer.refuse(error, path)
        except Disconnected:
            pass
        except TimeoutError:
            await answer.refuse(
                TooSlow(f"the answer took longer than {self._limits.request_timeout_s} s"), path
            )
        finally:
            # Subtract the body's bytes from the total, and record the request.
            self._telemetry.in_flight -= 1
            self._telemetry.body_bytes -= held
            self._telemetry.request(
                route=route or getattr(scope.get("route"), "path", "other"),
                status=answer.status,
                seconds=time.perf_counter() - start,
                method=method,
                path=path[:200],
                bytes=answer.bytes,
                id=state["request_id"],
                client=(scope.get("client") or ("",))[0],
                model=state.get("model", ""),
            )

    async def _websocket(self, scope: Message, receive: Receive, send: Send) -> None:
        """Check the request that opens a WebSocket, as any other request, and pass it on."""
        start = time.perf_counter()
        scope = self._proxies.resolved(scope)
        path, headers = own_path(scope)[0], dict(scope["headers"])
        scope = {**scope, "path": path, "root_path": ""}
        state: dict[str, Any] = scope.setdefault("state", {})
        state["request_id"] = secrets.token_hex(8)
        status, size = 101, 0

        async def counted(message: Message) -> None:
            nonlocal size
            size += len(message.get("text") or "")
            await send(message)

        self._telemetry.in_flight += 1
        try:
            self._check_headers("WEBSOCKET", path, headers)
            await self._app(scope, receive, counted)
        except ApiError as error:
            status = error.status
            await refuse_websocket(error, path, scope, send)
        finally:
            self._telemetry.in_flight -= 1
            self._telemetry.request(
                route=getattr(scope.get("route"), "path", "other"), status=status,
                seconds=time.perf_counter() - start, method="WEBSOCKET", path=path[:200],
                bytes=size, id=state["request_id"], client=(scope.get("client") or ("",))[0],
                model=state.get("model", ""),
            )  # fmt: skip

    def _check_headers(self, method: str, path: str, headers: dict[bytes, bytes]) -> None:
        if (
            len(path) + sum(len(name) + len(value) for name, value in headers.items())
            > MAX_HEAD_BYTES
        ):
            raise HeadTooLarge(f"path and headers together exceed {MAX_HEAD_BYTES} bytes")
        if path in KEYLESS_PATHS:
            return
        if self._keys and not self._has_key(headers):
            raise Unauthorized
        # Another site's page can make a browser send cookies, but no bearer key. The origin is
        # therefore checked for requests without a bearer key.
        if not (self._keys and bearer(headers.get(b"authorization", b""))):
            check_origin(method, path, headers, self._local)
        if self._telemetry.in_flight > self._limits.max_in_flight:
            raise Busy(f"{self._limits.max_in_flight} requests are being answered")
        length, limit = headers.get(b"content-length", b"0"), self._limit(path)
        if not length.isdigit() or int(length) > limit:
            raise TooLarge(
                f"the body has {length[:20].decode('latin-1')} bytes; the limit is "
                f"{limit / 2**20:g} MiB"
            )

    def _limit(self, path: str) -> int:
        """Return the most bytes of a body that is sent to `path`."""
        return min(self._limits.max_body_bytes, SMALL_BODIES.get(path, 2**63))

    async def _read(self, receive: Receive, limit: int) -> bytes:
        """Read the whole body, and add its bytes to `_body_bytes` as they arrive, whatever
        Content-Length says.

        Raises TooLarge, TooSlow, Busy or Disconnected; the bytes are then subtracted again.
        """
        parts: list[bytes] = []
        size, more, whole = 0, True, False
        try:
            async with asyncio.timeout(self._limits.body_timeout_s):
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise Disconnected
                    parts.append(message.get("body", b""))
                    more = message.get("more_body", False)
                    size += len(parts[-1])
                    self._telemetry.body_bytes += len(parts[-1])
                    if size > limit:
                        raise TooLarge(f"the body exceeds the limit of {limit / 2**20:g} MiB")
                    if self._telemetry.body_bytes > self._limits.max_bodies_mb * 2**20:
                        raise Busy("the bodies of other requests fill the memory for bodies")
            whole = True
        except TimeoutError:
            raise TooSlow(
                f"the body did not arrive within {self._limits.body_timeout_s} s"
            ) from None
        finally:
            if not whole:
                self._telemetry.body_bytes -= size
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _has_key(self, headers: dict[bytes, bytes]) -> bool:
        given = bearer(headers.get(b"authorization", b""))
        if not given:
            return bool(self.sessions.accepted(headers.get(b"cookie", b"")))
        # All keys are compared, each in constant time, so that the duration reveals nothing.
        return any([hmac.compare_digest(given, each) for each in self._keys])

    def accepts_key(self, key: str) -> bool:
        """Whether `key` is one of the keys. The login of the page uses this."""
        given = key.encode(errors="replace")
        return any([hmac.compare_digest(given, each) for each in self._keys])


async def _run_handler(handler: FastHandler, request: FastRequest) -> FastResponse | None:
    """Run a fast-path handler. Raises ApiError. Other exceptions are logged and raised as
    InternalError.
    """
    try:
        return await handler(request)
    except ApiError:
        raise
    except Exception as error:
        log.exception("request %s failed", request.state["request_id"])
        raise InternalError(request.state["request_id"]) from error


def bearer(authorization: bytes) -> bytes:
    """Return the key of an Authorization header; empty if it has none."""
    kind, _, key = authorization.partition(b" ")
    return key.strip() if kind.lower() == b"bearer" else b""


def keys_in_environment() -> tuple[str, ...]:
    """Return the keys in GENRAY_API_KEY, split at commas."""
    return tuple(
        key.strip() for key in os.environ.get("GENRAY_API_KEY", "").split(",") if key.strip()
    )
