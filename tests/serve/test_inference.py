"""Tests the Open Inference Protocol with Triton's client: JSON, binary tensors and refusals."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from genray.rl import presets
from genray.rl.engine import initial_network, network_card
from genray.rl.evaluate import Evaluation
from genray.rl.train import save_policy
from tests.serve.conftest import Web


@pytest.fixture
def client(web: Web) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(web.url.removeprefix("http://")) as made:
        yield made


def tensor(name: str, values: np.ndarray, binary: bool = True) -> triton.InferInput:
    types = {"float32": "FP32", "uint8": "UINT8", "int64": "INT64"}
    made = triton.InferInput(name, list(values.shape), types[str(values.dtype)])
    made.set_data_from_numpy(values, binary_data=binary)
    return made


def images(rows: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (rows, 8, 8, 1)).astype(np.uint8)


def test_metadata_of_the_server_and_of_models(client: triton.InferenceServerClient):
    assert client.is_server_live() and client.is_server_ready()
    assert client.get_server_metadata()["name"] == "genray"
    about = client.get_model_metadata("digits-vae.encode")
    assert about["inputs"] == [{"name": "image", "datatype": "UINT8", "shape": [-1, 8, 8, 1]}]
    assert about["outputs"] == [{"name": "code", "datatype": "FP32", "shape": [-1, 10]}]
    assert client.is_model_ready("digits-vae") and client.is_model_ready(
        "digits-vae", about["versions"][0]
    )
    assert not client.is_model_ready("digits-vae", "1")


@pytest.mark.parametrize("binary", [True, False])
def test_infer_encode_decode_and_reconstruct_agree(
    client: triton.InferenceServerClient, web: Web, binary: bool
):
    wanted = [triton.InferRequestedOutput("code", binary_data=binary)]
    x = images()
    code = client.infer("digits-ae.encode", [tensor("image", x, binary)], outputs=wanted).as_numpy(
        "code"
    )
    predictor = web.service.registry.get("digits-ae")
    expected = predictor.functions["encode"].run({"image": x})["code"]
    assert code.dtype == np.float32 and np.allclose(code, expected, atol=1e-5)
    decoded = client.infer("digits-ae.decode", [tensor("code", code, binary)]).as_numpy("image")
    again = client.infer("digits-ae.reconstruct", [tensor("image", x, binary)]).as_numpy("image")
    assert decoded.dtype == np.uint8 and np.abs(decoded.astype(int) - again).max() <= 1


def test_infer_returns_a_policys_actions(client: triton.InferenceServerClient):
    obs = np.random.default_rng(0).integers(0, 256, (2, 4, 84, 84)).astype(np.uint8)
    found = client.infer("road-runner", [tensor("obs", obs)], request_id="mine")
    assert found.get_response()["id"] == "mine"
    q = found.as_numpy("q")
    assert q.shape == (2, 18) and (found.as_numpy("action") == q.argmax(1)).all()


def test_infer_returns_probabilities_that_sum_to_one(client: triton.InferenceServerClient):
    found = client.infer("digits", [tensor("image", images(5))]).as_numpy("probability")
    assert found.shape == (5, 10) and np.allclose(found.sum(1), 1, atol=1e-5)


def test_infer_returns_only_the_requested_outputs(client: triton.InferenceServerClient):
    obs = np.zeros((1, 4, 84, 84), np.uint8)
    found = client.infer(
        "road-runner", [tensor("obs", obs)], outputs=[triton.InferRequestedOutput("action")]
    )
    assert [each["name"] for each in found.get_response()["outputs"]] == ["action"]
    assert found.as_numpy("q") is None


@pytest.mark.parametrize(
    ("model", "inputs", "message"),
    [
        ("nope", [tensor("image", images())], "no model 'nope'"),
        ("digits-vae.dance", [tensor("image", images())], "no function 'dance'; it has decode"),
        ("digits", [tensor("picture", images())], "must be image"),
        ("digits", [tensor("image", images()), tensor("image", images())], "each once"),
        ("digits", [tensor("image", images().astype(np.float32))], "must be UINT8"),
        ("digits", [tensor("image", images().reshape(3, 64))], r"must be \[-1, 8, 8, 1\]"),
        ("digits", [tensor("image", np.zeros((300, 8, 8, 1), np.uint8))], "the limit is 256"),
        ("digits-gan", [tensor("latent", np.full((1, 32), np.nan, np.float32))], "finite numbers"),
        ("waves", [tensor("image", images())], "has no functions of tensors"),
    ],
)
def test_infer_refuses_inputs_that_do_not_match_the_model(
    client: triton.InferenceServerClient, model: str, inputs: list, message: str
):
    with pytest.raises(InferenceServerException, match=message):
        client.infer(model, inputs)


VALID = {"name": "latent", "shape": [1, 32], "datatype": "FP32", "data": [0.0] * 32}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"[", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        ({"inputs": "x"}, "list of tensors"),
        ({"inputs": [{**VALID, "data": [0.0] * 31}]}, "32 numbers"),
        ({"inputs": [{**VALID, "data": ["0"] * 32}]}, "32 numbers"),
        ({"inputs": [{**VALID, "data": [[0.0] * 16, [0.0] * 15]}]}, "32 numbers"),
        ({"inputs": [{**VALID, "shape": [-1, 32]}]}, "≥ 1 rows"),
        ({"inputs": [{**VALID, "shape": [2**62, 32]}]}, "≥ 1 rows"),
        ({"inputs": [{**VALID, "shape": [True, 32]}]}, "≥ 1 rows"),
        ({"inputs": [{**VALID, "parameters": {"binary_data_size": 128}}]}, "must follow"),
        ({"inputs": [VALID], "outputs": [{"name": "sound"}]}, "the outputs are image"),
        ({"inputs": [VALID], "outputs": [3]}, "requested tensors"),
        ({"inputs": [VALID], "parameters": 3}, "must be an object"),
    ],
)
def test_infer_refuses_malformed_bodies(web: Web, body: object, message: str):
    content = {"content": body} if isinstance(body, bytes) else {"json": body}
    answer = httpx.post(f"{web.url}/v2/models/digits-gan/infer", **content)  # type: ignore[arg-type]
    assert answer.status_code == 400 and message in answer.json()["error"]


def test_infer_refuses_numbers_outside_the_datatype(web: Web):
    """300 and −1 are outside the range of a byte, and 3.7 is not a whole number."""
    for value in (300, -1, 3.7):
        values = {"name": "image", "shape": [1, 8, 8, 1], "datatype": "UINT8", "data": [value] * 64}
        answer = httpx.post(f"{web.url}/v2/models/digits/infer", json={"inputs": [values]})
        assert answer.status_code == 400 and "whole numbers in 0..255" in answer.json()["error"]


def test_infer_refuses_another_version(web: Web):
    answer = httpx.post(
        f"{web.url}/v2/models/digits-gan/versions/7/infer", json={"inputs": [VALID]}
    )
    assert answer.status_code == 404 and "is at version" in answer.json()["error"]


@pytest.mark.parametrize("wrong", [-2, 18, 2**40, -(2**63)])
def test_infer_refuses_an_invalid_action_and_answers_the_rest_of_its_batch(
    start: Callable[..., Web], models_dir: Path, wrong: int
):
    config = presets.road_runner_quick()
    config = replace(config, network=replace(config.network, past_actions=2))
    card = network_card(config, 18, (84, 84))
    nothing = Evaluation("road_runner", [0.0], [1], 0.001, 0.0, 30, 18_000)
    save_policy(models_dir / "past", config, initial_network(card, seed=0), 0, nothing)
    web = start()

    def ask(past: list[int]) -> httpx.Response:
        obs = {
            "name": "obs",
            "datatype": "UINT8",
            "shape": [1, 4, 84, 84],
            "data": [0] * (4 * 84 * 84),
        }
        actions = {"name": "past_actions", "datatype": "INT64", "shape": [1, 2], "data": past}
        return httpx.post(
            f"{web.url}/v2/models/past/infer", json={"inputs": [obs, actions]}, timeout=60
        )

    assert ask([17, -1]).status_code == 200
    refused = ask([0, wrong])
    assert (
        refused.status_code == 400
        and f"past_actions: {wrong}; must lie in 0..17" in refused.json()["error"]
    )
    with ThreadPoolExecutor(8) as pool:
        statuses = list(
            pool.map(lambda number: ask([0, wrong if number % 2 else 0]).status_code, range(8))
        )
    assert statuses == [200, 400] * 4
