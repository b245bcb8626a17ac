"""Tests the Open Inference Protocol over gRPC with Triton's client, on a server without Ray."""

import asyncio
import pickle
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.grpc import service_pb2
from tritonclient.utils import InferenceServerException

from serve import open_inference
from serve.errors import BadRequest
from serve.limits import Limits
from serve.models import Function, TensorSpec
from serve.open_inference import METHODS, add_servicer
from serve.rpc import Rpc, read_message
from tests.serve.conftest import Web
from tests.serve.test_inference import images

KEY = "0123456789abcdef"


class Servicer:
    """Calls `Rpc` as Ray Serve calls the deployment."""

    def __init__(self, rpc: Rpc):
        for name in METHODS:
            setattr(self, name, self._method(rpc, name))

    @staticmethod
    def _method(rpc: Rpc, name: str) -> Any:
        async def call(request: Any, context: Any) -> Any:
            return await rpc.answer(name, request, context)

        return call


@contextmanager
def served(web: Web) -> Iterator[str]:
    """Start a gRPC server for the service of `web`; yields its address."""
    loop, ports, stop = asyncio.new_event_loop(), [], asyncio.Event()
    ready = threading.Event()

    async def run() -> None:
        server = grpc.aio.server(
            options=[("grpc.max_receive_message_length", web.service.limits.max_body_bytes + 2**16)]
        )
        app: Any = web.server.config.app
        add_servicer(Servicer(Rpc(web.service, app)), server)
        ports.append(server.add_insecure_port("127.0.0.1:0"))
        await server.start()
        ready.set()
        await stop.wait()
        await server.stop(1)

    thread = threading.Thread(target=loop.run_until_complete, args=(run(),), daemon=True)
    thread.start()
    ready.wait(20)
    try:
        yield f"127.0.0.1:{ports[0]}"
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(20)
        loop.close()


@pytest.fixture(scope="module")
def address(web: Web) -> Iterator[str]:
    with served(web) as found:
        yield found


@pytest.fixture
def client(address: str) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(address) as made:
        yield made


def tensor(name: str, values: np.ndarray) -> triton.InferInput:
    types = {"float32": "FP32", "uint8": "UINT8", "int64": "INT64"}
    made = triton.InferInput(name, list(values.shape), types[str(values.dtype)])
    made.set_data_from_numpy(values)
    return made


def refused(call: Callable[[], object]) -> tuple[str, str]:
    """Return (code, message) of the error of a call."""
    with pytest.raises(InferenceServerException) as caught:
        call()
    return str(caught.value.status()), str(caught.value.message())


def test_messages_are_those_of_another_implementation():
    """The fields have the numbers and types of Triton's file, which is generated elsewhere."""
    for name in METHODS:
        for kind in ("Request", "Response"):
            ours = getattr(open_inference, f"{name}{kind}").DESCRIPTOR
            others = getattr(service_pb2, f"{name}{kind}").DESCRIPTOR
            for field in ours.fields:
                if (name, field.name) == ("ModelMetadata", "properties"):
                    continue  # the protocol is newer than Triton's
                same = others.fields_by_name[field.name]
                assert (field.number, field.type) == (same.number, same.type), field.full_name
    made = open_inference.ModelInferRequest(model_name="a")  # type: ignore[attr-defined]
    assert pickle.loads(pickle.dumps(made)) == made


def test_metadata_and_readiness(client: triton.InferenceServerClient):
    assert client.is_server_live() and client.is_server_ready()
    assert client.get_server_metadata().name == "genray"
    about = client.get_model_metadata("digits-vae.encode", as_json=True)
    assert about["inputs"] == [
        {"name": "image", "datatype": "UINT8", "shape": ["-1", "8", "8", "1"]}
    ]
    assert client.is_model_ready("digits-vae", about["versions"][0])
    assert "NOT_FOUND" in refused(lambda: client.get_model_metadata("nope"))[0]
    assert "NOT_FOUND" in refused(lambda: client.is_model_ready("digits-vae", "1"))[0]


