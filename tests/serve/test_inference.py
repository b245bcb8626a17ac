"""Tests the Open Inference Protocol with Triton's client: JSON, binary tensors and refusals."""

import asyncio
import json
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import httpx
import numpy as np
import pytest
import torch
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from genray.rl import presets
from genray.rl.engine import initial_network, network_card, probe_env
from genray.rl.evaluate import Evaluation
from genray.rl.train import save_policy
from serve.errors import BadRequest
from serve.limits import Limits
from serve.models import Function, TensorSpec
from serve.parsing import PARSED_DIRECTLY_BYTES
from serve.routes.outputs import write_answer
from serve.routes.tensors import Selection, read_request
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
        ({"inputs": [VALID], "outputs": [{"name": "image"}] * 12_000}, "requested once"),
        ({"inputs": [VALID], "parameters": 3}, "must be an object"),
        ({"inputs": [VALID], "parameters": {"sequence_id": 5}}, "'sequence_id' is not supported"),
        (
            {
                "inputs": [VALID],
                "outputs": [{"name": "image", "parameters": {"classification": 3}}],
            },
            "output image: has no classes",
        ),
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


def test_infer_takes_and_returns_the_state_of_a_policy_with_an_lstm(
    start: Callable[..., Web], models_dir: Path
):
    """Two clients play in one batch; one of them begins an episode later. A client that sends no
    state gets one line.
    """
    config = presets.blind_catch()
    network = initial_network(network_card(config, *probe_env(config.env)), seed=0)
    nothing = Evaluation("blind_catch", [0.0], [1], 0.0, 0.0, 30, 18_000)
    save_policy(models_dir / "blind", config, network, 0, nothing)
    web = start()
    obs = np.random.default_rng(0).integers(0, 256, (3, 2, 1, 40, 40)).astype(np.uint8)
    state, expected = np.zeros((2, 128), np.float32), torch.zeros(2, 128)
    action, reward = np.array([-1, -1]), np.zeros(2, np.float32)
    with triton.InferenceServerClient(web.url.removeprefix("http://")) as client:
        for step in range(3):
            if step == 1:
                state[1], expected[1], action[1], reward[1] = 0, 0, -1, 0
            given = {"obs": obs[step], "last_action": action, "last_reward": reward}
            sent = [tensor(name, values) for name, values in (given | {"state": state}).items()]
            found = client.infer("blind", sent)
            with torch.no_grad():
                q, expected = network.step(*map(torch.from_numpy, given.values()), expected)
            state = found.as_numpy("state").copy()
            np.testing.assert_allclose(found.as_numpy("q"), q.numpy(), atol=1e-5)
            np.testing.assert_allclose(state, expected.numpy(), atol=1e-5)
            action, reward = found.as_numpy("action").copy(), np.full(2, 0.5, np.float32)
        with pytest.raises(InferenceServerException, match="each once; this policy remembers: beg"):
            client.infer("blind", [tensor("obs", obs[0])])


def test_infer_bounds_the_size_of_an_answer_before_the_model_runs(
    start: Callable[..., Web], monkeypatch: pytest.MonkeyPatch
):
    web = start(limits=Limits(max_answer_mb=1))
    inputs = [{"name": "latent", "shape": [256, 32], "datatype": "FP32", "data": [0.0] * 8192}]
    url = f"{web.url}/v2/models/digits-gan/infer"
    assert httpx.post(url, json={"inputs": inputs}).status_code == 200  # 82 kB
    # 256 rows of 8x8 numbers have 16,384 numbers; a picture of 64x64 would have 64 times as many.
    spec = TensorSpec("image", "UINT8", (64, 64, 1))
    large = Function((TensorSpec("latent", "FP32", (32,)),), (spec,), lambda arrays: pytest.fail())
    predictor = web.service.registry.get("digits-gan")
    monkeypatch.setitem(predictor.functions, "generate", large)
    answer = httpx.post(url, json={"inputs": inputs})
    assert answer.status_code == 413 and "up to 5 MiB; the limit is 1 MiB" in answer.json()["error"]


