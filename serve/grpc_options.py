"""Options of Ray Serve's gRPC servers, with the address on which they listen.

Ray Serve opens its gRPC servers (of the replicas and of the proxies) on every address of the
machine. Every process that receives these options first changes that: only the address given here
is opened.
"""

from typing import Any

from pydantic import PrivateAttr
from ray.serve.config import gRPCOptions

from genray.errors import ConfigError
from serve.ports import LOOPBACK, Ports, is_free

SERVICER = "serve.open_inference.add_servicer"
OTHER_LOOPBACK = "127.0.0.2"


class GrpcOptions(gRPCOptions):
    """`gRPCOptions` that also set the address, in each process that receives the options."""

    _address: str = PrivateAttr(LOOPBACK)

    def __setstate__(self, state: Any) -> None:
        super().__setstate__(state)
        listen_on(self._address)


def grpc_options(port: int, address: str, timeout_s: float) -> GrpcOptions:
    """Return the options of the Open Inference Protocol over gRPC.

    `port`: of the proxy. `address`: where Ray's own servers listen. `timeout_s`: of a request.
    """
    made = GrpcOptions(
        port=port,
        grpc_servicer_functions=[SERVICER],
        request_timeout_s=timeout_s,
        enable_reflection=False,
    )
    made._address = address
    return made


def listen_on(address: str) -> None:
    """Let the gRPC servers that Ray Serve starts in this process listen on `address` alone."""
    from ray.serve._private import default_impl

    def add(server: Any, every_address: str) -> None:
        server.add_insecure_port(f"{address}:{every_address.rpartition(':')[2]}")

    default_impl.add_grpc_address = add


def check_loopback(ports: Ports) -> None:
    """Raise ConfigError if a gRPC port of the service is open beyond 127.0.0.1, because another
    release of Ray opens its ports in another way.
    """
    inner = [ports.fallback_grpc, *range(ports.first_grpc_replica, ports.end_replica)]
    for port in inner:
        # A server on every address also occupies the port of the other loopback address.
        if not is_free(OTHER_LOOPBACK, port):
            raise ConfigError(
                f"--grpc-port: this release of Ray opens the internal port {port} to the network; "
                "leave --grpc-port out, or use Ray 2.60"
            )
