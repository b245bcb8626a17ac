"""Tests the middleware over real sockets: keys, limits, request ids and the request log."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from genray.errors import ConfigError
from serve.forwarded import own_path
from serve.launch import ServeLaunch
from serve.login import COOKIE, Sessions
from serve.service import Settings
from tests.helpers.requests import ask
from tests.serve.conftest import Web

KEY, OTHER = "a-key-of-this-test-0001", "another-key-of-it-0002"


# -- keys ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "/v1/models",
        "/v2/models/digits-gan",
        "/api/walk/digits-gan",
        "/openapi.json",
        "/page/app.js",
        "/nothing",
    ],
)
def test_middleware_answers_401_without_a_key_except_health(start: Callable[..., Web], path: str):
    web = start(keys=(KEY, OTHER))
    for headers in (
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": f"Basic {KEY}"},
        {"Authorization": f"Bearer {KEY}x"},
    ):
        status, answered, body = ask(web, path, **headers)
        assert status == 401 and answered["www-authenticate"] == "Bearer"
        assert "Authorization: Bearer KEY" in str(json.loads(body)["error"])
    assert ask(web, "/healthz")[0] == 200 and ask(web, "/readyz")[0] == 200


def test_middleware_accepts_each_key(start: Callable[..., Web]):
    web = start(keys=(KEY, OTHER))
    for key in (KEY, OTHER):
        assert ask(web, "/v1/models", Authorization=f"Bearer {key}")[0] == 200
        assert ask(web, "/v1/models", Authorization=f"bearer  {key} ")[0] == 200


def test_serve_launch_needs_keys_beyond_loopback():
    with pytest.raises(ConfigError, match="GENRAY_API_KEY"):
        ServeLaunch(host="0.0.0.0").validate(())
    ServeLaunch(host="0.0.0.0").validate((KEY,))
    ServeLaunch(host="0.0.0.0", open=True).validate(())
    with pytest.raises(ConfigError, match="16 characters"):
        Settings(models_dir=".", keys=("short",)).validate()


# -- ids, headers, log -----------------------------------------------------------------------------


def test_middleware_keeps_or_creates_the_request_id(web: Web):
    assert ask(web, "/healthz", X_Request_Id="mine-1")[1]["x-request-id"] == "mine-1"
    made = ask(web, "/healthz", X_Request_Id='"><script>')[1]["x-request-id"]
    assert len(made) == 16 and made != ask(web, "/healthz")[1]["x-request-id"]


def test_error_bodies_have_the_format_of_their_api(web: Web):
    assert set(json.loads(ask(web, "/v1/models/no")[2])["error"]) == {
        "message",
        "type",
        "param",
        "code",
    }
    assert isinstance(json.loads(ask(web, "/v2/models/no")[2])["error"], str)
    status, headers, _ = ask(web, "/v1/models", "PUT")
    assert status == 405 and headers["allow"] == "GET"


EVIL = "https://evil.example"


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": EVIL, "Sec-Fetch-Site": "cross-site", "Content-Type": "text/plain"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},  # an image of the page
        # another service of this machine
        {"Origin": "http://127.0.0.1:1", "Sec-Fetch-Site": "same-site"},
        {"Origin": EVIL},  # a browser that sends no Sec-Fetch-Site
        {"Origin": "null"},  # a sandboxed frame
        {"Origin": EVIL, "Host": "127.0.0.1", "X-Forwarded-Host": "example.org"},
        {"Sec-Fetch-Site": "cross-site", "Cookie": f"{COOKIE}={Sessions((KEY,)).new(KEY)}"},
    ],
)
def test_check_origin_refuses_pages_of_other_sites(
    start: Callable[..., Web], headers: dict[str, str]
):
    web = start(keys=(KEY,) if "Cookie" in headers else ())
    for path, method in (
        ("/api/models/digits-gan/rollback", "POST"),
        ("/v1/models/waves", "DELETE"),
        ("/v1/images/generations", "POST"),
        ("/v2/models/digits/infer", "POST"),
        ("/api/walk/digits-vae", "GET"),
    ):
        status, answered, body = ask(web, path, method, b"x", **headers)
        assert status == 403 and b"another site's page" in body
        assert not [name for name in answered if name.lower().startswith("access-control")]
    assert "waves" in web.service.registry.models
    assert (
        "frame-ancestors 'none'"
        in ask(web, "/", Authorization=f"Bearer {KEY}")[1]["content-security-policy"]
    )


def test_check_origin_accepts_own_page_programs_and_links(start: Callable[..., Web]):
    web = start()
    own = f"http://127.0.0.1:{web.port}"
    link = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate"}
    assert ask(web, "/", **link)[0] == 200
    assert ask(web, "/v1/models", **link)[0] == 403
    for headers in (
        {},
        {"Origin": own},
        {"Origin": own, "Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "none"},  # a user typed the address
        # a proxy that sets its own Host
        {"Origin": "https://gpu.example", "Sec-Fetch-Site": "same-origin"},
    ):
        assert ask(web, "/v1/models", **headers)[0] == 200, headers
    # A request with a key is accepted from any origin.
    keyed = start(keys=(KEY,))
    assert ask(keyed, "/v1/models", Origin=EVIL, Authorization=f"Bearer {KEY}")[0] == 200


def test_check_origin_accepts_only_loopback_names_without_keys(start: Callable[..., Web]):
    """In DNS rebinding, another site's host name resolves to this service."""
    web = start(local=True)
    for host in (
        "evil.example",
        "evil.example:8000",
        "localhost.evil.example",
        "10.0.0.1",
        "[fe80::1]:8000",
    ):
        status, _, body = ask(web, "/v1/models/waves", "DELETE", Host=host, Origin=f"http://{host}")
        assert status == 403 and b"GENRAY_API_KEY" in body
    for host in (
        "localhost:9000",
        "127.0.0.1",
        "LOCALHOST",
        "127.8.8.8:1",
        "[::1]:8000",
        "gpu.localhost:80",
    ):
        assert ask(web, "/v1/models", Host=host)[0] == 200, host
    assert ask(web, "/healthz", Host="10.0.0.1")[0] == 200  # as a load balancer does
    keyed = start(local=True, keys=(KEY,))
    assert ask(keyed, "/v1/models", Host="gpu.example", Authorization=f"Bearer {KEY}")[0] == 200
    assert ask(start(), "/v1/models", Host="gpu.example")[0] == 200  # --open


