"""Calls every route of a running service and takes a screenshot of the page, for the demo."""

import json
import shutil
import subprocess
import tempfile
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageChops

from genray.media import write_png
from serve.png import encode_png

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")


@dataclass(frozen=True)
class RouteCall:
    """The result of one call of one route."""

    method: str
    path: str
    """Path without the query."""
    status: int
    """HTTP status."""
    bytes: int
    """Length of the answer's body."""


def call_all_routes(url: str, key: str = "") -> list[RouteCall]:
    """Call every kind of route once for each model that supports the route.

    `key`: an API key; empty if the service has none. Returns all calls, also those that fail.
    """
    calls: list[RouteCall] = []
    # Never use a proxy for a service on this machine, whatever the environment sets.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def call(
        method: str, path: str, body: bytes | None = None, kind: str = "application/json"
    ) -> bytes:
        headers = {"Content-Type": kind} | ({"Authorization": f"Bearer {key}"} if key else {})
        request = urllib.request.Request(url + path, body, headers, method=method)
        try:
            with opener.open(request, timeout=120) as answer:
                status, content = answer.status, answer.read()
        except urllib.error.HTTPError as error:
            status, content = error.code, error.read()
        calls.append(RouteCall(method, path.partition("?")[0], status, len(content)))
        return content

    # Routes that do not depend on a model.
    for path in (
        "/healthz",
        "/readyz",
        "/",
        "/page/app.js",
        "/openapi.json",
        "/v2",
        "/v2/health/live",
        "/v2/health/ready",
        "/api/service",
        "/api/examples",
        "/api/examples/flower?size=64",
    ):
        call("GET", path)
    # Routes of each model that its functions allow.
    for model in json.loads(call("GET", "/v1/models"))["data"]:
        name, functions = model["id"], model["functions"]
        has_pictures = len(model["about"].get("shape", ())) == 3
        call("GET", f"/v1/models/{name}")
        if has_pictures or model["about"].get("game"):
            call("GET", f"/api/cover/{name}")
        if "generate" in functions:
            call(
                "POST",
                "/v1/images/generations",
                json.dumps({"model": name, "n": 4, "seed": 1}).encode(),
            )
            # No screen lies between two screens of a sprite model.
            if model["kind"] != "sprites":
                call("GET", f"/api/latents/{name}?seed=1")
                call("GET", f"/api/walk/{name}?stops=2&frames=4")
        if "act" in functions:
            call("GET", f"/api/play/{name}?steps=10&fps=60")
        if "encode" in functions and has_pictures:
            call("GET", f"/api/map/{name}?count=50")
            call("GET", f"/api/pictures/{name}?count=4")
            call("POST", f"/api/retrieve/{name}", _photo(), "image/png")
        for function in ("classify", "reconstruct"):
            if function in functions and has_pictures:
                call("POST", f"/api/{function}/{name}", _photo(), "image/png")
        if model["kind"] in ("style_fast", "translator", "classifier"):
            call("POST", "/v1/images/edits", *_form(name))
            call("POST", "/api/edits", *_form(name))
        if model["kind"] == "classifier":
            call("GET", f"/api/layers/{name}")
        for function in functions:
            about = json.loads(call("GET", f"/v2/models/{name}.{function}"))
            inputs = [_zeros(tensor) for tensor in about["inputs"]]
            call(
                "POST",
                f"/v2/models/{name}.{function}/infer",
                json.dumps({"inputs": inputs}).encode(),
            )
    return calls


def _zeros(tensor: dict[str, Any]) -> dict[str, Any]:
    shape = [1, *tensor["shape"][1:]]
    return {**tensor, "shape": shape, "data": [0] * int(np.prod(shape))}


def _photo() -> bytes:
    y, x = np.mgrid[0:64, 0:64]
    return encode_png(np.stack([4 * x, 4 * y, 255 - 2 * x - y], axis=2).astype(np.uint8))


def _form(model: str) -> tuple[bytes, str]:
    """Return (a multipart body, its content type) with the model's name and a picture."""
    boundary = "genray-routes"
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="model"\r\n\r\n{model}\r\n'.encode(),
        f'--{boundary}\r\nContent-Disposition: form-data; name="steps"\r\n\r\n2\r\n'.encode(),
        f'--{boundary}\r\nContent-Disposition: form-data; name="image"; '
        'filename="a.png"\r\n\r\n'.encode(),
        _photo() + f"\r\n--{boundary}--\r\n".encode(),
    ]
    return b"".join(parts), f"multipart/form-data; boundary={boundary}"


def screenshot(url: str, path: Path, size: tuple[int, int] = (1100, 1700)) -> bool:
    """Take a screenshot of the page with headless Chromium, without the empty part below its
    content. Returns False if Chromium is not installed.

    `size`: width and largest height in pixels.
    """
    browser = next((found for name in CHROMIUM if (found := shutil.which(name))), None)
    if browser is None:
        return False
    with tempfile.TemporaryDirectory() as profile:
        command = [
            browser,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            f"--user-data-dir={profile}",
            f"--window-size={size[0]},{size[1]}",
            "--virtual-time-budget=8000",
            f"--screenshot={path}",
            url,
        ]
        subprocess.run(command, capture_output=True, timeout=60, check=False)
    if not path.exists():
        return False
    with Image.open(path) as file:
        page = file.convert("RGB")
    background = Image.new("RGB", page.size, page.getpixel((0, page.height - 1)))
    content = ImageChops.difference(page, background).getbbox()
    if content is not None:
        write_png(
            path, np.asarray(page.crop((0, 0, page.width, min(page.height, content[3] + 16))))
        )
    return True
