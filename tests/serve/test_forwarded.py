"""Tests which headers of proxies are honoured, and the paths under a prefix."""

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from genray.errors import ConfigError
from serve.forwarded import TrustedProxies, is_prefix, networks
from serve.haproxy import Edits, edited
from serve.limits import Limits
from serve.middleware import Middleware
from serve.telemetry import Telemetry
from tests.helpers.requests import ask
from tests.serve.conftest import Web
from tests.serve.test_app import RAYS

ALL = {
    "x-forwarded-for": "203.0.113.9",
    "x-forwarded-proto": "https",
    "x-forwarded-host": "gpu.example",
    "x-forwarded-prefix": "/pub",
    "x-forwarded-port": "443",
    "forwarded": "for=203.0.113.9",
}


def resolved(client: str, trusted: tuple[str, ...], headers: dict[str, str]) -> dict[str, Any]:
    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "client": (client, 1), "scheme": "http", "headers": pairs}
    found = TrustedProxies(networks(trusted)).resolved(scope)
    assert len(scope["headers"]) == len(headers)  # the caller's scope is unchanged
    return dict(found)


def test_trusted_proxies_headers_are_honoured():
    found = resolved("10.1.2.3", ("10.1.0.0/16",), {**ALL, "host": "inner"})
    assert found["client"] == ("203.0.113.9", 0) and found["scheme"] == "https"
    assert found["forwarded_prefix"] == "/pub"
    names = {name for name, _ in found["headers"]}
    kept = {b"host", b"x-forwarded-proto", b"x-forwarded-host", b"x-forwarded-prefix"}
    assert names == kept


@pytest.mark.parametrize("client", ["10.2.0.1", "203.0.113.9", "not an address", "::1"])
def test_other_senders_headers_are_removed(client: str):
    found = resolved(client, ("10.1.0.0/16", "10.1.9.9"), {**ALL, "host": "inner"})
    assert found["client"] == (client, 1) and found["scheme"] == "http"
    assert "forwarded_prefix" not in found
    assert found["headers"] == [(b"host", b"inner")]


@pytest.mark.parametrize(
    ("forwarded", "client"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("198.51.100.1, 203.0.113.9", "203.0.113.9"),  # the client wrote the first one
        ("203.0.113.9, 10.1.0.7", "203.0.113.9"),  # through two trusted proxies
        ("10.1.0.8, 10.1.0.7", "10.1.0.8"),
        ("x" * 100, "x" * 64),
    ],
)
def test_client_is_the_last_address_that_no_trusted_proxy_has(forwarded: str, client: str):
    found = resolved("10.1.2.3", ("10.1.0.0/16",), {"x-forwarded-for": forwarded})
    assert found["client"][0] == client


@pytest.mark.parametrize(
    "prefix", ["pub", "//evil.example", "/a b", "/<b>", "/" + "a/" * 40, "/.?"]
)
def test_invalid_prefixes_hosts_and_schemes_are_ignored(prefix: str):
    headers = {
        "x-forwarded-prefix": prefix,
        "x-forwarded-host": "<script>",
        "x-forwarded-proto": "javascript",
    }
    found = resolved("10.1.2.3", ("10.1.0.0/16",), headers)
    assert "forwarded_prefix" not in found and found["headers"] == []
    assert found["scheme"] == "http" and not is_prefix(prefix)


def test_networks_refuses_names():
    assert len(networks(("10.0.0.1", " 10.1.0.0/16", "::1"))) == 3
    with pytest.raises(ConfigError, match="--trusted-proxies proxy.example: must be an address"):
        networks(("proxy.example",))
    with pytest.raises(ConfigError, match="--trusted-proxies 10.1.0.1/16"):
        networks(("10.1.0.1/16",))


def test_haproxy_removes_the_headers_of_proxies_that_are_not_trusted():
    found = edited(RAYS)
    assert "    http-request del-header x-forwarded- -m beg\n" in found
    assert "    http-request add-header x-forwarded-for %[src]\n" in found
    found = edited(RAYS, Edits(trusted=("10.0.0.9", "10.1.0.0/16")))
    assert "del-header x-forwarded- -m beg unless { src 10.0.0.9 10.1.0.0/16 }\n" in found
    assert "del-header forwarded unless { src 10.0.0.9 10.1.0.0/16 }\n" in found


def test_origin_of_a_proxys_own_name_needs_a_trusted_proxy(start: Callable[..., Web]):
    headers = {"Origin": "https://gpu.example", "X-Forwarded-Host": "gpu.example"}
    assert ask(start(), "/v1/models", **headers)[0] == 403
    trusting = start(trusted_proxies=("127.0.0.1",))
    assert ask(trusting, "/v1/models", **headers)[0] == 200
    assert ask(trusting, "/v1/models", Origin="https://evil.example")[0] == 403


def test_prefix_of_a_trusted_proxy_is_removed_from_paths_and_named_in_the_schema(
    start: Callable[..., Web],
):
    web = start(trusted_proxies=("127.0.0.1",))
    prefix = {"X-Forwarded-Prefix": "/pub/gen"}
    for path in ("/v1/models", "/pub/gen/v1/models", "/pub/gen/v1/models/"):
        assert ask(web, path, **prefix)[0] == 200, path
    assert ask(web, "/pub/gen/v1/models")[0] == 404
    for sent, servers in ((prefix, [{"url": "/pub/gen"}]), ({}, None)):
        schema = json.loads(ask(web, "/openapi.json", **sent)[2])
        assert schema.get("servers") == servers
    status, headers, _ = ask(web, "/pub/gen", **prefix)
    assert status == 307 and headers["location"] == "gen/"
    assert ask(web, "/pub/gen/", **prefix)[0] == 200


@pytest.mark.parametrize(
    ("path", "location"),
    [("/gen", "gen/"), ("/gen/", ""), ("/gen/v1", "")],
)
def test_prefixes_without_a_slash_lead_to_the_directory(path: str, location: str):
    """The proxy removes /pub, and the service has --route-prefix /gen."""
    sent: list[dict[str, Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    middleware = Middleware(app, Limits(), Telemetry(), trusted_proxies=("10.0.0.1",))
    scope = {"type": "http", "method": "GET", "path": path, "root_path": "/gen"}
    scope |= {"client": ("10.0.0.1", 1), "headers": [(b"x-forwarded-prefix", b"/pub")]}
    asyncio.run(middleware(scope, None, send))  # type: ignore[arg-type]
    assert dict(sent[0]["headers"]).get(b"location", b"").decode() == location
    assert sent[0]["status"] == (307 if location else 200)


def test_request_log_has_the_address_of_the_client(start: Callable[..., Web], tmp_path: Path):
    log = tmp_path / "log.jsonl"
    web = start(request_log=str(log), trusted_proxies=("127.0.0.1",))
    ask(web, "/healthz", X_Forwarded_For="203.0.113.9")
    deadline = time.monotonic() + 20
    while not (files := list(tmp_path.glob("log-*.jsonl"))) or not files[0].read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert json.loads(files[0].read_text().splitlines()[0])["client"] == "203.0.113.9"
