"""Tests `genray serve` with Ray Serve and HAProxy, also with killed replicas and replaced models
under load.
"""

import base64
import io
import re
import shutil
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import openai
import pytest
from PIL import Image

from serve.ports import FIRST, LAST
from tests.serve.real import Served, listening, start_process, wait_until_ready
from tests.serve.test_registry import retrain

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def served(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = Path(shutil.copytree(trained, tmp_path_factory.mktemp("served") / "models"))
    running = wait_until_ready(start_process(folder, "--port", "0", "--replicas", "2"), folder)
    family = running.family()
    yield running
    assert running.end(signal.SIGINT, family) == 0


def test_serve_command_answers_every_kind_of_route(served: Served):
    with httpx.Client(base_url=served.url, timeout=60) as client:
        assert client.get("/readyz").json()["failed"] == {}
        assert b"<title>genray</title>" in client.get("/").content
        assert len(client.get("/v1/models").json()["data"]) == 6
        assert (
            client.post("/v1/images/generations", json={"model": "digits-gan", "n": 3}).status_code
            == 200
        )
        assert client.get("/v2/models/digits-vae.encode").status_code == 200
        assert client.get("/api/walk/digits-vae").headers["content-type"] == "image/gif"
        with client.stream("GET", "/api/play/road-runner?steps=3&fps=60") as answer:
            assert len(list(answer.iter_lines())) == 4
        assert client.get("/v1/models/nope").status_code == 404


def test_haproxy_listens_on_loopback_alone(served: Served):
    places = {address for command, address, _ in served.sockets() if "haproxy" in command}
    assert places == {"127.0.0.1"}
    for replica in served.replicas():  # the port by which HAProxy reaches a replica
        web = [place for place, port in listening(replica) if FIRST <= port <= LAST]
        assert web and set(web) == {"127.0.0.1"}


def test_metrics_are_exported_for_prometheus(served: Served):
    httpx.get(f"{served.url}/v1/models")
    for _ in range(60):
        text = httpx.get(served.metrics).text
        if (
            re.search(r'genray_requests\w*\{[^}]*route="/v1/models"', text)
            and "genray_models" in text
        ):
            return
        time.sleep(0.5)
    pytest.fail(
        f"no counts of ours: {sorted(set(re.findall(r'^ray_genray_[a-z_]+', text, re.MULTILINE)))}"
    )


def test_haproxy_keeps_valid_request_ids_and_replaces_others(served: Served):
    answer = httpx.get(f"{served.url}/healthz", headers={"X-Request-Id": "mine-1"})
    assert answer.headers.get_list("x-request-id") == ["mine-1"]
    for bad in ('"><script>', "a b", "x" * 65):
        (made,) = httpx.get(
            f"{served.url}/healthz", headers={"X-Request-Id": bad}
        ).headers.get_list("x-request-id")
        assert re.fullmatch(r"[A-Za-z0-9._-]{1,64}", made) and made != bad


def test_haproxy_removes_the_timeout_header_of_ray_serve(served: Served):
    body = {"model": "digits-gan", "n": 32, "size": "512x512"}
    answer = httpx.post(
        f"{served.url}/v1/images/generations",
        json=body,
        headers={"X-Request-Timeout-Seconds": "0.0001"},
        timeout=60,
    )
    assert answer.status_code == 200


def test_service_drops_the_requests_of_disconnected_clients(served: Served):
    """Requests of clients that have disconnected are dropped, even if a header asks Ray Serve not
    to notice disconnections.
    """
    head = b"POST /v1/images/generations HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"  # noqa: E501
    head += b"X-Request-Disconnect-Disabled: ?1\r\nContent-Length: %d\r\n\r\n"
    body = b'{"model": "digits-gan", "n": 32, "size": "1024x1024"}'  # half a second of work each
    port = int(served.url.rpartition(":")[2])
    crowd = [socket.create_connection(("127.0.0.1", port)) for _ in range(30)]
    for each in crowd:
        each.sendall(head % len(body) + body)
    time.sleep(0.5)
    for each in crowd:
        each.close()
    begin = time.monotonic()
    for _ in range(4):  # both replicas
        answer = httpx.post(
            f"{served.url}/v1/images/generations", json={"model": "digits-gan"}, timeout=60
        )
        assert answer.status_code == 200
    one = time.monotonic()
    httpx.post(
        f"{served.url}/v1/images/generations",
        json={"model": "digits-gan", "n": 32, "size": "1024x1024"},
        timeout=60,
    )
    large_s = time.monotonic() - one
    assert one - begin < 6 * large_s, "the requests of disconnected clients were processed"


def test_replicas_give_a_seed_the_same_image(
    served: Served,
):
    """An image that is processed alone is always the same, byte for byte. In a batch, its pixels
    may differ by one level of 255.
    """

    def image(seed: int) -> bytes:
        body = {"model": "digits-gan", "seed": seed, "size": "64x64"}
        answer = client.post("/v1/images/generations", json=body)
        return base64.b64decode(answer.json()["data"][0]["b64_json"])

    def pixels(content: bytes) -> np.ndarray:
        with Image.open(io.BytesIO(content)) as opened:
            return np.asarray(opened).astype(int)

    with httpx.Client(base_url=served.url, timeout=30) as client:
        # HAProxy sends the requests to the replicas in turn.
        alone = {seed: {image(seed) for _ in range(6)} for seed in range(8)}
        assert [len(each) for each in alone.values()] == [1] * 8
        with Load(served.url, clients=8):
            for seed, (first,) in alone.items():
                for _ in range(4):
                    assert np.abs(pixels(image(seed)) - pixels(first)).max() <= 1


class Load:
    """Clients that ask for images without a pause, with the retries that the reference advises."""

    def __init__(self, url: str, clients: int = 4):
        self.made, self.failed = 0, []  # type: ignore[var-annotated]
        self._url, self._stop = url, threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(number,)) for number in range(clients)
        ]

    def _run(self, number: int) -> None:
        with openai.OpenAI(
            base_url=f"{self._url}/v1", api_key="none", max_retries=10, timeout=20
        ) as client:
            while not self._stop.is_set():
                try:
                    client.images.generate(
                        model="digits-gan", prompt="", extra_body={"seed": number}
                    )
                    self.made += 1
                except openai.OpenAIError as error:
                    self.failed.append(repr(error))

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)


def test_service_replaces_a_model_under_load_without_losing_a_request(served: Served):
    with Load(served.url) as load:
        for number in range(3):
            version = retrain(served.folder / "digits-gan", 0.01 * (number + 1))
            _until(lambda wanted=version: _versions(served, 12) == {wanted})
    assert load.failed == [] and load.made > 20


def _versions(served: Served, looks: int) -> set[str]:
    """Return the versions that the replicas, asked in turn, have loaded."""
    return {httpx.get(f"{served.url}/v1/models/digits-gan").json()["version"] for _ in range(looks)}


def test_service_survives_killed_replicas_under_load(served: Served):
    with Load(served.url) as load:
        for _ in range(3):
            _until(lambda: len(served.replicas()) == 2)
            time.sleep(1)
            before = load.made
            victim = served.replicas()[0]
            victim.send_signal(signal.SIGKILL)
            _until(
                lambda dead=victim.pid: (
                    dead not in [each.pid for each in served.replicas()]
                    and len(served.replicas()) == 2
                )
            )
            _until(lambda made=before: load.made > made + 20)
    assert load.failed == [] and load.made > 60


def _until(holds, seconds: float = 90) -> None:
    stop = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < stop, "still not so"
        time.sleep(0.2)
