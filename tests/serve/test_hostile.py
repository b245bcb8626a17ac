"""Tests that the service survives thousands of generated and malformed requests and pictures."""

import gc
import io
import json
import random
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest
from PIL import Image

from serve.limits import Limits
from tests.serve.conftest import Web
from tests.serve.test_openai import bomb, png

pytestmark = [
    pytest.mark.service,
    pytest.mark.timeout(600),
    # Starlette does not close the file of an incomplete part, so the garbage collector warns.
    pytest.mark.filterwarnings(
        "ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning"
    ),
]


@pytest.fixture(autouse=True)
def leave_no_garbage() -> Iterator[None]:
    """Collect garbage after each test, where its warnings are expected, and not in later files."""
    yield
    gc.collect()


CASES = 2_000
MALFORMED = 5_000
GROWTH_MB = 150
"""Most growth of the process's memory (service and client) over all malformed requests, in MB."""


def test_schemathesis_finds_no_failure(start: Callable[..., Web], tmp_path: Path):
    """Property-based cases from the OpenAPI document cause no server error, no undocumented status
    and no body that does not match its schema.

    The play stream is excluded, because its answers take as long as a game. Models cannot be
    deleted, because later cases need them.
    """
    web = start(allow_changes=False, limits=Limits(max_steps=1, max_side=64))
    command = [
        str(Path(sys.executable).with_name("schemathesis")),
        "run",
        f"{web.url}/openapi.json",
        "--seed=1",
        "--max-examples=60",
        "--phases=examples,coverage,fuzzing",
        "--exclude-path-regex=^/api/play",
        "--workers=1",
        "--checks=not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance",
        "--no-color",
        "--suppress-health-check=all",
        "--generation-database=none",
    ]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=580)
    assert ran.returncode == 0, ran.stdout[-6000:]
    found = re.search(r"([\d,]+) generated", ran.stdout)
    assert found, ran.stdout[-2000:]
    cases = int(found.group(1).replace(",", ""))
    print(f"\nschemathesis: {cases} cases, 0 failures")
    assert cases >= CASES


def test_service_survives_malformed_requests(start: Callable[..., Web]):
    web = start(limits=Limits(max_body_mb=2, body_timeout_s=2, max_pixels=1_000_000))
    rng = random.Random(0)
    process = psutil.Process()
    with httpx.Client(base_url=web.url, timeout=30) as client:
        for _ in range(100):  # warm up pools, caches and the models
            _strange(client, web, rng)
        before = process.memory_info().rss
        statuses: dict[int, int] = {}
        for _ in range(MALFORMED):
            status = _strange(client, web, rng)
            statuses[status] = statuses.get(status, 0) + 1
        growth = (process.memory_info().rss - before) / 2**20
        print(
            f"\n{MALFORMED} malformed requests: {dict(sorted(statuses.items()))}; memory grew by "
            f"{growth:.0f} MB"
        )
        assert not [status for status in statuses if status >= 500], statuses
        assert growth < GROWTH_MB
        answer = client.post("/v1/images/generations", json={"model": "digits-gan", "n": 2})
        assert answer.status_code == 200 and len(answer.json()["data"]) == 2


def _strange(client: httpx.Client, web: Web, rng: random.Random) -> int:
    """Send one malformed request, and return its status (0: the connection was closed without a
    status).
    """
    kind = rng.randrange(6)
    if kind == 0:
        return _raw(web, _mutated(rng, VALID_HEAD + VALID_JSON))
    if kind == 1:
        body = _mutated(rng, VALID_JSON)
        return client.post(
            "/v1/images/generations", content=body, headers={"Content-Type": "application/json"}
        ).status_code
    if kind == 2:
        body = json.dumps(_twisted(rng, INFER)).encode()
        return client.post("/v2/models/digits/infer", content=body).status_code
    if kind == 3:
        return client.post(
            "/v1/images/edits", data={"model": "waves"}, files={"image": ("x", _picture(rng))}
        ).status_code
    if kind == 4:
        content = _mutated(rng, MULTIPART)
        headers = {"Content-Type": "multipart/form-data; boundary=frontier"}
        return client.post("/v1/images/edits", content=content, headers=headers).status_code
    length = rng.choice([0, 1, 10, len(VALID_JSON), 10**9, -5])
    return client.post(
        "/v2/models/digits-vae.encode/infer", content=_mutated(rng, json.dumps(INFER).encode()),
        headers={"Inference-Header-Content-Length": str(length)},
    ).status_code  # fmt: skip


