"""Tests a served index of photographs: its neighbours by HTTP and in the page."""

import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from genray.gen.images.photo_index import index_data
from tests.helpers.browser import browser, marks
from tests.helpers.pages import shot, until
from tests.helpers.photographs import changed, photographs
from tests.serve.conftest import Web, start_web, stop_web

__all__ = ["browser"]  # pytest finds the fixture by its name here
NAMES = ("astronaut", "chelsea", "china", "coffee", "flower", "rocket")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    """Serve an index of six photographs; the photographs themselves are gone."""
    top = tmp_path_factory.mktemp("photographs")
    for name, rgb in photographs().items():
        if name in NAMES:
            Image.fromarray(rgb).save(top / f"{name}.png")
    index = index_data(f"folder:{top}")
    assert len(index) == len(NAMES)
    for path in top.glob("*.png"):
        path.unlink()
    index.save(top / "models" / "my-photographs")
    web = start_web(top / "models")
    yield web
    stop_web(web)


def query() -> bytes:
    """The astronaut, cropped, mirrored and recoloured, as a JPEG."""
    rgb, content = photographs()["astronaut"], io.BytesIO()
    Image.fromarray(changed(rgb, np.random.default_rng(0))).save(content, "JPEG")
    return content.getvalue()


def test_retrieve_finds_a_photograph_of_a_served_index(served: Web):
    answer = httpx.post(
        f"{served.url}/api/retrieve/my-photographs?count=3", content=query(), timeout=60
    )
    assert answer.status_code == 200, answer.text
    found = answer.json()
    first = found["neighbours"][0]
    assert first["name"] == "astronaut.png" and 0 < first["distance"] < 0.5
    assert first["label"] is None and len(found["neighbours"]) == 3
    for each in (found["query"], first):
        with Image.open(io.BytesIO(base64.b64decode(each["b64_json"]))) as image:
            assert max(image.size) == 192


def test_infer_encodes_pictures_with_a_served_index(served: Web):
    models = httpx.get(f"{served.url}/v1/models").json()["data"]
    assert [(each["kind"], each["functions"]) for each in models] == [("photographs", ["encode"])]
    assert str(Path.cwd()) not in str(models) and "folder:" not in str(models)
    data = np.zeros((1, 224, 224, 3), int).ravel().tolist()
    tensor = {"name": "image", "datatype": "UINT8", "shape": [1, 224, 224, 3], "data": data}
    answer = httpx.post(
        f"{served.url}/v2/models/my-photographs/infer", json={"inputs": [tensor]}, timeout=60
    )
    assert answer.json()["outputs"][0]["shape"] == [1, 1280], answer.text


class TestPage:
    """The page, in a real browser."""

    pytestmark = marks

    def test_page_finds_photographs(self, browser: Any, served: Web, tmp_path: Path):
        (tmp_path / "query.jpg").write_bytes(query())
        page = browser.new_page(viewport={"width": 1100, "height": 900})
        wrong: list[str] = []
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.goto(served.url)
        until(page, "document.body.innerText.includes('6 pictures')", 60)
        page.goto(f"{served.url}/?model=my-photographs")
        until(page, "document.querySelectorAll('.output .thumb').length === 6", 60)
        # The first example is shown until the file is chosen.
        page.set_input_files(".drop input", str(tmp_path / "query.jpg"))
        nearest = "document.querySelector('.output .thumb span')?.innerText"
        until(page, f"{nearest}?.startsWith('astronaut · 0.')", 60)
        width = page.locator(".output .thumb img").nth(0).bounding_box()["width"]
        assert width >= 128
        shot(page, "photographs")
        page.close()
        assert wrong == []
