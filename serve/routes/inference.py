"""Defines the HTTP routes of the Open Inference Protocol, version 2.

A client sends JSON tensors, or binary tensors as Triton's client does. NAME selects the main
function of a model, and NAME.FUNCTION selects any function: digits-vae.encode, road-runner.act, … .
Each model has one version, its hash. The first axis of every tensor is rows.
[https://github.com/kserve/open-inference-protocol]
"""

from collections.abc import Callable
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Path, Request
from fastapi.responses import Response
from pydantic import BaseModel

from genray import __version__
from serve.errors import BadRequest, NotFound, NotReady
from serve.fast_path import FastHandler, FastRequest, FastResponse, NamedHandler
from serve.limits import Limits
from serve.models import Arrays, TensorSpec
from serve.routes.common import InferenceError, json_answer, json_bytes, note_model, refusals
from serve.routes.outputs import check_answer_size, write_answer
from serve.routes.tensors import Selection, read_request
from serve.service import Service

MAIN = ("generate", "classify", "act", "reconstruct", "encode")
"""The main function of a model is the first of these that the model has."""
T = TypeVar("T")
PLATFORM = "genray_pytorch"
BINARY_HEADER = "inference-header-content-length"

SERVER = {
    "name": "genray",
    "version": __version__,
    "extensions": [
        "binary_tensor_data",
        "classification",
        "model_configuration",
        "statistics",
    ],
}
"""What the server says of itself."""

Name = Annotated[str, Path(max_length=128, description="NAME or NAME.FUNCTION.")]
Version = Annotated[str, Path(max_length=64, description="The model's version.")]


class InferTensor(BaseModel):
    """One input tensor."""

    name: str
    shape: list[int]
    datatype: str
    data: list[Any] | None = None
    parameters: dict[str, Any] | None = None


class InferRequest(BaseModel):
    """An inference request. With binary tensors, this is the JSON at the beginning of the body."""

    inputs: list[InferTensor]
    outputs: list[dict[str, Any]] | None = None
    id: str | None = None
    parameters: dict[str, Any] | None = None


def inference_routes(service: Service) -> APIRouter:
    """Return the routes under /v2, which call `service`."""
    router = APIRouter(prefix="/v2", tags=["Open Inference Protocol"])
    maybe = refusals(400, 404, 422, 503, model=InferenceError)

    @router.get("", responses=maybe, summary="Name and version of the server")
    async def server() -> Response:
        return json_answer(SERVER)

    @router.get("/health/live", responses=maybe, summary="Whether the service is alive")
    async def live() -> Response:
        return json_answer({"live": True})

    @router.get("/health/ready", responses=maybe, summary="Whether all models are loaded")
    async def ready() -> Response:
        if not service.readiness()[0]:
            raise NotReady("not all models are loaded: see /readyz")
        return json_answer({"ready": True})

    @router.get("/models/{name}", responses=maybe, summary="Inputs and outputs of a model")
    async def metadata(name: Name) -> Response:
        return json_answer(metadata_of(select(service, name)))

    @router.get(
        "/models/{name}/versions/{version}",
        responses=maybe,
        summary="Inputs and outputs of one version of a model",
    )
    async def metadata_of_version(name: Name, version: Version) -> Response:
        return json_answer(metadata_of(select(service, name, version)))

    @router.get("/models/{name}/ready", responses=maybe, summary="Whether a model is loaded")
    async def model_ready(name: Name) -> Response:
        return json_answer({"name": select(service, name).name, "ready": True})

    @router.get(
        "/models/{name}/versions/{version}/ready",
        responses=maybe,
        summary="Whether one version of a model is loaded",
    )
    async def model_ready_of_version(name: Name, version: Version) -> Response:
        return json_answer({"name": select(service, name, version).name, "ready": True})

    body = {
        "content": {"application/json": {"schema": InferRequest.model_json_schema()}},
        "required": True,
    }
    body["content"]["application/octet-stream"] = {"schema": {"type": "string", "format": "binary"}}  # type: ignore[index]

    @router.post(
        "/models/{name}/infer",
        responses=maybe,
        summary="Run a function of a model",
        openapi_extra={"requestBody": body},
    )
    async def infer(request: Request, name: Name) -> Response:
        return await _infer(service, request, select(service, name))

    @router.post(
        "/models/{name}/versions/{version}/infer",
        responses=maybe,
        summary="Run a function of one version of a model",
        openapi_extra={"requestBody": body},
    )
    async def infer_version(request: Request, name: Name, version: Version) -> Response:
        return await _infer(service, request, select(service, name, version))

    return router


