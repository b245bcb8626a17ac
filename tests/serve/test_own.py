"""Tests the routes under /api: neighbours of a picture, latent walks and streamed games."""

import base64
import io
import json
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from genray.gen.data.config import DataConfig
from genray.gen.data.load import load_data
from genray.gen.evaluation.retrieval import database
from serve.limits import Limits
from tests.serve.conftest import Web


def as_png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def test_retrieve_finds_a_training_picture_first(web: Web):
    base = database(load_data(DataConfig()))
    row = 11
    image = (base.take(np_rows(row))[0][0, 0].numpy() * 255).round().astype(np.uint8)
    answer = httpx.post(
        f"{web.url}/api/retrieve/digits-ae?count=5", content=as_png(image), timeout=60
    )
    assert answer.status_code == 200, answer.text
    found = answer.json()["neighbours"]
    assert found[0]["row"] == row and found[0]["distance"] == pytest.approx(0, abs=0.05)
    assert [each["distance"] for each in found] == sorted(each["distance"] for each in found)
    assert base.label is not None and found[0]["label"] == str(int(base.label[row]))
    with Image.open(io.BytesIO(base64.b64decode(found[0]["b64_json"]))) as neighbour:
        assert np.abs(np.asarray(neighbour).astype(int) - image).max() <= 1


def np_rows(*rows: int):
    import torch

    return torch.tensor(rows)


def test_retrieve_scales_a_large_photo(web: Web, photo: np.ndarray):
    answer = httpx.post(f"{web.url}/api/retrieve/digits-vae", content=as_png(photo), timeout=60)
    assert len(answer.json()["neighbours"]) == 10


@pytest.mark.parametrize(
    ("path", "status", "message"),
    [
        ("digits-gan", 400, "has no function 'encode'"),
        ("road-runner", 400, "has no function 'encode'"),
        ("nope", 404, "no model"),
        ("digits-ae?count=0", 422, "count"),
        ("digits-ae?count=500", 413, "at most 32"),
    ],
)
def test_retrieve_refuses_invalid_requests(
    web: Web, photo: np.ndarray, path: str, status: int, message: str
):
    answer = httpx.post(f"{web.url}/api/retrieve/{path}", content=as_png(photo))
    assert answer.status_code == status and message in answer.json()["error"]["message"]


def test_walk_gif_depends_on_the_seed_alone(web: Web):
    first, again, other = (
        httpx.get(
            f"{web.url}/api/walk/digits-vae", params={"seed": seed, "stops": 3, "frames": 4}
        ).content
        for seed in (1, 1, 2)
    )
    assert first == again != other
    with Image.open(io.BytesIO(first)) as gif:
        assert gif.format == "GIF" and gif.n_frames == 12 and gif.size == (128, 128)  # type: ignore[attr-defined]


def test_play_streams_every_step(web: Web):
    with httpx.stream(
        "GET", f"{web.url}/api/play/road-runner?steps=12&seed=3&fps=120", timeout=60
    ) as answer:
        steps = [json.loads(line) for line in answer.iter_lines()]
    assert [step["step"] for step in steps] == list(range(13))
    assert len(steps[0]["actions"]) == 18 and "q" not in steps[0]
    for step in steps[1:]:
        assert len(step["q"]) == 18 and np.argmax(step["q"]) == steps[0]["actions"].index(
            step["action"]
        )
    with Image.open(io.BytesIO(base64.b64decode(steps[-1]["png"]))) as frame:
        assert frame.size == (160, 210) and frame.mode == "RGB"


def test_play_limits_the_streams_until_a_client_disconnects(
    start: Callable[..., Web],
):
    web = start(limits=Limits(max_streams=1))
    path = f"{web.url}/api/play/road-runner?steps=2000"
    with httpx.stream("GET", path, timeout=60) as answer:
        lines = answer.iter_lines()  # httpx disconnects when the iterator is garbage-collected
        next(lines)
        assert httpx.get(path).status_code == 429
    for _ in range(100):
        time.sleep(0.1)
        with httpx.stream(
            "GET", f"{web.url}/api/play/road-runner?steps=1&fps=120", timeout=60
        ) as again:
            if again.status_code == 200:
                break
    assert again.status_code == 200


def test_play_refuses_other_models_and_too_many_steps(web: Web):
    answer = httpx.get(f"{web.url}/api/play/digits-gan")
    assert (
        answer.status_code == 400
        and "has no function 'act'; its functions: generate" in answer.json()["error"]["message"]
    )
    assert httpx.get(f"{web.url}/api/play/road-runner?steps=3000").status_code == 413


@pytest.mark.parametrize("env", [{"env": "genray.rl.catch:Catch"}, {"joystick": 1}, None])
def test_play_refuses_a_policy_without_an_atari_game(
    start: Callable[..., Web], models_dir: Path, env: dict[str, object] | None
):
    place = models_dir / "road-runner" / "config.json"
    place.write_text(json.dumps(json.loads(place.read_text()) | {"env": env}))
    web = start()
    answer = httpx.get(f"{web.url}/api/play/road-runner?steps=3")
    assert answer.status_code == 400 and "'road-runner'" in answer.json()["error"]["message"]


@pytest.mark.parametrize("data", ["mnist", "svhn", "cifar10"])
def test_retrieve_downloads_no_data(
    start: Callable[..., Web],
    models_dir: Path,
    tmp_path: Path,
    photo: np.ndarray,
    data: str,
    monkeypatch: pytest.MonkeyPatch,
):
    from genray.gen.data import published

    place = models_dir / "digits-ae" / "config.json"
    config = json.loads(place.read_text())
    config["data"]["options"] |= {"data": data, "data_folder": str(tmp_path / "none")}
    place.write_text(json.dumps(config))
    asked: list[str] = []

    def probe(url: str) -> None:  # a download calls this function first
        asked.append(url)
        raise OSError("no network")

    monkeypatch.setattr(published, "probe", probe)
    web = start()
    answer = httpx.post(f"{web.url}/api/retrieve/digits-ae", content=as_png(photo), timeout=60)
    assert (
        answer.status_code == 400
        and f"({data}) are not on this machine" in answer.json()["error"]["message"]
    )
    assert asked == [] and not list(tmp_path.glob("none/**/*.gz"))
