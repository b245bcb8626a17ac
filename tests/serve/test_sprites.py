"""Tests the service with a sprite model: enlarged pictures, seeds, and no walk."""

import base64
import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from genray.gen.sprites.config import SpriteModelConfig, sprites
from genray.gen.sprites.task import SpriteTask
from genray.gen.training.config import FitConfig
from genray.gen.training.fit import Fit
from genray.gen.training.run import save_export
from tests.helpers.sprites import PALETTE, toy_data
from tests.serve.conftest import Web, start_web, stop_web


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    """The application with a sprite model of a toy game, after three steps of training."""
    folder: Path = tmp_path_factory.mktemp("models")
    config = replace(
        sprites(),
        fit=FitConfig(steps=3, batch_size=32),
        model=SpriteModelConfig(width=16, layers=1, heads=2),
    )
    fit = Fit(SpriteTask(config), toy_data(), config.fit)
    for _ in fit:
        pass
    save_export(folder / "toy", fit, {})
    running = start_web(folder)
    yield running
    stop_web(running)


def generated(web: Web, **body: object) -> list[np.ndarray]:
    answer = httpx.post(
        f"{web.url}/v1/images/generations", json={"model": "toy", **body}, timeout=60
    ).raise_for_status()
    pictures = [base64.b64decode(each["b64_json"]) for each in answer.json()["data"]]
    return [np.asarray(Image.open(io.BytesIO(each)).convert("RGB")) for each in pictures]


def test_generations_enlarge_screens_and_repeat_a_seed(web: Web):
    small, other = generated(web, seed=7, n=2)
    (large,) = generated(web, seed=7, size="144x120")
    assert small.shape == (40, 48, 3) and not np.array_equal(small, other)
    assert np.array_equal(large, small.repeat(3, axis=0).repeat(3, axis=1))
    assert {tuple(each) for each in small.reshape(-1, 3)} <= {tuple(each) for each in PALETTE}


def test_generations_name_the_sizes_of_a_screen(web: Web):
    answer = httpx.post(
        f"{web.url}/v1/images/generations", json={"model": "toy", "size": "50x50"}, timeout=60
    )
    assert answer.status_code == 400 and "48x40" in answer.json()["error"]["message"]


def test_infer_maps_latents_to_screens(web: Web):
    about = httpx.get(f"{web.url}/v2/models/toy.generate").json()
    shape = about["inputs"][0]["shape"]
    tensor = {"name": "latent", "datatype": "FP32", "shape": [1, shape[-1]]}
    body = {"inputs": [{**tensor, "data": [0.0] * shape[-1]}]}
    answer = httpx.post(f"{web.url}/v2/models/toy.generate/infer", json=body).raise_for_status()
    (output,) = answer.json()["outputs"]
    assert output["shape"] == [1, 40, 48, 3] and output["datatype"] == "UINT8"


def test_walk_between_screens_is_refused(web: Web):
    answer = httpx.get(f"{web.url}/api/walk/toy")
    assert answer.status_code == 400
    assert "no screen lies between two others" in answer.json()["error"]["message"]
