"""The login of the browser page: its form, and sessions that several replicas agree on.

A session is a cookie `EXPIRY.NONCE.MAC`. MAC is an HMAC-SHA256 of expiry and nonce under a secret
that is derived from an API key, so every replica with that key can check the cookie, and nothing is
stored. The key cannot be computed from the cookie. A session ends when it expires, when its key is
removed, or when the browser forgets the cookie (log-out).

Browsers send a host's cookies to all of its ports. The cookie's name therefore depends on the key,
so that the sessions of two services on one host do not replace each other.
"""

import hmac
import html
import re
import secrets
import time
from collections.abc import Iterable
from pathlib import Path

COOKIE = "genray_session"
"""The start of the name of each session's cookie."""
LIFE_S = 7 * 86_400
"""Seconds until a session expires."""
LOGIN_POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'"
)
_FORM = (Path(__file__).parent / "page" / "login.html").read_text(encoding="utf-8")
_SESSION = re.compile(rb"(\d{10,12})\.([0-9a-f]{32})\.([0-9a-f]{64})")
_NAME = re.compile(COOKIE.encode() + rb"(_[0-9a-f]{8})?")
_QUERY = re.compile(r"[A-Za-z0-9_.~%&=+:,-]{1,2000}")


class Sessions:
    """Makes and checks sessions.

    Args:
        keys: the API keys of the service.
    """

    def __init__(self, keys: Iterable[str]):
        self._secret_of = {
            key: hmac.digest(key.encode(), b"genray page session", "sha256") for key in keys
        }

    def new(self, key: str, now: float | None = None) -> str:
        """Return the cookie of a new session for `key`, one of the API keys.

        `now`: seconds since 1970; None: the current time.
        """
        expiry = int((time.time() if now is None else now) + LIFE_S)
        nonce = secrets.token_hex(16)
        return f"{expiry}.{nonce}.{_mac(self._secret_of[key], f'{expiry}.{nonce}'.encode())}"

    def name(self, key: str) -> str:
        """Return the name of the cookie of sessions for `key`, one of the API keys."""
        return f"{COOKIE}_{_mac(self._secret_of[key], b'cookie name')[:8]}"

    def accepted(self, header: bytes) -> list[str]:
        """Return the names of the cookies in a Cookie header that are accepted as sessions."""
        return [name for name, cookie in sessions_in(header) if self.accepts(cookie)]

    def accepts(self, cookie: bytes, now: float | None = None) -> bool:
        """Whether `cookie` is a session of one of the keys that has not expired."""
        match = _SESSION.fullmatch(cookie)
        if match is None or int(match[1]) < (time.time() if now is None else now):
            return False
        signed, mac = match[1] + b"." + match[2], match[3].decode()
        # All keys are compared, each in constant time, so that the duration reveals nothing.
        return any(
            [hmac.compare_digest(_mac(key, signed), mac) for key in self._secret_of.values()]
        )


def _mac(secret: bytes, signed: bytes) -> str:
    return hmac.digest(secret, signed, "sha256").hex()


def sessions_in(header: bytes) -> list[tuple[str, bytes]]:
    """Return names and values of the cookies in a Cookie header that may be sessions.

    Malformed cookies of other services on this host are skipped.
    """
    found = []
    for pair in header.split(b";"):
        name, _, value = pair.partition(b"=")
        if _NAME.fullmatch(name.strip()):
            found.append((name.strip().decode(), value.strip().strip(b'"')))
    return found


def login_page(query: bytes = b"", *, again: bool = False) -> bytes:
    """Return the HTML of the login form.

    `query`: the query of the page that the browser asked for; a login leads back there. `again`:
    say that the last key was not valid.
    """
    text = _FORM
    if safe := safe_query(query.decode("latin-1")):
        hidden = f'<input type="hidden" name="next" value="{html.escape(safe)}">'
        text = text.replace("</form>", f"{hidden}</form>")
    if again:
        text = text.replace("<form", '<p role="alert">This key is not valid.</p>\n<form')
    return text.encode()


def safe_query(query: str) -> str:
    """Return a query of the page if it has only harmless characters, else an empty string."""
    return query if _QUERY.fullmatch(query) else ""
