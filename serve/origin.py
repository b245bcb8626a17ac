"""No other site's page may use the service through the browser of somebody who reaches it.

That we send no CORS headers keeps a page from reading answers, not from asking: a form, an image
or a simple POST is sent all the same, without a preflight. Programs (curl, the SDKs) send none
of the headers that are looked at here.
"""

import ipaddress
from collections.abc import Mapping

from serve.errors import ApiError


class Foreign(ApiError):
    """Another site's page asks, or a name that is not ours was asked for."""

    status, code = 403, "cross_site"


def check_origin(method: str, path: str, headers: Mapping[bytes, bytes], local: bool) -> None:
    """Raises Foreign for a request that a browser sends for another site's page.

    `local`: only loopback's names (any port: it may be forwarded) are heeded as Host. A link to
    the page itself may be followed from anywhere.
    """
    host = headers.get(b"host", b"")
    if local and host and not is_loopback(host.decode("latin-1")):
        raise Foreign(
            f"Host {host[:80].decode('latin-1')!r}: without a key only loopback is answered to; "
            "ask for 127.0.0.1 or "
            "localhost, set GENRAY_API_KEY, or start the service with --open"
        )
    site = headers.get(b"sec-fetch-site")
    if site is not None:  # the browser's own word, right behind any proxy
        foreign = site not in (b"same-origin", b"none")
        if (
            foreign
            and method == "GET"
            and path == "/"
            and headers.get(b"sec-fetch-mode") == b"navigate"
        ):
            return
    else:  # browsers leave it out towards http://HOST beyond loopback
        origin = headers.get(b"origin")
        hosts = (host, headers.get(b"x-forwarded-host", host))  # which no other site's page can set
        foreign = origin is not None and origin.partition(b"://")[2] not in hosts
    if foreign:
        raise Foreign(
            "another site's page may not ask; ask from the service's own page, or from a program"
        )


def is_loopback(host: str) -> bool:
    """Whether a Host header names this machine by a name of loopback, whatever the port."""
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    if name.lower().rstrip(".") == "localhost" or name.lower().endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
