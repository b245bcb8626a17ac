"""Tests the login of the page: the form, sessions instead of keys in cookies, and the log-out."""

from collections.abc import Callable
from urllib.parse import urlencode

import pytest

from serve.login import COOKIE, LIFE_S, Sessions, login_page, sessions_in
from tests.helpers.requests import ask
from tests.serve.conftest import Web

KEY, OTHER = "a-key-of-this-test-0001", "another-key-of-it-0002"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


def log_in(web: Web, key: str = KEY, **fields: str) -> tuple[int, dict[str, str], bytes]:
    return ask(web, "/login", "POST", urlencode({"key": key, **fields}).encode(), **FORM)


# -- sessions --------------------------------------------------------------------------------------


def test_sessions_are_accepted_by_every_replica_with_the_key():
    session = Sessions((KEY, OTHER)).new(OTHER).encode()
    assert Sessions((OTHER,)).accepts(session) and Sessions((KEY, OTHER)).accepts(session)
    assert not Sessions((KEY,)).accepts(session)  # its key was removed
    assert Sessions((KEY,)).new(KEY) != Sessions((KEY,)).new(KEY)


def test_sessions_expire_and_cannot_be_changed():
    sessions, now = Sessions((KEY,)), 1_800_000_000.0
    session = sessions.new(KEY, now).encode()
    assert sessions.accepts(session, now + LIFE_S - 1)
    assert not sessions.accepts(session, now + LIFE_S + 1)
    expiry, nonce, mac = session.split(b".")
    later = str(int(expiry) + 10).encode()
    for forged in (
        b".".join((later, nonce, mac)),
        b".".join((expiry, nonce[::-1], mac)),
        b".".join((expiry, nonce, mac[::-1])),
        b".".join((expiry, nonce)),
        KEY.encode(),
        b"",
    ):
        assert not sessions.accepts(forged, now)


@pytest.mark.parametrize(
    "other",
    [
        'a={"x":1}',
        "foo[bar]=1",
        "n",
        'theme="dark mode"',
        f"x{COOKIE}=1",
        f"{COOKIE}x=1",
        f"a={COOKIE}",
    ],
)
def test_session_is_found_among_other_cookies(other: str):
    name = Sessions((KEY,)).name(KEY)
    for header in (f"{other}; {name}=1.2.3", f"{name}=1.2.3; {other}"):
        assert sessions_in(header.encode()) == [(name, b"1.2.3")]
    assert sessions_in(other.encode()) == []


# -- the form --------------------------------------------------------------------------------------


def test_login_sets_a_session_and_not_the_key(start: Callable[..., Web]):
    web, replica = start(keys=(KEY,)), start(keys=(KEY,))
    status, headers, page = ask(web, "/", Accept="text/html")
    assert status == 401 and headers["content-type"].startswith("text/html") and b"<form" in page
    assert log_in(web, "wrong")[0] == 401
    status, headers, _ = log_in(web)
    assert status == 303 and headers["location"] == "./"
    cookie = headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=lax" in cookie and KEY not in cookie
    for each in (web, replica):
        assert ask(each, "/", Accept="text/html", Cookie=cookie.split(";")[0])[0] == 200
    for invalid in ("wrong", KEY):  # also the key itself
        assert ask(web, "/v1/models", Cookie=f"{COOKIE}={invalid}")[0] == 401


def test_login_accepts_keys_with_special_characters(start: Callable[..., Web]):
    key = 'odd;key="of\\this-test'
    web = start(keys=(key,))
    cookie = log_in(web, key)[1]["set-cookie"].split(";")[0]
    assert ask(web, "/v1/models", Cookie=cookie)[0] == 200


def test_login_leads_back_to_the_shared_link(start: Callable[..., Web]):
    web = start(keys=(KEY,))
    link = "model=digits-gan&do=generate&z=3%3A0.5"
    page = ask(web, f"/?{link}", Accept="text/html")[2].decode()
    assert 'name="next" value="model=digits-gan&amp;do=generate&amp;z=3%3A0.5"' in page
    assert log_in(web, next=link)[1]["location"] == f"./?{link}"
    for evil in ("//evil.example", "a=1\r\nX: 1", '"><script>', "x" * 3000):
        assert log_in(web, next=evil)[1]["location"] == "./"
    assert b"<script" not in login_page(b'"><script>')


def test_login_shows_the_form_again_after_a_wrong_key(start: Callable[..., Web]):
    web = start(keys=(KEY,))
    status, headers, page = ask(
        web, "/login", "POST", b"key=wrong&next=model%3Da", **FORM, Accept="text/html,*/*"
    )
    assert status == 401 and headers["www-authenticate"] == "Bearer"
    assert headers["content-type"].startswith("text/html")
    assert b"key is not valid" in page and b"<form" in page and b'value="model=a"' in page
    assert "frame-ancestors" in headers["content-security-policy"]
    assert b"key is not valid" not in ask(web, "/", Accept="text/html")[2]


def test_login_is_a_page_for_a_browser(start: Callable[..., Web]):
    web = start(keys=(KEY,))
    status, headers, body = ask(web, "/login", Accept="text/html")
    assert (
        status == 200 and b"<form" in body and "default-src" in headers["content-security-policy"]
    )
    # What the form loads needs no key; other files of the page do.
    assert ask(web, "/page/login.css")[0] == 200 and ask(web, "/page/icon.svg")[0] == 200
    assert ask(web, "/page/style/base.css")[0] == 401
    status, headers, _ = ask(start(), "/login")
    assert status == 303 and headers["location"] == "./"


def test_two_services_of_one_host_keep_their_sessions_apart(start: Callable[..., Web]):
    # Browsers send the cookies of a host to all of its ports.
    web, other = start(keys=(KEY,)), start(keys=(OTHER,))
    mine = log_in(web)[1]["set-cookie"].split(";")[0]
    its = log_in(other, OTHER)[1]["set-cookie"].split(";")[0]
    both = f"{mine}; {its}"
    assert mine.partition("=")[0] != its.partition("=")[0], "one does not replace the other"
    for service, missing in ((web, its), (other, mine)):
        assert ask(service, "/v1/models", Cookie=both)[0] == 200
        assert ask(service, "/v1/models", Cookie=missing)[0] == 401
    headers = ask(web, "/logout", "POST", b"", Cookie=both)[1]
    assert mine.partition("=")[0] in headers["set-cookie"]
    assert its.partition("=")[0] not in headers["set-cookie"], "a log-out ends its own session"


def test_logout_removes_the_session(start: Callable[..., Web]):
    web = start(keys=(KEY,))
    cookie = log_in(web)[1]["set-cookie"].split(";")[0]
    status, headers, _ = ask(web, "/logout", "POST", b"", Cookie=cookie)
    assert status == 303 and headers["location"] == "./"
    name = cookie.partition("=")[0]
    assert f'{name}=""' in headers["set-cookie"] and "Max-Age=0" in headers["set-cookie"]
    assert ask(web, "/logout", "POST", b"", Cookie=cookie, Sec_Fetch_Site="cross-site")[0] == 403
