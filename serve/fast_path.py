"""Answers the few routes with high request rates without FastAPI.

FastAPI matches a pattern for each route, builds a request object, resolves dependencies and
validates. These steps cost more CPU time than the rest of a small request. On the fast path, a
dictionary finds the handler, and the handler reads the body. A handler answers only requests that
are clearly valid. For any other request the handler returns None, and FastAPI answers with the
errors of the OpenAPI document. Both paths call the same function for the work.
"""

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, NamedTuple


class FastRequest(NamedTuple):
    """A request whose body has been read."""

    headers: Mapping[bytes, bytes]
    """Header names are in lower case."""
    body: bytes
    state: dict[str, Any]
    """Fields that the request log adds to the line of this request."""


class FastResponse(NamedTuple):
    """A successful response, status 200."""

    body: bytes
    media_type: bytes = b"application/json"
    headers: tuple[tuple[bytes, bytes], ...] = ()


FastHandler = Callable[[FastRequest], Awaitable[FastResponse | None]]
"""Handler of the fast path. Returns None if FastAPI must answer. May raise ApiError, whose response
has the same format on both paths.
"""
NamedHandler = Callable[[str, FastRequest], Awaitable[FastResponse | None]]
INFER, INFER_END = "/v2/models/", "/infer"


class FastPath:
    """Finds the fast-path handler of a route.

    Args:
        exact: maps (method, path) to a handler.
        infer: handler of POST /v2/models/{name}/infer; its first argument is the name.
    """

    def __init__(
        self, exact: Mapping[tuple[str, str], FastHandler], infer: NamedHandler | None = None
    ):
        self._exact, self._infer = dict(exact), infer

    def find(self, method: str, path: str) -> tuple[FastHandler | None, str]:
        """Return (the handler, or None if the route has no fast path; the route as FastAPI names
        it).
        """
        if handler := self._exact.get((method, path)):
            return handler, path
        if self._infer and method == "POST" and path.startswith(INFER) and path.endswith(INFER_END):
            name = path[len(INFER) : -len(INFER_END)]
            if name and "/" not in name and len(name) <= 128:
                return partial(self._infer, name), "/v2/models/{name}/infer"
        return None, ""
