"""The messages and the service of the Open Inference Protocol over gRPC.

`open_inference_grpc.proto` is the protocol's own file, and `open_inference_grpc.binpb` is the same
in compiled form (Apache License 2.0, copyright 2023 The KServe Authors). To compile it again:

    python -m grpc_tools.protoc -I. --descriptor_set_out=open_inference_grpc.binpb \
        open_inference_grpc.proto

The usual generated module would work with two releases of protobuf only. It would also register its
names in a pool that the whole process shares, where tritonclient registers the same names.
[https://github.com/kserve/open-inference-protocol, commit d49cc23]
"""

from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pool, message_factory

PROTO = "open_inference_grpc.proto"
SERVICE = "inference.GRPCInferenceService"
METHODS = (
    "ServerLive",
    "ServerReady",
    "ModelReady",
    "ServerMetadata",
    "ModelMetadata",
    "ModelInfer",
)


def _pool() -> descriptor_pool.DescriptorPool:
    from google.protobuf.descriptor_pb2 import FileDescriptorSet

    files = FileDescriptorSet.FromString(
        Path(__file__).with_name(f"{PROTO[:-6]}.binpb").read_bytes()
    )
    pool = descriptor_pool.DescriptorPool()
    for each in files.file:
        pool.Add(each)
    return pool


def _message(name: str) -> Any:
    """Return the class of a message, under its name in this module, so that it can be pickled."""
    made = message_factory.GetMessageClass(_POOL.FindMessageTypeByName(f"inference.{name}"))
    made.__module__ = __name__
    return made


_POOL = _pool()
REQUESTS = {each: _message(f"{each}Request") for each in METHODS}
"""Classes of the requests, by method."""
RESPONSES = {each: _message(f"{each}Response") for each in METHODS}
"""Classes of the responses, by method."""
globals().update({made.__name__: made for made in (*REQUESTS.values(), *RESPONSES.values())})


def add_servicer(servicer: Any, server: Any) -> None:
    """Add the service to a gRPC server, as Ray Serve's `grpc_servicer_functions` expect it.

    `servicer`: has a function for each of METHODS, which receives the encoded request. `Rpc` parses
    the request after it has checked the key: parsed, a message of many empty parts needs 40 times
    its size.
    """
    import grpc

    handlers = {
        name: grpc.unary_unary_rpc_method_handler(
            getattr(servicer, name),
            request_deserializer=None,
            response_serializer=RESPONSES[name].SerializeToString,
        )
        for name in METHODS
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    server.add_registered_method_handlers(SERVICE, handlers)
