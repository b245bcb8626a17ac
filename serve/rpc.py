"""Answers the Open Inference Protocol over gRPC with the checks, limits and handlers of HTTP.

A request becomes the same values as the protocol's JSON (serve/routes/tensors.py). The tensors of
an answer are always in binary form. The metadata contain the key, as `authorization: Bearer KEY`.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import grpc
import numpy as np
from google.protobuf.message import DecodeError

from serve.errors import ApiError, BadRequest, Busy, InternalError, TooLarge
from serve.middleware import REQUEST_ID, Middleware, TooSlow, Unauthorized, bearer
from serve.models import Arrays, Function
from serve.open_inference import REQUESTS, RESPONSES
from serve.routes.common import note_model
from serve.routes.inference import SERVER, metadata_of, run_inference, select
from serve.routes.outputs import requested_outputs
from serve.routes.tensors import Selection, check_request
from serve.service import Service

log = logging.getLogger("genray.serve")

CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    408: grpc.StatusCode.DEADLINE_EXCEEDED,
    413: grpc.StatusCode.INVALID_ARGUMENT,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    503: grpc.StatusCode.UNAVAILABLE,
}
"""Codes of gRPC by the HTTP status of an error; INTERNAL for all others."""
CONTENTS = {"UINT8": "uint_contents", "INT64": "int64_contents", "FP32": "fp32_contents"}
"""Fields of a tensor's contents by datatype, for clients that do not send raw bytes."""
CHUNK = 2**14
MOST_AXES, MOST_PARAMETERS = 16, 64
"""Most axes and parameters that are read. A message of 16 MiB could have millions, and reading them
would block the event loop for a minute.
"""


class Rpc:
    """The gRPC methods of one replica.

    Args:
        service: does the work.
        middleware: knows the keys, and counts the requests and the bytes of all bodies.
    """

    def __init__(self, service: Service, middleware: Middleware):
        self._service, self._middleware = service, middleware
        # gRPC bounds the messages of both directions alike.
        limits = service.limits
        self._limits = replace(limits, max_answer_mb=min(limits.max_answer_mb, limits.max_body_mb))
        self._methods: dict[str, Callable[[Any, dict[str, Any]], Awaitable[Any]]] = {
            "ServerLive": self._server_live,
            "ServerReady": self._server_ready,
            "ServerMetadata": self._server_metadata,
            "ModelReady": self._model_ready,
            "ModelMetadata": self._model_metadata,
            "ModelInfer": self._model_infer,
        }

    async def answer(self, method: str, message: bytes, context: Any) -> Any:
        """Return the response of a method. Errors are set in `context`, Ray's copy of the gRPC
        context, and the response is then empty.

        `message`: the encoded request, which is parsed only after the checks.
        """
        start, telemetry, limits = (
            time.perf_counter(),
            self._service.telemetry,
            self._service.limits,
        )
        metadata = dict(context.invocation_metadata())
        given = str(metadata.get("x-request-id", "")).encode()
        state: dict[str, Any] = {
            "request_id": given.decode() if REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
        }
        size, status, response = len(message), 200, RESPONSES[method]()
        telemetry.in_flight += 1
        telemetry.body_bytes += size
        try:
            self._check(metadata, size)
            try:
                request = REQUESTS[method].FromString(message)
            except DecodeError:
                raise BadRequest(f"the message is not a valid {method}Request") from None
            async with asyncio.timeout(limits.request_timeout_s):
                response = await self._methods[method](request, state)
        except ApiError as error:
            status = _refuse(context, error)
        except TimeoutError:
            said = f"the answer took longer than {limits.request_timeout_s} s"
            status = _refuse(context, TooSlow(said))
        except asyncio.CancelledError:
            status = 499
            raise
        except Exception:
            log.exception("request %s failed", state["request_id"])
            status = _refuse(context, InternalError(state["request_id"]))
        finally:
            telemetry.in_flight -= 1
            telemetry.body_bytes -= size
            telemetry.request(
                route=f"grpc/{method}",
                status=status,
                seconds=time.perf_counter() - start,
                method="gRPC",
                path=method,
                bytes=response.ByteSize(),
                id=state["request_id"],
                client=context.peer() or "",
                model=state.get("model", ""),
            )
        return response

    def _check(self, metadata: dict[str, Any], size: int) -> None:
        """Make the checks that the middleware makes of an HTTP request. Raises ApiError."""
        limits, telemetry = self._service.limits, self._service.telemetry
        if self._service.settings.keys:
            key = bearer(str(metadata.get("authorization", "")).encode())
            if not key or not self._middleware.accepts_key(key.decode(errors="replace")):
                raise Unauthorized
        if telemetry.in_flight > limits.max_in_flight:
            raise Busy(f"{limits.max_in_flight} requests are being answered")
        if size > limits.max_body_bytes:
            raise TooLarge(f"the message has {size} bytes; the limit is {limits.max_body_mb:g} MiB")
        if telemetry.body_bytes > limits.max_bodies_mb * 2**20:
            raise Busy("the bodies of other requests fill the memory for bodies")

    async def _server_live(self, request: Any, state: dict[str, Any]) -> Any:
        return RESPONSES["ServerLive"](live=True)

    async def _server_ready(self, request: Any, state: dict[str, Any]) -> Any:
        return RESPONSES["ServerReady"](ready=self._service.readiness()[0])

    async def _server_metadata(self, request: Any, state: dict[str, Any]) -> Any:
        return RESPONSES["ServerMetadata"](**SERVER)

    async def _model_ready(self, request: Any, state: dict[str, Any]) -> Any:
        select(self._service, request.name, request.version)
        return RESPONSES["ModelReady"](ready=True)

    async def _model_metadata(self, request: Any, state: dict[str, Any]) -> Any:
        return RESPONSES["ModelMetadata"](
            **metadata_of(select(self._service, request.name, request.version))
        )

    async def _model_infer(self, request: Any, state: dict[str, Any]) -> Any:
        selected = select(self._service, request.model_name, request.model_version)
        note_model(state, selected.predictor)
        wanted, arrays = await read_message(request, selected.spec)
        return await run_inference(
            self._service, selected, wanted, arrays, write_message, self._limits
        )