def test_infer_names_the_input_whose_values_are_too_large(
    start: Callable[..., Web], monkeypatch: pytest.MonkeyPatch
):
    """Finite inputs that overflow in the model are refused; the rest of the batch is answered."""
    web = start()
    row = TensorSpec("row", "FP32", (2,))
    with np.errstate(over="ignore"):
        doubled = Function((row,), (row,), lambda arrays: {"row": arrays["row"] * np.float32(2)})
    predictor = web.service.registry.get("digits-ae")
    monkeypatch.setitem(predictor.functions, "encode", doubled)
    url = f"{web.url}/v2/models/digits-ae.encode/infer"

    def infer(value: float, binary: bool) -> httpx.Response:
        tensor = {"name": "row", "shape": [1, 2], "datatype": "FP32", "data": [value, 1.0]}
        body = {"inputs": [tensor], "parameters": {"binary_data_output": binary}}
        return httpx.post(url, json=body)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for binary in (False, True):
            answer = infer(3e38, binary)
            assert answer.status_code == 400
            assert answer.json()["error"].startswith("input row: the values are too large")
    assert infer(1e38, False).json()["outputs"][0]["data"] == [pytest.approx(2e38), 2.0]


def test_write_answer_in_pieces_equals_json():
    values = np.random.default_rng(0).normal(size=(3, 9000)).astype(np.float32)
    spec = TensorSpec("row", "FP32", (9000,))
    selected = Selection(SimpleNamespace(version="1"), "m", "f", Function((spec,), (spec,), dict))
    body, headers = write_answer(selected, {"id": "7"}, {"row": values})
    found = json.loads(body)
    assert not headers and found["id"] == "7" and found["outputs"][0]["shape"] == [3, 9000]
    assert found["outputs"][0]["data"] == values.ravel().tolist()


def test_infer_parses_large_json_in_another_process(web: Web, monkeypatch: pytest.MonkeyPatch):
    """A JSON parser holds the interpreter's lock: nobody else would be answered meanwhile."""
    parsed: list[int] = []
    loads = json.loads

    def noted(text: bytes, **options: object) -> object:
        parsed.append(len(text))
        return loads(text, **options)

    values = np.random.default_rng(0).normal(size=(256, 32)).astype(np.float32)
    tensor = {"name": "latent", "shape": [256, 32], "datatype": "FP32", "data": values.tolist()}
    body = json.dumps({"inputs": [tensor], "outputs": [{"name": "image"}]}, indent=30).encode()
    small = json.dumps({"inputs": [tensor], "outputs": [{"name": "image"}]}).encode()
    assert len(small) < PARSED_DIRECTLY_BYTES < len(body)
    url = f"{web.url}/v2/models/digits-gan/infer"
    with httpx.Client(timeout=60) as client:
        expected = client.post(url, content=small).json()["outputs"]
        monkeypatch.setattr(json, "loads", noted)
        answer = client.post(url, content=body)
        assert answer.status_code == 200 and loads(answer.content)["outputs"] == expected
        for bad in (b"[" + b"[]," * 200_000 + b"[]]", b"x" * 600_000, b"[" * 600_000):
            assert client.post(url, content=bad).status_code == 400
    assert max(parsed, default=0) <= PARSED_DIRECTLY_BYTES


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_infer_accepts_compressed_requests(client: triton.InferenceServerClient, algorithm: str):
    inputs = [tensor("image", images())]
    plain = client.infer("digits-vae.encode", inputs).as_numpy("code")
    found = client.infer("digits-vae.encode", inputs, request_compression_algorithm=algorithm)
    assert np.allclose(found.as_numpy("code"), plain, atol=1e-5)


def test_a_header_length_of_thousands_of_digits_is_refused():
    spec = Function((TensorSpec("x", "FP32", (1,)),), (TensorSpec("y", "FP32", (1,)),), dict)
    with pytest.raises(BadRequest, match="Inference-Header-Content-Length"):
        asyncio.run(read_request(b"{}", "0" * 5000, spec, asyncio.Semaphore()))
