"""The short way: the few routes that are asked hundreds of times a second, answered without the
framework.

FastAPI tries a pattern for each route, builds a request around what it finds, resolves and
validates: more than everything else that a small request pays for in a replica. Here a
dictionary finds the function, and the function reads the body. The short way takes only what is
plainly right; whatever it leaves (None) goes the framework's way, whose refusals are those of
the OpenAPI document. Both ways call the same function for the work, so that a route has two
doors and one room.
"""

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, NamedTuple


class Asked(NamedTuple):
    """A request whose body has been read."""

    headers: Mapping[bytes, bytes]
    """Names in lower case."""
    body: bytes
    state: dict[str, Any]
    """What the request's log line will say of it."""


class Reply(NamedTuple):
    """A good answer: status 200."""

    body: bytes
    media_type: bytes = b"application/json"
    headers: tuple[tuple[bytes, bytes], ...] = ()


Short = Callable[[Asked], Awaitable[Reply | None]]
"""None: not for the short way. It may raise ApiError, which both ways word alike."""
ShortNamed = Callable[[str, Asked], Awaitable[Reply | None]]
INFER, INFER_END = "/v2/models/", "/infer"


class Express:
    """Finds a route's short way."""

    def __init__(self, exact: Mapping[tuple[str, str], Short], infer: ShortNamed | None = None):
        """`exact`: (method, path) → function. `infer`: POST /v2/models/{name}/infer, whose path
        holds a name.
        """
        self._exact, self._infer = dict(exact), infer

    def find(self, method: str, path: str) -> tuple[Short | None, str]:
        """(the function, or None where there is no short way; the route, as the framework names
        it).
        """
        if short := self._exact.get((method, path)):
            return short, path
        if self._infer and method == "POST" and path.startswith(INFER) and path.endswith(INFER_END):
            name = path[len(INFER) : -len(INFER_END)]
            if name and "/" not in name and len(name) <= 128:
                return partial(self._infer, name), "/v2/models/{name}/infer"
        return None, ""
