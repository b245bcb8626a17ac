"""Reads and checks the tensors of a request of the Open Inference Protocol.

Over HTTP the tensors are JSON or binary parts. A request over gRPC is brought into the same form,
so that both have the same checks and the same messages.
"""

import asyncio
import json
from typing import Any, NamedTuple

import numpy as np

from serve.errors import BadRequest
from serve.models import DTYPES, Arrays, Function, Predictor, TensorSpec
from serve.parsing import PARSED_DIRECTLY_BYTES, parse_elsewhere
from serve.service import finite


class Selection(NamedTuple):
    """The model and the function that a client's name selects."""

    predictor: Predictor
    name: str
    function: str
    spec: Function


async def read_request(
    body: bytes, header_length: str | None, spec: Function, parsers: asyncio.Semaphore
) -> tuple[dict[str, Any], Arrays]:
    """Parse the body of an inference request, and check the request against `spec`.

    Large JSON is parsed in another process; `parsers` bounds their number.

    `header_length`: the number of bytes of JSON before the binary tensors, as a client's header
    says; None for a body of JSON alone. Returns (the request without its tensors, the tensors).
    Raises BadRequest, which names the invalid part.
    """
    # Split the body into JSON and binary tensors.
    text, rest = body, b""
    if header_length is not None:
        if not (
            header_length.isascii()
            and header_length.isdigit()
            and len(header_length) <= 12
            and int(header_length) <= len(body)
        ):
            raise BadRequest(
                f"Inference-Header-Content-Length {header_length[:20]!r}: must lie in "
                f"0..{len(body)}, the length of the body"
            )
        text, rest = body[: int(header_length)], body[int(header_length) :]
    # Parse the JSON.
    try:
        if len(text) > PARSED_DIRECTLY_BYTES:
            wanted = await parse_elsewhere(text, parsers)
        else:
            wanted = json.loads(text)
    except (ValueError, RecursionError):
        raise BadRequest("the body is not JSON") from None
    return check_request(wanted, rest, spec)


def check_request(wanted: Any, rest: bytes, spec: Function) -> tuple[dict[str, Any], Arrays]:
    """Check a request against `spec`, and read its tensors.

    `wanted`: the request in the form of the protocol's JSON; `data` of an input may be an array.
    `rest`: the binary tensors, in the order of the inputs that have `binary_data_size`. Returns
    (the request without its tensors, the tensors). Raises BadRequest, which names the invalid part.
    """
    # Check the names of the inputs.
    inputs = wanted.get("inputs") if isinstance(wanted, dict) else None
    if not isinstance(inputs, list) or not all(isinstance(each, dict) for each in inputs):
        raise BadRequest("inputs: must be a list of tensors")
    given = {each["name"]: each for each in inputs if isinstance(each.get("name"), str)}
    names = [each.name for each in spec.inputs]
    if sorted(given) != sorted(names) or len(inputs) != len(names):
        raise BadRequest(
            f"inputs: must be {', '.join(names)}, each once{spec.note}", param="inputs"
        )
    # Read the tensors.
    arrays: Arrays = {}
    for tensor in inputs:  # The binary tensors follow each other in the order of the inputs.
        expected = spec.inputs[names.index(tensor["name"])]
        arrays[expected.name], rest = _read_tensor(tensor, expected, rest)
    if rest:
        raise BadRequest(f"{len(rest)} bytes follow the last tensor")
    if len({len(values) for values in arrays.values()}) > 1:
        raise BadRequest("inputs: all must have the same number of rows")
    # Check which outputs are requested.
    outputs = wanted.get("outputs") or []
    if not isinstance(outputs, list) or not all(isinstance(each, dict) for each in outputs):
        raise BadRequest("outputs: must be a list of requested tensors")
    if not isinstance(wanted.get("parameters") or {}, dict):
        raise BadRequest("parameters: must be an object")
    requested = [each["name"] for each in outputs if isinstance(each.get("name"), str)]
    if len(set(requested)) < len(requested):
        raise BadRequest("outputs: each output may be requested once", param="outputs")
    _check_parameters(wanted, ("binary_data_output",), "the request")
    for tensor in inputs:
        _check_parameters(tensor, ("binary_data_size",), f"input {tensor['name']}")
    for output in outputs:
        what = f"output {str(output.get('name'))[:40]}"
        _check_parameters(output, ("binary_data", "classification"), what)
    unknown = [
        each.get("name")
        for each in outputs
        if each.get("name") not in [out.name for out in spec.outputs]
    ]
    if unknown:
        raise BadRequest(
            f"outputs: no output {str(unknown[0])[:80]!r}; the outputs are "
            f"{', '.join(out.name for out in spec.outputs)}"
        )
    for output in outputs:
        _check_classification(output, spec)
    return {key: value for key, value in wanted.items() if key != "inputs"}, arrays