def test_request_log_has_a_line_for_each_request(start: Callable[..., Web], tmp_path: Path):
    web = start(request_log=str(tmp_path / "log" / "requests.jsonl"))
    ask(web, "/v1/models/digits-gan?secret=1", X_Request_Id="line-1")
    ask(
        web,
        "/v1/images/generations",
        "POST",
        b'{"model": "digits-gan"}',
        Content_Type="application/json",
    )
    ask(web, "/v1/models/no")
    stop, lines = time.monotonic() + 20, []
    while len(lines) < 3 and time.monotonic() < stop:  # a line is written after the answer
        time.sleep(0.05)
        (log,) = (tmp_path / "log").glob("requests-*.jsonl")
        lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["status"] for line in lines] == [200, 200, 404]
    assert (
        lines[0]["id"] == "line-1"
        and lines[0]["route"] == "/v1/models/{name}"
        and "secret" not in str(lines)
    )
    assert (
        lines[1]["model"].startswith("digits-gan@")
        and lines[1]["bytes"] > 100
        and lines[1]["ms"] > 0
    )
    assert web.service.telemetry.requests["/v1/images/generations", "200"] == 1


# -- health ----------------------------------------------------------------------------------------


def test_readyz_answers_503_while_a_model_is_damaged(start: Callable[..., Web], models_dir: Path):
    (models_dir / "digits-vae" / "config.json").write_text("{")
    web = start()
    status, _, body = ask(web, "/readyz")
    assert status == 503 and set(json.loads(body)["failed"]) == {"digits-vae"}
    assert ask(web, "/healthz")[0] == 200 and ask(web, "/v2/health/ready")[0] == 503
    assert ask(web, "/v1/models/digits-gan")[0] == 200  # other models answer


def test_readyz_answers_503_without_models(start: Callable[..., Web], tmp_path: Path):
    (tmp_path / "empty").mkdir()
    web = start(tmp_path / "empty")
    assert ask(web, "/readyz")[0] == 503 and ask(web, "/v2/health/live")[0] == 200
    # Some load balancers send HEAD.
    assert ask(web, "/healthz", "HEAD")[::2] == (200, b"") and ask(web, "/readyz", "HEAD")[::2] == (
        503,
        b"",
    )


def test_head_is_answered_wherever_get_is(web: Web):
    paths = "/ /page/app.js /v1/models /v2 /v2/health/live /healthz /readyz /openapi.json"
    for path in (*paths.split(), "/v1/models/waves", "/api/play/road-runner?steps=500"):
        status, headers, body = ask(web, path, "HEAD")
        assert status == 200 and body == b"", path
        if "play" not in path:
            assert headers == ask(web, path)[1] | {
                name: headers[name] for name in ("date", "x-request-id")
            }
    assert ask(web, "/v1/models/no", "HEAD")[0] == 404
    assert ask(web, "/v1/images/generations", "HEAD")[0] == 405


def test_paths_may_end_with_a_slash(web: Web):
    for path in ("/v1/models/", "/v2/", "/healthz/", "/v1/models/waves//"):
        status, headers, body = ask(web, path, Host="evil.example")
        assert status == 200 and "location" not in headers and b"evil" not in body


def test_a_body_without_its_content_type_is_explained(web: Web):
    form = {"Content_Type": "application/x-www-form-urlencoded"}  # as `curl -d` sends it
    for headers in (form, {}):
        body = b'{"model": "digits-gan"}'
        status, _, answer = ask(web, "/v1/images/generations", "POST", body, **headers)
        assert status == 422 and b"Content-Type: application/json" in answer


def test_own_path_removes_the_prefix_and_the_last_slash():
    for prefix, path, expected in (
        ("", "/", "/"),
        ("", "/v1/models/", "/v1/models"),
        ("/gen", "/gen", "/"),
        ("/gen", "/gen/healthz", "/healthz"),
        ("/gen/", "/gen/v1/models/", "/v1/models"),
        ("/gen", "/generate", "/generate"),
        ("/gen", "/healthz", "/healthz"),  # a proxy that removes the prefix itself
    ):
        assert own_path({"path": path, "root_path": prefix}) == (expected, prefix.rstrip("/"))
