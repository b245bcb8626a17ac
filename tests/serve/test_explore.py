"""Tests the routes that the page uses: examples, covers, latents, layers, maps and readings."""

import base64
import io
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from genray import cli
from serve.explore import Explorer, latent_effects
from serve.limits import Limits
from serve.models import Function, Predictor, TensorSpec
from serve.search import Search
from tests.serve.conftest import Web
from tests.serve.test_own import as_png


def get(web: Web, path: str) -> httpx.Response:
    return httpx.get(f"{web.url}/api/{path}", timeout=60)


def picture(content: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(image)


def test_service_tells_limits_and_rights(web: Web, start: Callable[..., Web]):
    about = get(web, "service").json()
    assert about["login"] is False and about["allow_changes"] is True
    assert about["limits"]["max_images"] == web.service.limits.max_images
    assert get(start(allow_changes=False), "service").json()["allow_changes"] is False


def test_examples_have_pixels_and_credits(web: Web):
    found = {each["name"]: each for each in get(web, "examples").json()["examples"]}
    assert {"china", "flower", "swirls"} <= set(found)
    assert "danielbuechele" in found["china"]["credit"] and "genray" in found["swirls"]["credit"]
    large, small = (picture(get(web, f"examples/china?size={size}").content) for size in (512, 96))
    assert max(large.shape[:2]) == 512 and max(small.shape[:2]) == 96
    assert get(web, "examples/none").status_code == 404


def test_covers_show_what_each_model_makes(web: Web):
    for name in sorted(web.service.registry.models):
        answer = get(web, f"cover/{name}")
        assert answer.status_code == 200, answer.text
        image = picture(answer.content)
        assert min(image.shape[:2]) >= 150 and len(np.unique(image)) > 4, name


def test_pictures_are_held_out_and_of_many_classes(web: Web):
    found = get(web, "pictures/digits-ae?count=10").json()["pictures"]
    assert sorted(each["label"] for each in found) == [str(digit) for digit in range(10)]
    assert picture(base64.b64decode(found[0]["b64_json"])).shape == (8, 8)


def test_pictures_are_refused_without_data(start: Callable[..., Web], models_dir: Path):
    place = models_dir / "digits-ae" / "config.json"
    config = json.loads(place.read_text())
    del config["data"]
    place.write_text(json.dumps(config))
    answer = get(start(), "pictures/digits-ae")
    assert answer.status_code == 400 and "training data" in answer.json()["error"]["message"]


def test_latents_are_those_of_the_seed(web: Web):
    found = get(web, "latents/digits-gan?seed=5").json()
    predictor = web.service.registry.models["digits-gan"]
    np.testing.assert_allclose(found["latent"], predictor.latents([5])[0], atol=1e-6)
    effect = np.array(found["effect"])
    assert found["order"][0] == int(effect.argmax()) and sorted(found["order"]) == list(
        range(len(effect))
    )
    assert get(web, "latents/digits").status_code == 400


def test_latent_effects_find_the_latent_that_matters():
    def run(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        value_N = 100 + 30 * arrays["latent"][:, 2] + 3 * arrays["latent"][:, 1]
        return {"image": np.tile(value_N[:, None, None, None], (1, 4, 4, 1)).astype(np.uint8)}

    spec = (TensorSpec("latent", "FP32", (3,)),)
    function = Function(spec, (TensorSpec("image", "UINT8", (4, 4, 1)),), run)

    class Stub(Predictor):
        def latents(self, seeds: Any) -> np.ndarray:
            return np.zeros((len(seeds), 3), np.float32)

    stub = Stub("stub", "gan", "1", {}, "", None, {"generate": function})  # type: ignore[arg-type]
    np.testing.assert_allclose(latent_effects(stub), [0, 9, 90], atol=1)


def test_explorer_bounds_the_memory_of_its_results(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("serve.explore.KEPT_BYTES", 10_000)
    explorer, made = Explorer(Search()), []
    stub = Predictor("stub", "gan", "1", {}, "", None, {})  # type: ignore[arg-type]

    def ask(what: int, size: int = 3000) -> None:
        def make() -> dict[str, Any]:
            made.append(what)
            return {"images": [np.zeros(size, np.uint8)], "points": [[0.5, 0.5]], "png": b"12"}

        explorer.kept(stub, what, make)

    for what in (1, 2, 3, 1, 4):  # the fourth result replaces 2, the one not used for longest
        ask(what)
    for what in (1, 3, 4, 2):
        ask(what)
    assert made == [1, 2, 3, 4, 2]
    ask(5, 50_000)  # the newest is kept, whatever its size
    ask(5, 50_000)
    assert made == [1, 2, 3, 4, 2, 5]


def test_layers_name_channels_and_the_default(web: Web):
    found = get(web, "layers/digits").json()
    assert found["default"] in [each["name"] for each in found["layers"]]
    assert all(each["channels"] >= 1 for each in found["layers"])
    assert len(get(web, "layers/lite0").json()["layers"]) > 10
    assert get(web, "layers/waves").status_code == 400


def test_map_places_rows_with_pictures(web: Web):
    found = get(web, "map/digits-ae?count=60").json()
    points = np.array(found["points"])
    assert points.shape == (60, 2) and points.min() == 0 and points.max() == 1
    assert len(found["labels"]) == 60 and 0 < found["explained"] <= 1
    sheet, (height, width) = picture(base64.b64decode(found["sheet"])), found["tile"]
    assert sheet.shape[:2] == (3 * height, found["columns"] * width)
    assert get(web, "map/digits-gan").status_code == 400


def test_classify_ranks_the_classes(web: Web):
    rng = np.random.default_rng(0)
    content = as_png(rng.integers(0, 255, (8, 8)).astype(np.uint8))
    answer = httpx.post(f"{web.url}/api/classify/digits", content=content, timeout=60)
    classes = answer.json()["classes"]
    probabilities = [each["probability"] for each in classes]
    assert sorted(probabilities, reverse=True) == probabilities
    assert sum(probabilities) == pytest.approx(1, abs=1e-4) and len(classes) == 10
    refused = httpx.post(f"{web.url}/api/classify/digits-gan", content=content, timeout=60)
    assert refused.status_code == 400


def test_reconstruct_returns_picture_and_error(web: Web):
    content = as_png(np.full((8, 8), 90, np.uint8))
    answer = httpx.post(f"{web.url}/api/reconstruct/digits-ae", content=content, timeout=60).json()
    rebuilt = picture(base64.b64decode(answer["b64_json"])).astype(float)
    assert answer["mean_squared_error"] == pytest.approx(
        np.mean((rebuilt - 90) ** 2) / 255**2, abs=1e-5
    )
    broken = httpx.post(f"{web.url}/api/reconstruct/digits-ae", content=b"none", timeout=60)
    assert broken.status_code == 415


def test_edits_stream_their_progress(web: Web, photo: np.ndarray):
    data = {"model": "digits", "steps": "2", "channels": "1"}
    files = {"image": ("a.png", as_png(photo), "image/png")}
    answer = httpx.post(f"{web.url}/api/edits", data=data, files=files, timeout=60)
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert "waiting" in lines[0] and lines[-2]["done"] == lines[-2]["of"] > 0
    assert lines[-1]["about"]["channels"] == [1]
    assert picture(base64.b64decode(lines[-1]["b64_json"])).shape == (64, 96, 3)


def test_edits_stream_ends_with_an_error(web: Web, photo: np.ndarray):
    files = {"image": ("a.png", b"none", "image/png")}
    answer = httpx.post(f"{web.url}/api/edits", data={"model": "waves"}, files=files, timeout=60)
    assert "not an image" in json.loads(answer.text.splitlines()[-1])["error"]["message"]
    files = {"image": ("a.png", as_png(photo), "image/png")}
    wrong = httpx.post(f"{web.url}/api/edits", data={"model": "none"}, files=files, timeout=60)
    assert wrong.status_code == 404


def test_edits_that_take_too_long_end_with_an_error_line(
    start: Callable[..., Web], photo: np.ndarray, monkeypatch: pytest.MonkeyPatch
):
    def endless(*given: Any) -> None:
        check, report = given[5:7]
        while True:
            check()
            report(1, 9)
            time.sleep(0.05)

    monkeypatch.setattr("serve.routes.edits.edit", endless)
    web = start(limits=Limits(request_timeout_s=1))
    files = {"image": ("a.png", as_png(photo), "image/png")}
    answer = httpx.post(f"{web.url}/api/edits", data={"model": "digits"}, files=files, timeout=60)
    *steps, last = [json.loads(line) for line in answer.text.splitlines()]
    assert {"done": 1, "of": 9} in steps and last["error"]["code"] == "timeout"
    assert "longer than 1 s: choose a smaller size" in last["error"]["message"]
    deadline = time.monotonic() + 20
    while web.service.waiting:  # the work has ended, too
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture(scope="module")
def text_web(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Start the application with an autoencoder of texts."""
    from tests.serve.conftest import start_web, stop_web

    folder = tmp_path_factory.mktemp("text")
    texts = folder / "texts"
    for subject, words in (("sea", "water wave fish boat"), ("hill", "stone tree path cloud")):
        (texts / subject).mkdir(parents=True)
        for number in range(12):
            (texts / subject / f"{number}.txt").write_text(f"{words} {words} note{number % 3} " * 3)
    out = folder / "run"
    words = [
        "--data",
        f"folder-text:{texts}",
        "--steps",
        "20",
        "--batch-size",
        "8",
        "--out",
        str(out),
    ]
    assert cli.main(["train", "ae", "--preset", "text_docs", *words]) == 0
    (folder / "models").mkdir()
    (out / "model").rename(folder / "models" / "texts")
    running = start_web(folder / "models")
    yield running
    stop_web(running)


def test_retrieve_finds_texts_by_a_text(text_web: Web):
    url = f"{text_web.url}/api/retrieve/texts?count=3"
    headers = {"Content-Type": "text/plain"}
    found = httpx.post(url, content="A fish, a wave!", headers=headers, timeout=60).json()
    assert found["query"]["words"] == ["fish", "wave"]
    assert [each["b64_json"] for each in found["neighbours"]] == [None] * 3
    assert all(each["name"] for each in found["neighbours"])
    unknown = httpx.post(url, content="quantum", headers=headers, timeout=60)
    assert unknown.status_code == 400 and "words that the model" in unknown.text
    refused = httpx.post(url, content=as_png(np.zeros((8, 8), np.uint8)), timeout=60)
    assert refused.status_code == 400 and "text/plain" in refused.json()["error"]["message"]