def test_infer_equals_the_model(client: triton.InferenceServerClient, web: Web):
    x = images(5)
    wanted = [triton.InferRequestedOutput("code")]
    found = client.infer("digits-ae.encode", [tensor("image", x)], outputs=wanted, request_id="7")
    predictor = web.service.registry.get("digits-ae")
    expected = predictor.functions["encode"].run({"image": x})["code"]
    assert np.allclose(found.as_numpy("code"), expected, atol=1e-5)
    assert found.get_response().id == "7"
    assert found.get_response().model_version == predictor.version
    obs = np.random.default_rng(0).integers(0, 256, (2, 4, 84, 84)).astype(np.uint8)
    played = client.infer("road-runner", [tensor("obs", obs)])
    assert (played.as_numpy("action") == played.as_numpy("q").argmax(1)).all()
    classes = client.infer(
        "digits",
        [tensor("image", x)],
        outputs=[triton.InferRequestedOutput("probability", class_count=2)],
    ).as_numpy("probability")
    assert classes.shape == (5, 2) and classes[0, 0].count(b":") == 2


def infer(address: str, request: Any) -> Any:
    """Send a request as a client in another language would."""
    with grpc.insecure_channel(address) as channel:
        call = channel.unary_unary(
            f"/{open_inference.SERVICE}/ModelInfer",
            request_serializer=open_inference.REQUESTS["ModelInfer"].SerializeToString,
            response_deserializer=open_inference.RESPONSES["ModelInfer"].FromString,
        )
        return call(request, timeout=30)


def latents(rows: int = 2, **changes: Any) -> Any:
    """Return a request whose numbers are in the typed field of the message, not raw."""
    request = open_inference.REQUESTS["ModelInfer"](model_name="digits-gan", **changes)
    values = np.linspace(-1, 1, 32 * rows, dtype=np.float32).tolist()
    made = request.inputs.add(name="latent", datatype="FP32", shape=[rows, 32])
    made.contents.fp32_contents.extend(values)
    return request


def test_infer_reads_typed_contents(address: str, web: Web):
    answer = infer(address, latents(200))
    (output,) = answer.outputs
    assert (output.name, output.datatype, list(output.shape)) == ("image", "UINT8", [200, 8, 8, 1])
    rows = np.linspace(-1, 1, 32 * 200, dtype=np.float32).reshape(200, 32)
    expected = web.service.registry.get("digits-gan").functions["generate"].run({"latent": rows})
    found = np.frombuffer(answer.raw_output_contents[0], np.uint8).reshape(200, 8, 8, 1)
    assert np.abs(found.astype(int) - expected["image"]).max() <= 1


def _changed(change: Callable[[Any], object]) -> Any:
    request = latents()
    change(request)
    return request


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r.inputs.add().CopyFrom(r.inputs[0]), "latent, each once"),
        (lambda r: r.inputs[0].contents.fp32_contents.pop(), "must be 64 numbers of FP32"),
        (lambda r: r.inputs[0].contents.ClearField("fp32_contents"), "must be 64 numbers"),
        (lambda r: setattr(r.inputs[0], "datatype", "FP16"), "must be FP32"),
        (lambda r: r.inputs[0].shape.append(1), "must be [-1, 32]"),
        (lambda r: r.raw_input_contents.extend([b"", b""]), "must have one for each"),
        (lambda r: r.raw_input_contents.append(b"123"), "binary_data_size 3; must be 256"),
        (lambda r: r.outputs.add(name="sound"), "the outputs are image"),
        (lambda r: [r.outputs.add(name="image") for _ in range(9000)], "requested once"),
        (lambda r: r.inputs[0].contents.fp32_contents.__setitem__(0, np.nan), "finite numbers"),
        (lambda r: r.parameters["priority"].__setattr__("int64_param", 2), "'priority' is not"),
        (lambda r: r.inputs[0].parameters["shared_memory_region"].__setattr__(
            "string_param", "x"), "'shared_memory_region' is not"),
        (lambda r: r.ClearField("inputs"), "inputs: must be latent"),
    ],
)  # fmt: skip
def test_infer_refuses_what_http_refuses(
    address: str, change: Callable[[Any], object], message: str
):
    with pytest.raises(grpc.RpcError) as caught:
        infer(address, _changed(change))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert message in caught.value.details()