def select(service: Service, name: str, version: str = "") -> Selection:
    """Find the model and the function that `name` selects. Raises NotFound or BadRequest."""
    model, function = name, ""
    if name not in service.registry.models and "." in name:
        model, _, function = name.rpartition(".")
    predictor = service.model(model)
    if version and version != predictor.version:
        raise NotFound(f"model {model!r} is at version {predictor.version}, not {version[:80]!r}")
    if not function:
        function = next((each for each in MAIN if each in predictor.functions), "")
        if not function:
            raise BadRequest(
                f"model {model!r} ({predictor.kind}) has no functions of tensors; use "
                "/v1/images/edits"
            )
    if function not in predictor.functions:
        raise NotFound(
            f"model {model!r} has no function {function[:80]!r}; it has "
            f"{', '.join(sorted(predictor.functions))}"
        )
    return Selection(predictor, name, function, predictor.functions[function])


def metadata_of(selected: Selection) -> dict[str, Any]:
    """Describe the inputs and outputs of a selection, as the protocol does."""

    def row(spec: TensorSpec) -> dict[str, Any]:
        return {"name": spec.name, "datatype": spec.datatype, "shape": [-1, *spec.shape]}

    return {
        "name": selected.name,
        "versions": [selected.predictor.version],
        "platform": PLATFORM,
        "inputs": [row(spec) for spec in selected.spec.inputs],
        "outputs": [row(spec) for spec in selected.spec.outputs],
    }


async def _infer(service: Service, request: Request, selected: Selection) -> Response:
    body, headers = await infer_bytes(
        service,
        selected,
        await request.body(),
        request.headers.get(BINARY_HEADER),
        request.scope["state"],
    )
    media_type = "application/octet-stream" if headers else "application/json"
    return Response(body, headers=headers, media_type=media_type)


async def infer_bytes(
    service: Service,
    selected: Selection,
    body: bytes,
    header_length: str | None,
    state: dict[str, Any],
) -> tuple[bytes, dict[str, str]]:
    """Run an inference. Returns (the body of the answer, headers that a binary answer needs).

    `header_length`: see `read_request`. `state`: the state of the ASGI scope. Raises ApiError.
    """
    note_model(state, selected.predictor)
    wanted, arrays = await read_request(body, header_length, selected.spec, service.parsers)
    return await run_inference(service, selected, wanted, arrays, write_answer)


async def run_inference(
    service: Service,
    selected: Selection,
    wanted: dict[str, Any],
    arrays: Arrays,
    write: Callable[[Selection, dict[str, Any], Arrays], T],
    limits: Limits | None = None,
) -> T:
    """Run a checked request, and return the answer that `write` makes of (selection, request,
    outputs). Raises ApiError.

    `limits`: bound the size of the answer; None: the limits of the service.
    """
    check_answer_size(wanted, arrays, selected.spec, limits or service.limits)

    # Written in the batcher's thread, so that the event loop can serve other requests.
    def written(found: Arrays) -> T:
        return write(selected, wanted, found)

    answer: T = await service.predict(selected.predictor, selected.function, arrays, written)
    return answer


def fast_infer(service: Service) -> NamedHandler:
    """Return the fast-path handler of POST /v2/models/NAME/infer."""

    async def handle(name: str, request: FastRequest) -> FastResponse:
        length = request.headers.get(BINARY_HEADER.encode())
        text = None if length is None else length.decode("latin-1")
        body, headers = await infer_bytes(
            service, select(service, name), request.body, text, request.state
        )
        if not headers:
            return FastResponse(body)
        pairs = tuple((key.lower().encode(), value.encode()) for key, value in headers.items())
        return FastResponse(body, b"application/octet-stream", pairs)

    return handle


def fast_health(service: Service) -> tuple[FastHandler, FastHandler]:
    """Return the fast-path handlers of /v2/health/live and /v2/health/ready."""
    live, ready = (
        FastResponse(json_bytes({"live": True})),
        FastResponse(json_bytes({"ready": True})),
    )

    async def is_live(request: FastRequest) -> FastResponse:
        return live

    async def is_ready(request: FastRequest) -> FastResponse | None:
        return ready if service.readiness()[0] else None

    return is_live, is_ready
