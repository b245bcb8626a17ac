"""Reads the headers in which a proxy in front of the service describes the client's request.

Any client can send these headers. They are therefore honoured only if the request comes from an
address that `--trusted-proxies` names, and removed from all other requests:

    X-Forwarded-For      the client's address, for the request log
    X-Forwarded-Proto    http or https, for the login's cookie
    X-Forwarded-Host     the name under which the client asked, for the check of a page's origin
    X-Forwarded-Prefix   the path in front of the service's own paths
"""

import ipaddress
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from functools import lru_cache
from typing import Any

from genray.errors import ConfigError

FORWARDED = frozenset(
    {
        b"x-forwarded-for",
        b"x-forwarded-proto",
        b"x-forwarded-host",
        b"x-forwarded-prefix",
        b"x-forwarded-port",
        b"x-forwarded-server",
        b"forwarded",
    }
)
"""All headers of this kind; the last three have no meaning here and are always removed."""
HONOURED = frozenset(name for name in FORWARDED if name.rpartition(b"-")[2] in (
    b"for", b"proto", b"host", b"prefix"
))  # fmt: skip
_PREFIX = re.compile(rb"(/[A-Za-z0-9._~-]{1,64}){1,8}")
_HOST = re.compile(rb"[A-Za-z0-9.:\[\]_-]{1,255}")

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def networks(words: Iterable[str], option: str = "--trusted-proxies") -> tuple[Network, ...]:
    """Return the networks that addresses (10.0.0.1) and networks (10.1.0.0/16) name.

    Raises ConfigError, which names the option.
    """
    found = []
    for word in words:
        try:
            found.append(ipaddress.ip_network(word.strip()))
        except ValueError:
            raise ConfigError(
                f"{option} {word}: must be an address or a network, e.g. 10.0.0.1 or 10.1.0.0/16"
            ) from None
    return tuple(found)


def is_prefix(path: str) -> bool:
    """Whether `path` may be put in front of the service's paths: / or e.g. /gen."""
    return path == "/" or bool(_PREFIX.fullmatch(path.encode()))


class TrustedProxies:
    """Honours or removes the headers of proxies.

    Args:
        trusted: the proxies' networks.
    """

    def __init__(self, trusted: tuple[Network, ...] = ()):
        self._trusted = trusted
        # The same few addresses send most requests; parsing one costs as much as the rest here.
        self._is_trusted = lru_cache(1024)(self._is_in_networks)

    def resolved(self, scope: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        """Return the scope of a request as the client sent it: `client`, `scheme` and
        `forwarded_prefix` are set from valid headers of a trusted proxy, and all other headers of
        this kind are removed. Without such headers, it is the same scope.
        """
        given = [pair for pair in scope["headers"] if pair[0] in FORWARDED]
        if not given:
            return scope
        sender = (scope.get("client") or ("",))[0]
        if len(given) == 1 and given[0][0] == b"x-forwarded-for" and self._is_trusted(sender):
            # The usual case behind HAProxy. Nothing else reads this header, so it may stay.
            return {**scope, "client": (self._client(given[0][1].split(b",")), 0)}
        kept = [pair for pair in scope["headers"] if pair[0] not in FORWARDED]
        scope = {**scope, "headers": kept}
        if not self._is_trusted(sender):
            return scope
        values: dict[bytes, list[bytes]] = {}
        for name, value in given:
            values.setdefault(name, []).extend(part.strip() for part in value.split(b","))
        if addresses := values.get(b"x-forwarded-for"):
            scope["client"] = (self._client(addresses), 0)
        # The first proxy, which the client asked, has set the first value.
        scheme = values.get(b"x-forwarded-proto", [b""])[0].lower()
        if scheme in (b"http", b"https"):
            scope["scheme"] = scheme.decode()
            kept.append((b"x-forwarded-proto", scheme))
        host = values.get(b"x-forwarded-host", [b""])[0]
        if _HOST.fullmatch(host):
            kept.append((b"x-forwarded-host", host))
        prefix = values.get(b"x-forwarded-prefix", [b""])[0].rstrip(b"/")
        if _PREFIX.fullmatch(prefix):
            scope["forwarded_prefix"] = prefix.decode()
            kept.append((b"x-forwarded-prefix", prefix))
        return scope

    def _client(self, addresses: list[bytes]) -> str:
        """Return the last address that no trusted proxy has, because each proxy appends one; if all
        are trusted, the first.
        """
        text = ""
        for address in reversed(addresses):
            text = address.strip().decode("latin-1")[:64]
            if not self._is_trusted(text):
                break
        return text

    def _is_in_networks(self, address: str) -> bool:
        try:
            found = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(found in network for network in self._trusted)


def own_path(scope: Mapping[str, Any]) -> tuple[str, str]:
    """Return (the path of a request without prefixes and without a slash at its end, the prefix
    under which the client knows the application: "/gen" or empty).

    Ray Serve mounts the application under `root_path`. A proxy in front may remove a further prefix
    from the path, or leave the prefix there.
    """
    path: str = scope["path"]
    mounted: str = scope.get("root_path", "").rstrip("/")
    public: str = scope.get("forwarded_prefix", "")
    for prefix in (mounted, public):
        if prefix and (path == prefix or path.startswith(prefix + "/")):
            path = path[len(prefix) :]
    return path.rstrip("/") or "/", public + mounted


async def redirect_to_directory(
    prefix: str, send: Callable[[dict[str, Any]], Awaitable[None]]
) -> None:
    """Send a browser from /gen to /gen/, because the page's links are relative."""
    location = f"{prefix.rpartition('/')[2]}/".encode()
    headers = [(b"location", location), (b"content-length", b"0")]
    await send({"type": "http.response.start", "status": 307, "headers": headers})
    await send({"type": "http.response.body", "body": b""})
