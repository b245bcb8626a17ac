"""Rejects requests that another site's page sends through a user's browser.

The service sends no CORS headers, so other pages cannot read its answers. They can still send
requests: a form, an image or a simple POST needs no preflight. Programs (curl, the SDKs) send none
of the headers that are checked here.
"""

import ipaddress
from collections.abc import Mapping

from serve.errors import ApiError


class CrossSite(ApiError):
    """The request comes from another site's page, or its Host is not a name of this service."""

    status, code = 403, "cross_site"


def check_origin(method: str, path: str, headers: Mapping[bytes, bytes], local: bool) -> None:
    """Raise CrossSite for a request that a browser sends for another site's page.

    `headers`: names in lower case. `local`: accept only loopback names as Host, with any port,
    because the port may be forwarded. Links to the page from any site are accepted.
    """
    host = headers.get(b"host", b"")
    if local and host and not is_loopback(host.decode("latin-1")):
        raise CrossSite(
            f"Host {host[:80].decode('latin-1')!r}: without keys, the service answers only to "
            "127.0.0.1 and localhost; use one of these names, set GENRAY_API_KEY, or start the "
            "service with --open"
        )
    site = headers.get(b"sec-fetch-site")
    if site is not None:
        # The browser sets this header, and proxies do not change it.
        cross_site = site not in (b"same-origin", b"none")
        if (
            cross_site
            and method == "GET"
            and path == "/"
            and headers.get(b"sec-fetch-mode") == b"navigate"
        ):
            return
    else:
        # Browsers omit Sec-Fetch-Site for http://HOST beyond loopback. Compare Origin with Host
        # instead. Another site's page cannot set X-Forwarded-Host.
        origin = headers.get(b"origin")
        hosts = (host, headers.get(b"x-forwarded-host", host))
        cross_site = origin is not None and origin.partition(b"://")[2] not in hosts
    if cross_site:
        raise CrossSite(
            "requests from another site's page are refused; send the request from the service's "
            "own page or from a program"
        )


def is_loopback(host: str) -> bool:
    """Whether a Host header is a name of loopback, with any port."""
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    if name.lower().rstrip(".") == "localhost" or name.lower().endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