def _refuse(context: Any, error: ApiError) -> int:
    """Set an error in the context of a request, and return its HTTP status."""
    context.set_code(CODES.get(error.status, grpc.StatusCode.INTERNAL))
    context.set_details(error.message)
    return error.status


async def read_message(request: Any, spec: Function) -> tuple[dict[str, Any], Arrays]:
    """Return (the request without its tensors in the form of the protocol's JSON, the tensors).

    Raises BadRequest, which names the invalid part.
    """
    raw, inputs = request.raw_input_contents, []
    # Counted first: a message can have millions of empty tensors.
    if len(request.inputs) != len(spec.inputs):
        names = ", ".join(each.name for each in spec.inputs)
        raise BadRequest(f"inputs: must be {names}, each once", param="inputs")
    if raw and len(raw) != len(request.inputs):
        raise BadRequest(
            f"raw_input_contents: has {len(raw)} parts; must have one for each of the "
            f"{len(request.inputs)} inputs, or none"
        )
    for number, tensor in enumerate(request.inputs):
        each: dict[str, Any] = {
            "name": tensor.name,
            "datatype": tensor.datatype,
            "shape": list(tensor.shape[:MOST_AXES]),
            "parameters": _parameters(tensor.parameters),
        }
        each["parameters"].pop("binary_data_size", None)
        if raw:
            each["parameters"]["binary_data_size"] = len(raw[number])
        elif tensor.datatype in CONTENTS:
            each["data"] = await _numbers(getattr(tensor.contents, CONTENTS[tensor.datatype]))
        inputs.append(each)
    # One more than there are is enough to refuse the request: one is unknown, or is there twice.
    outputs = [
        {"name": each.name, "parameters": _parameters(each.parameters)}
        for each in request.outputs[: len(spec.outputs) + 1]
    ]
    wanted: dict[str, Any] = {
        "inputs": inputs,
        "outputs": outputs,
        "id": request.id,
        "parameters": {**_parameters(request.parameters), "binary_data_output": True},
    }
    for each in outputs:  # a message has no other form
        each["parameters"]["binary_data"] = True
    return check_request(wanted, b"".join(raw), spec)


def _parameters(given: Any) -> dict[str, Any]:
    if len(given) > MOST_PARAMETERS:
        raise BadRequest(f"parameters: {len(given)} are given; at most {MOST_PARAMETERS} may be")
    found = {}
    for name, value in given.items():
        kind = value.WhichOneof("parameter_choice")
        found[name] = getattr(value, kind) if kind else None
    return found


async def _numbers(field: Any) -> np.ndarray:
    """Return the numbers of a repeated field, in pieces, so that other requests can be answered."""
    pieces = []
    for at in range(0, len(field), CHUNK):
        pieces.append(np.asarray(field[at : at + CHUNK]))
        await asyncio.sleep(0)
    return np.concatenate(pieces) if pieces else np.empty(0)


def write_message(selected: Selection, wanted: dict[str, Any], found: Arrays) -> Any:
    """Return the response with the requested outputs. Raises BadRequest if one is not finite."""
    response = RESPONSES["ModelInfer"](
        model_name=selected.name, model_version=selected.predictor.version, id=wanted["id"]
    )
    for each in requested_outputs(selected, wanted, found):
        response.outputs.add(name=each.name, datatype=each.datatype, shape=each.shape)
        response.raw_output_contents.append(each.raw())
    return response
