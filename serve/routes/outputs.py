"""Writes the outputs of the Open Inference Protocol, and bounds the size of an answer.

A requested output is a tensor, or a list of the most probable classes of each row (the protocol's
extension `classification`).
"""

import struct
from typing import Any, NamedTuple

import numpy as np

from serve.errors import BadRequest, TooLarge
from serve.limits import Limits
from serve.models import DTYPES, Arrays, Function, Predictor, TensorSpec
from serve.routes.common import json_bytes
from serve.routes.tensors import Selection, classes_wanted

JSON_BYTES = {"UINT8": 5, "FP32": 25, "INT64": 22}
"""Most bytes of a number in JSON, with its comma."""
CLASS_BYTES = 128
"""Most bytes of a class in a binary answer: value, index and label. Labels are cut to fit."""
JSON_CLASS_BYTES = 6 * CLASS_BYTES + 3
"""Most bytes of a class in JSON, with quotes and comma. An escape has six bytes."""
CHUNK = 2**14


class Output(NamedTuple):
    """One output of an answer."""

    name: str
    datatype: str
    """FP32, INT64 or UINT8; BYTES for classes."""
    shape: list[int]
    values: Any
    """An array; for classes a list of bytes."""
    binary: bool
    """Whether the client asked for a binary part."""

    def raw(self) -> bytes:
        """Return the values as the protocol's binary form: little-endian numbers, or each class
        after its length.
        """
        if self.datatype == "BYTES":
            return b"".join(struct.pack("<I", len(each)) + each for each in self.values)
        values = np.ascontiguousarray(self.values)
        return values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes()

    def json(self) -> bytes:
        """Return the values as a flat JSON list."""
        if self.datatype == "BYTES":
            return json_bytes([each.decode() for each in self.values])
        # In pieces, so that other threads can run.
        flat = self.values.ravel()
        pieces = (flat[at : at + CHUNK].tolist() for at in range(0, len(flat), CHUNK))
        return b"[" + b", ".join(json_bytes(piece)[1:-1] for piece in pieces) + b"]"


def requested_outputs(selected: Selection, wanted: dict[str, Any], found: Arrays) -> list[Output]:
    """Return the outputs that a request asks for, in its order; without a list, all outputs.

    `wanted`: the request without its tensors, as `check_request` returns it. Raises BadRequest if
    an output is not finite.
    """
    _check_outputs(selected, found)
    requested = wanted.get("outputs") or [{"name": spec.name} for spec in selected.spec.outputs]
    all_binary = _default_binary(wanted)
    types = {spec.name: spec.datatype for spec in selected.spec.outputs}
    outputs = []
    for each in requested:
        name, values, binary = each["name"], found[each["name"]], _is_binary(each, all_binary)
        if count := min(classes_wanted(each), values.shape[-1]):
            classes = _classes(values, count, class_labels(selected.predictor, values.shape[-1]))
            outputs.append(Output(name, "BYTES", [len(values), count], classes, binary))
        else:
            outputs.append(Output(name, types[name], list(values.shape), values, binary))
    return outputs


def class_labels(predictor: Predictor, count: int) -> list[str]:
    """Return the names of a model's classes; an empty list if it has no names, or not `count`."""
    data = predictor.config.get("data")
    names = data.get("classes") if isinstance(data, dict) else None
    whole = isinstance(names, list | tuple) and len(names) == count
    return [str(each) for each in names] if whole else []  # type: ignore[union-attr]


def _classes(values_NK: np.ndarray, count: int, labels: list[str]) -> list[bytes]:
    """Return VALUE:INDEX[:LABEL] of the `count` largest values of each row, the largest first."""
    order = np.argsort(-values_NK.astype(np.float64), axis=1, kind="stable")[:, :count]
    found = []
    for row, indices in zip(values_NK.tolist(), order.tolist()):
        for index in indices:
            value = f"{row[index]:f}" if values_NK.dtype.kind == "f" else f"{row[index]}"
            label = f":{labels[index]}" if labels else ""
            text = f"{value}:{index}{label}".encode()[:CLASS_BYTES]
            found.append(text.decode(errors="ignore").encode())
    return found


def check_answer_size(
    wanted: dict[str, Any], arrays: Arrays, spec: Function, limits: Limits
) -> None:
    """Raise TooLarge if the answer to a request would exceed the limit, before the model runs."""
    rows = len(next(iter(arrays.values())))
    all_binary = _default_binary(wanted)
    asked = {each["name"]: each for each in wanted.get("outputs") or []}
    size = 0
    for each in spec.outputs:
        if not asked or each.name in asked:
            request = asked.get(each.name, {})
            size += rows * _row_bytes(each, request, _is_binary(request, all_binary))
    if size > limits.max_answer_mb * 2**20:
        raise TooLarge(
            f"the answer would have up to {size / 2**20:,.0f} MiB; the limit is "
            f"{limits.max_answer_mb} MiB: send fewer rows, or ask for binary outputs"
        )


def _row_bytes(spec: TensorSpec, request: dict[str, Any], binary: bool) -> int:
    """Return the most bytes of one row of an output in an answer."""
    if count := classes_wanted(request):
        return min(count, spec.shape[0]) * (CLASS_BYTES if binary else JSON_CLASS_BYTES)
    item = np.dtype(DTYPES[spec.datatype]).itemsize if binary else JSON_BYTES[spec.datatype]
    return int(np.prod(spec.shape, dtype=np.float64)) * item


def _default_binary(wanted: dict[str, Any]) -> bool:
    return bool((wanted.get("parameters") or {}).get("binary_data_output", False))


def _is_binary(output: dict[str, Any], default: bool) -> bool:
    parameters = output.get("parameters")
    given = parameters.get("binary_data", default) if isinstance(parameters, dict) else default
    return given is True


def _check_outputs(selected: Selection, found: Arrays) -> None:
    """Raise BadRequest if an output is infinite or NaN. All inputs are finite, so that only their
    size can be the cause.
    """
    for name, values in found.items():
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            inputs = ", ".join(each.name for each in selected.spec.inputs)
            raise BadRequest(
                f"input {inputs}: the values are too large: output {name} is not finite; send "
                "smaller numbers, e.g. in −1..1",
                param=selected.spec.inputs[0].name,
            )


def write_answer(
    selected: Selection, wanted: dict[str, Any], found: Arrays
) -> tuple[bytes, dict[str, str]]:
    """Return (the requested outputs as JSON, or as binary parts after the JSON; the headers that
    describe this format).
    """
    outputs, parts = [], []
    for each in requested_outputs(selected, wanted, found):
        tensor: dict[str, Any] = {
            "name": each.name,
            "datatype": each.datatype,
            "shape": each.shape,
        }
        if each.binary:
            part = each.raw()
            tensor["parameters"] = {"binary_data_size": len(part)}
            parts.append(part)
            outputs.append(json_bytes(tensor))
        else:
            outputs.append(json_bytes(tensor)[:-1] + b', "data": ' + each.json() + b"}")
    answer = {"model_name": selected.name, "model_version": selected.predictor.version}
    if isinstance(wanted.get("id"), str):
        answer["id"] = wanted["id"]
    head = json_bytes(answer)[:-1] + b', "outputs": [' + b", ".join(outputs) + b"]}"
    if not parts:
        return head, {}
    return b"".join([head, *parts]), {"Inference-Header-Content-Length": str(len(head))}