VALID_JSON = json.dumps(
    {"model": "digits-gan", "n": 2, "size": "16x16", "seed": 3, "response_format": "b64_json"}
).encode()
VALID_HEAD = (
    b"POST /v1/images/generations HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"  # noqa: E501
    % len(VALID_JSON)
)
INFER = {
    "inputs": [{"name": "image", "shape": [1, 8, 8, 1], "datatype": "UINT8", "data": [7] * 64}],
    "outputs": [{"name": "probability"}],
}
PICTURE = png(np.random.default_rng(0).integers(0, 256, (24, 32, 3)).astype(np.uint8))
MULTIPART = (
    b'--frontier\r\nContent-Disposition: form-data; name="model"\r\n\r\nwaves\r\n--frontier\r\n'
    b'Content-Disposition: form-data; name="image"; filename="x.png"\r\nContent-Type: image/png\r\n\r\n'  # noqa: E501
    + PICTURE
    + b"\r\n--frontier--\r\n"
)


def _mutated(rng: random.Random, content: bytes) -> bytes:
    """Return `content` with some bytes changed, removed, repeated or inserted."""
    mutable = bytearray(content)
    for _ in range(rng.randint(1, 6)):
        at = rng.randrange(len(mutable) or 1)
        what = rng.randrange(5)
        if what == 0 and mutable:
            mutable[at % len(mutable)] ^= 1 << rng.randrange(8)
        elif what == 1:
            del mutable[at : at + rng.randint(1, 20)]
        elif what == 2:
            mutable[at:at] = mutable[at : at + rng.randint(1, 200)]
        elif what == 3:
            mutable[at:at] = rng.randbytes(rng.randint(1, 20))
        else:
            del mutable[at:]
    return bytes(mutable)


STRANGE = [
    None,
    True,
    -1,
    2**70,
    1e400,
    "",
    "x" * 5000,
    [],
    {},
    [[]],
    "\x00",
    "../../etc/passwd",
    "${jndi:ldap://x}",
    [1, "a"],
]


def _twisted(rng: random.Random, value: object) -> object:
    """Return JSON of the same structure with some values replaced by unusual ones."""
    if rng.random() < 0.15:
        return rng.choice(STRANGE)
    if isinstance(value, dict):
        return {key: _twisted(rng, item) for key, item in value.items()}
    if isinstance(value, list) and len(value) < 20:
        return [_twisted(rng, item) for item in value]
    return value


def _picture(rng: random.Random) -> bytes:
    """Return a damaged, unusual or hostile picture."""
    kind = rng.randrange(6)
    if kind == 0:
        return bomb()
    if kind == 1:
        return rng.randbytes(rng.randint(0, 500))
    if kind == 2:
        buffer = io.BytesIO()
        mode = rng.choice(["L", "LA", "P", "1", "CMYK", "I;16", "RGBA"])
        form = {"CMYK": "JPEG"}.get(mode, "PNG")
        Image.new(mode, (rng.randint(1, 40), rng.randint(1, 40))).save(buffer, form)
        return buffer.getvalue()
    if kind == 3:
        buffer = io.BytesIO()
        Image.new("RGB", (32, 32)).save(buffer, rng.choice(["JPEG", "WEBP", "GIF", "BMP", "TIFF"]))
        return _mutated(rng, buffer.getvalue())
    if kind == 4:
        return png(np.zeros((rng.choice([1, 8, 9]), rng.choice([8, 200, 1500]), 3), np.uint8))
    return _mutated(rng, PICTURE)


def _raw(web: Web, content: bytes) -> int:
    with socket.create_connection(("127.0.0.1", web.port), timeout=5) as connection:
        try:
            connection.sendall(content)
            connection.shutdown(socket.SHUT_WR)
            answer = connection.recv(4096)
        except OSError:
            return 0
    found = re.match(rb"HTTP/1\.[01] (\d{3})", answer)
    return int(found.group(1)) if found else 0