@pytest.mark.parametrize(
    "change",
    [
        lambda r: [r.inputs.add() for _ in range(200_000)],
        lambda r: [r.outputs.add() for _ in range(200_000)],
        lambda r: r.inputs[0].shape.extend([1] * 1_000_000),
        lambda r: [r.parameters[str(number)] for number in range(200_000)],
    ],
)
def test_messages_with_very_many_parts_are_refused_at_once(change: Callable[[Any], object]):
    """Reading all of these parts would take the event loop a second."""
    spec = Function(
        (TensorSpec("latent", "FP32", (32,)),), (TensorSpec("image", "UINT8", ()),), dict
    )
    request = _changed(change)
    start = time.thread_time()
    with pytest.raises(BadRequest):
        asyncio.run(read_message(request, spec))
    assert time.thread_time() - start < 0.2


@pytest.mark.parametrize(("key", "code"), [(KEY, "INVALID_ARGUMENT"), ("", "UNAUTHENTICATED")])
def test_messages_are_parsed_after_the_key_is_checked(
    start: Callable[..., Web], key: str, code: str
):
    with served(start(keys=(KEY,))) as address, grpc.insecure_channel(address) as channel:
        call = channel.unary_unary(f"/{open_inference.SERVICE}/ModelInfer")
        with pytest.raises(grpc.RpcError) as caught:
            call(b"no message", metadata=[("authorization", f"Bearer {key}")], timeout=30)
        assert caught.value.code() is grpc.StatusCode[code]


@pytest.mark.parametrize("field", ["model_name", "model_version"])
def test_long_names_are_cut_in_messages(address: str, field: str):
    with pytest.raises(grpc.RpcError) as caught:
        infer(address, _changed(lambda r: setattr(r, field, "digits-gan." + "x" * 9000)))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert len(caught.value.details()) < 300


@pytest.mark.parametrize("key", ["", "Bearer wrong", f"Basic {KEY}"])
def test_key_is_read_from_the_metadata(start: Callable[..., Web], key: str):
    headers = {"authorization": key} if key else {}
    with served(start(keys=(KEY,))) as address, triton.InferenceServerClient(address) as client:
        request = [tensor("image", images())]
        for call in (
            lambda: client.is_server_live(headers=headers),
            lambda: client.get_server_metadata(headers=headers),
            lambda: client.infer("digits", request, headers=headers),
        ):
            assert "UNAUTHENTICATED" in refused(call)[0]
        good = {"authorization": f"Bearer {KEY}"}
        assert client.is_server_live(headers=good)
        assert client.infer("digits", request, headers=good)


def test_limits_of_http_bound_messages_rows_and_answers(start: Callable[..., Web]):
    web = start(limits=Limits(max_body_mb=1, max_rows=100, max_in_flight=1))
    with served(web) as address, triton.InferenceServerClient(address) as client:

        def encode(rows: int) -> object:
            return client.infer("digits-vae.encode", [tensor("image", images(rows))])

        assert encode(100)
        assert "the limit is 100" in refused(lambda: encode(101))[1]
        assert "the limit is 1 MiB" in refused(lambda: encode(2**14 + 10))[1]
        assert "RESOURCE_EXHAUSTED" in refused(lambda: encode(2**15))[0]  # gRPC's own limit
        web.service.telemetry.in_flight += 1
        assert "RESOURCE_EXHAUSTED" in refused(lambda: encode(1))[0]
        web.service.telemetry.in_flight -= 1
        assert encode(1)
        assert web.service.telemetry.in_flight == 0 and web.service.telemetry.body_bytes == 0
        requests = web.service.telemetry.requests
        assert requests["grpc/ModelInfer", "200"] == 2 and requests["grpc/ModelInfer", "413"] == 2


def test_internal_errors_name_the_request_and_no_cause(
    address: str, client: triton.InferenceServerClient, web: Web, monkeypatch: pytest.MonkeyPatch
):
    def broken(*_: object) -> object:
        raise RuntimeError("a secret")

    monkeypatch.setattr(web.service, "readiness", broken)
    code, message = refused(client.is_server_ready)
    assert "INTERNAL" in code and "secret" not in message and "details of request" in message
