"""Tests the limits on bodies and on requests at a time, over real sockets."""

import gzip
import json
import socket
import time
import zlib
from collections.abc import Callable

import pytest

from serve.limits import Limits
from tests.helpers.requests import ask, raw
from tests.serve.conftest import Web

SMALL = Limits(max_body_mb=1, body_timeout_s=1, max_in_flight=3)


def test_middleware_refuses_a_large_content_length_before_the_body(start: Callable[..., Web]):
    web = start(limits=SMALL)
    head = b"POST /v1/images/generations HTTP/1.1\r\nHost: x\r\nContent-Length: 2000000\r\n\r\n"
    answer = raw(web, head)
    assert (
        answer.startswith(b"HTTP/1.1 413")
        and b"1 MiB" in answer
        and b"connection: close" in answer.lower()
    )


def test_middleware_counts_a_chunked_body_while_reading(start: Callable[..., Web]):
    web = start(limits=SMALL)
    chunk = b"80000\r\n" + b" " * 0x80000 + b"\r\n"
    head = b"POST /v1/images/generations HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert raw(web, head + 3 * chunk).startswith(b"HTTP/1.1 413")


def test_middleware_answers_408_to_a_slow_body(start: Callable[..., Web]):
    web = start(limits=SMALL)
    begin = time.monotonic()
    answer = raw(
        web, b"POST /v1/images/generations HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{"
    )
    assert answer.startswith(b"HTTP/1.1 408") and time.monotonic() - begin < 8
    assert ask(web, "/healthz")[0] == 200


def test_middleware_counts_bodies_that_are_still_arriving(start: Callable[..., Web]):
    web = start(limits=Limits(max_body_mb=2, max_bodies_mb=2, body_timeout_s=120))
    body = json.dumps({"text": " " * 2**20}).encode()
    path = "/v2/models/digits-gan/infer"

    def status() -> int:
        return ask(web, path, "POST", body, Content_Type="application/json")[0]

    free = status()
    assert free != 429
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {2 * 2**20}\r\n\r\n".encode()
    stop = time.monotonic() + 120
    refused = False
    while not refused:
        assert time.monotonic() < stop
        with socket.create_connection(("127.0.0.1", web.port)) as upload:
            upload.sendall(head + b" " * (3 * 2**19))  # 1.5 of 2 MB
            # The upload is refused instead if the other body arrives before these bytes.
            time.sleep(0.5)
            refused = status() == 429
    while status() != free:  # until the service has seen the end of the connection
        assert time.monotonic() < stop


def test_middleware_answers_429_beyond_max_in_flight(start: Callable[..., Web]):
    web = start(limits=SMALL)
    slow = []
    for _ in range(3):
        connection = socket.create_connection(("127.0.0.1", web.port))
        connection.sendall(
            b"POST /v1/images/generations HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n"
        )
        slow.append(connection)
    time.sleep(0.2)
    status, headers, body = ask(web, "/v1/models")
    assert (
        status == 429
        and headers["retry-after"] == "1"
        and json.loads(body)["error"]["type"] == "rate_limit_error"
    )
    assert ask(web, "/healthz")[0] == 200  # a busy service is alive
    for connection in slow:
        connection.close()
    time.sleep(0.2)
    assert ask(web, "/v1/models")[0] == 200


@pytest.mark.parametrize(
    "content",
    [
        b"GET / HTTP/9.9\r\n\r\n",
        b"\x00\x01\x02\x03\r\n\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /v1/models HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 200_000 + b"\r\n\r\n",
        b"POST /v1/models HTTP/1.1\r\nHost: x\r\nContent-Length: minus\r\n\r\n",
        b"POST /v1/models HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n",
        b"GET /../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /page/..%2f..%2fapp.py HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /v1/models/..%2f..%2fetc HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
)
def test_middleware_survives_malformed_requests(web: Web, content: bytes):
    answer = raw(web, content, wait_s=3)
    assert not answer or answer.split(b" ")[1][:1] == b"4", answer[:200]
    assert ask(web, "/healthz")[0] == 200


def test_middleware_bounds_compressed_bodies(start: Callable[..., Web]):
    web = start(limits=Limits(max_body_mb=2))
    path, body = "/v2/models/digits/infer", b'{"inputs": []}'
    bomb = gzip.compress(b" " * 2**26)
    assert len(bomb) < 2**17
    for content, encoding, status, message in (
        (gzip.compress(body), "gzip", 400, b"inputs: must be image"),
        (zlib.compress(body), "DEFLATE", 400, b"inputs: must be image"),
        (body, "identity", 400, b"inputs: must be image"),
        (bomb, "gzip", 413, b"the decompressed body exceeds the limit of 2 MiB"),
        (body, "gzip", 400, b"encoding of its Content-Encoding"),
        (gzip.compress(body)[:-4], "gzip", 400, b"truncated"),
        (gzip.compress(body) + b"more", "gzip", 400, b"other data follow"),
        (body, "br", 415, b"must be gzip, deflate or identity"),
        (body, "gzip, gzip", 415, b"must be gzip, deflate or identity"),
    ):
        found, _, answer = ask(web, path, "POST", content, Content_Encoding=encoding)
        assert (found, message in answer) == (status, True), (encoding, found, answer)


def test_generations_bound_the_json_that_the_event_loop_parses(web: Web):
    head = b"POST /v1/images/generations HTTP/1.1\r\nHost: localhost\r\n"
    head += b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    answer = raw(web, head % (2**20 + 1))
    assert b" 413 " in answer and b"the limit is 1 MiB" in answer