def _check_parameters(owner: dict[str, Any], known: tuple[str, ...], what: str) -> None:
    """Raise BadRequest for a parameter that would be ignored, e.g. a sequence or shared memory."""
    parameters = owner.get("parameters")
    for name, value in parameters.items() if isinstance(parameters, dict) else ():
        if name not in known and value not in (None, 0, False, ""):
            raise BadRequest(
                f"{what}: parameter {name[:40]!r} is not supported; supported: {', '.join(known)}",
                param="parameters",
            )


def classes_wanted(output: dict[str, Any]) -> int:
    """Return how many classes a requested output asks for by its parameter `classification`; 0: the
    tensor itself.
    """
    parameters = output.get("parameters")
    count = parameters.get("classification") if isinstance(parameters, dict) else None
    return count if type(count) is int else 0


def _check_classification(output: dict[str, Any], spec: Function) -> None:
    """Raise BadRequest unless the parameter `classification` is valid, or not given."""
    parameters = output.get("parameters")
    count = parameters.get("classification") if isinstance(parameters, dict) else None
    if count in (None, 0, False):
        return
    name, (shape,) = (
        output["name"],
        [each.shape for each in spec.outputs if each.name == output["name"]],
    )
    if type(count) is not int or not 0 < count <= 2**20:
        raise BadRequest(
            f"output {name}: classification {str(count)[:20]!r} must be a whole number ≥ 1, e.g. 5",
            param="classification",
        )
    if len(shape) != 1:
        raise BadRequest(
            f"output {name}: has no classes; classification needs an output with one number for "
            "each class, e.g. probability of a classifier",
            param="classification",
        )


def _read_tensor(tensor: dict[str, Any], spec: TensorSpec, rest: bytes) -> tuple[np.ndarray, bytes]:
    name, shape = spec.name, tensor.get("shape")
    if tensor.get("datatype") != spec.datatype:
        raise BadRequest(
            f"input {name}: datatype {str(tensor.get('datatype'))[:20]}; must be {spec.datatype}"
        )
    whole = isinstance(shape, list) and all(
        type(side) is int and 0 < side <= 2**24 for side in shape
    )
    if not whole or list(shape[1:]) != list(spec.shape):  # type: ignore[index]
        raise BadRequest(
            f"input {name}: shape {str(shape)[:60]}; must be {[-1, *spec.shape]}, with ≥ 1 rows"
        )
    assert isinstance(shape, list)
    count, dtype = int(np.prod(shape, dtype=np.float64)), np.dtype(DTYPES[spec.datatype])
    parameters = tensor.get("parameters") or {}
    size = parameters.get("binary_data_size") if isinstance(parameters, dict) else None
    if size is not None:
        if type(size) is not int or size != count * dtype.itemsize or size > len(rest):
            raise BadRequest(
                f"input {name}: binary_data_size {str(size)[:20]}; must be "
                f"{count * dtype.itemsize}, and as many bytes must follow"
            )
        values = np.frombuffer(rest[:size], dtype.newbyteorder("<")).astype(dtype).reshape(shape)
        return finite(values, name), rest[size:]
    return finite(_from_json(tensor.get("data"), spec, shape, count), name), rest


def _from_json(data: Any, spec: TensorSpec, shape: list[int], count: int) -> np.ndarray:
    """Parse numbers, flat or nested like the shape. Raises BadRequest unless each number has the
    datatype and is in its range.
    """
    name, wrong = spec.name, f"input {spec.name}: data must be {count} numbers of {spec.datatype}"
    if not isinstance(data, list | np.ndarray):
        raise BadRequest(wrong)
    try:
        # No direct conversion: 3.7 would become 3, 300 would overflow, and "3" would be accepted.
        values = np.asarray(data)
        if values.dtype.kind not in "iuf" or values.size != count:
            raise BadRequest(wrong)
        if spec.datatype == "FP32":
            with np.errstate(over="ignore"):
                return values.astype(np.float32).reshape(shape)
        info = np.iinfo(np.dtype(DTYPES[spec.datatype]).name)
        if values.dtype.kind == "f" or values.min() < info.min or values.max() > info.max:
            raise BadRequest(f"input {name}: data must be whole numbers in {info.min}..{info.max}")
        return values.astype(DTYPES[spec.datatype]).reshape(shape)
    except (ValueError, OverflowError, TypeError):
        raise BadRequest(wrong) from None
