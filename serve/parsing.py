"""Parses the JSON of large inference requests in another process.

Python's JSON parser holds the interpreter's lock until it is done: for a body of 16 MB, all other
requests of the replica would wait for a second. The process needs a fifth of a second to start, so
small bodies are parsed directly.

The process is this file, run as a program, with the JSON as its input. Its output is the request as
JSON, in which the numbers of a tensor are replaced by [data type, bytes], and then the numbers.
"""

import asyncio
import json
import resource
import subprocess
import sys
from typing import Any

if __name__ == "__main__":
    sys.path[:] = sys.argv[1:]  # as in the replica, whose directory may not be installed

import numpy as np

PARSED_DIRECTLY_BYTES = 2**19
PARSE_S, MOST_MEMORY = 20, 4 * 2**30
_LENGTH = 8  # bytes of the length in front of the output


async def parse_elsewhere(text: bytes, turns: asyncio.Semaphore) -> Any:
    """Return `json.loads(text)`, with the `data` of each input as an array if it consists of
    numbers. Raises ValueError if the text is not JSON, or needs too much time or memory.

    `turns` bounds the number of processes. The process ends when the request is cancelled.
    """
    async with turns:
        process = subprocess.Popen(
            [sys.executable, "-P", "-S", __file__, *sys.path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        try:
            return await asyncio.to_thread(_run, process, text)
        finally:
            process.kill()  # no effect on a process that has ended


def _run(process: subprocess.Popen[bytes], text: bytes) -> Any:
    with process:
        try:
            output, _ = process.communicate(text, PARSE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            raise ValueError("the JSON needs too much time") from None
    if process.returncode:
        raise ValueError("the JSON cannot be parsed")
    head = _LENGTH + int.from_bytes(output[:_LENGTH], "big")
    found, rest = json.loads(output[_LENGTH:head]), memoryview(output)[head:]
    for tensor in _tensors(found):
        if isinstance(tensor.get("data"), list):
            kind, size = tensor["data"]
            tensor["data"], rest = np.frombuffer(rest[:size], kind), rest[size:]
    return found


def _tensors(request: Any) -> list[dict[str, Any]]:
    inputs = request.get("inputs") if isinstance(request, dict) else None
    return [each for each in inputs if isinstance(each, dict)] if isinstance(inputs, list) else []


def main() -> None:
    """Parse standard input, and write the result to standard output."""
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    found, arrays = json.loads(sys.stdin.buffer.read()), []
    for tensor in _tensors(found):
        data = tensor.get("data")
        tensor["data"] = None
        if isinstance(data, list):
            try:
                values = np.asarray(data)
            except ValueError:
                continue  # a ragged list is refused like other data that are no numbers
            if values.dtype.kind in "iuf":
                tensor["data"] = [values.dtype.str, values.nbytes]
                arrays.append(values)
    head = json.dumps(found).encode()
    # What is neither a tensor nor short cannot be valid.
    if len(head) > PARSED_DIRECTLY_BYTES:
        sys.exit(1)
    output = sys.stdout.buffer
    output.write(len(head).to_bytes(_LENGTH, "big") + head)
    for values in arrays:
        output.write(np.ascontiguousarray(values).data)


if __name__ == "__main__":
    main()
