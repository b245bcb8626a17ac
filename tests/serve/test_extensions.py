"""Tests the extensions of the Open Inference Protocol with Triton's client: classification,
configuration, statistics and the index of the models.
"""

import json
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from serve.models import Function, TensorSpec
from serve.routes.outputs import CLASS_BYTES, requested_outputs
from serve.routes.tensors import Selection
from tests.serve.conftest import Web
from tests.serve.test_inference import images, tensor


@pytest.fixture
def client(web: Web) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(web.url.removeprefix("http://")) as made:
        yield made


def classify(client: triton.InferenceServerClient, count: int, binary: bool) -> np.ndarray:
    wanted = triton.InferRequestedOutput("probability", binary_data=binary, class_count=count)
    found = client.infer("digits", [tensor("image", images())], outputs=[wanted])
    return found.as_numpy("probability")


@pytest.mark.parametrize("binary", [True, False])
def test_classification_returns_the_most_probable_classes(
    client: triton.InferenceServerClient, binary: bool
):
    plain = client.infer("digits", [tensor("image", images())]).as_numpy("probability")
    found = classify(client, 3, binary)
    assert found.shape == (3, 3)
    for row, probability in zip(found, plain):
        values, indices, labels = zip(
            *(text.decode().split(":") if binary else text.split(":") for text in row)
        )
        assert [int(each) for each in indices] == np.argsort(-probability)[:3].tolist()
        assert np.allclose(np.array(values, float), np.sort(probability)[::-1][:3], atol=1e-5)
        assert list(labels) == list(indices)  # the digits' classes are 0 to 9
    assert classify(client, 99, binary).shape == (3, 10)


def test_classification_without_labels_and_with_long_ones():
    spec = TensorSpec("q", "FP32", (2,))
    function = Function((spec,), (spec,), dict)

    def first(classes: object) -> bytes:
        predictor = SimpleNamespace(version="1", config={"data": {"classes": classes}})
        selected = Selection(predictor, "m", "f", function)  # type: ignore[arg-type]
        wanted = {"outputs": [{"name": "q", "parameters": {"classification": 1}}]}
        (output,) = requested_outputs(selected, wanted, {"q": np.float32([[0.25, 0.75]])})
        return output.values[0]

    assert first(None) == first(["only one"]) == b"0.750000:1"
    assert first(["a", "b"]) == b"0.750000:1:b"
    long = first(["a", "ä" * 200])
    assert len(long) <= CLASS_BYTES and long.decode().startswith("0.750000:1:ää")


@pytest.mark.parametrize("count", [-1, 1.5, "3", 2**40, [1]])
def test_classification_refuses_invalid_counts(web: Web, count: object):
    tensor = {"name": "image", "shape": [1, 8, 8, 1], "datatype": "UINT8", "data": [7] * 64}
    outputs = [{"name": "probability", "parameters": {"classification": count}}]
    answer = httpx.post(
        f"{web.url}/v2/models/digits/infer", json={"inputs": [tensor], "outputs": outputs}
    )
    assert answer.status_code == 400 and "whole number ≥ 1, e.g. 5" in answer.json()["error"]


def test_config_describes_inputs_and_outputs(client: triton.InferenceServerClient, web: Web):
    about = client.get_model_config("digits-vae.encode")
    assert about["input"] == [{"name": "image", "data_type": "TYPE_UINT8", "dims": [8, 8, 1]}]
    assert about["output"] == [{"name": "code", "data_type": "TYPE_FP32", "dims": [10]}]
    assert about["max_batch_size"] == web.service.limits.max_rows
    version = client.get_model_metadata("road-runner")["versions"][0]
    action = client.get_model_config("road-runner", version)["output"][1]
    assert action == {
        "name": "action",
        "data_type": "TYPE_INT64",
        "dims": [1],
        "reshape": {"shape": []},
    }
    for name, other in (("nope", ""), ("road-runner", "1")):
        with pytest.raises(InferenceServerException):
            client.get_model_config(name, other)


def test_statistics_count_requests_rows_batches_and_failures(start: Callable[..., Web]):
    web = start()
    with triton.InferenceServerClient(web.url.removeprefix("http://")) as client:

        def stats() -> dict:
            (found,) = client.get_inference_statistics("digits-vae.encode")["model_stats"]
            return found

        assert stats()["inference_count"] == 0 and stats()["last_inference"] == 0
        for rows in (3, 3, 2):
            client.infer("digits-vae.encode", [tensor("image", images(rows))])
        with pytest.raises(InferenceServerException):
            client.infer("digits-vae.encode", [tensor("image", images(300))])
        found = stats()
        assert (found["inference_count"], found["execution_count"]) == (8, 3)
        counts = {name: each["count"] for name, each in found["inference_stats"].items()}
        assert counts["success"] == counts["queue"] == counts["compute_infer"] == 3
        assert counts["fail"] == 0  # too many rows: it was refused before it began
        assert found["inference_stats"]["compute_infer"]["ns"] > 0
        assert (
            found["inference_stats"]["compute_infer"]["ns"]
            <= found["inference_stats"]["success"]["ns"]
        )
        batches = {
            each["batch_size"]: each["compute_infer"]["count"] for each in found["batch_stats"]
        }
        assert batches == {3: 2, 2: 1}
        everything = client.get_inference_statistics()["model_stats"]
        names = [each["name"] for each in everything]
        assert "digits-vae.encode" in names and "digits.classify" in names
        assert sum(each["inference_count"] for each in everything) == 8


def test_index_lists_loaded_and_failed_models(start: Callable[..., Web]):
    web = start()
    broken = web.service.registry.folder / "broken"
    broken.mkdir()
    (broken / "config.json").write_text("{}")
    (broken / "model.safetensors").write_bytes(b"nothing")
    web.service.registry.refresh()
    with triton.InferenceServerClient(web.url.removeprefix("http://")) as client:
        index = {each["name"]: each for each in client.get_model_repository_index()}
        assert index["digits"]["state"] == "READY" and index["digits"]["reason"] == ""
        version = client.get_model_metadata("digits")["versions"][0]
        assert index["digits"]["version"] == version
        assert index["broken"]["state"] == "UNAVAILABLE" and index["broken"]["reason"]
    url = f"{web.url}/v2/repository/index"
    assert "broken" not in [each["name"] for each in httpx.post(url, json={"ready": True}).json()]
    assert httpx.post(url, json={"ready": 3}).status_code == 422
    assert json.loads(httpx.post(url).content) == json.loads(httpx.post(url, json={}).content)
