"""Reserves TCP ports, so that two services on one machine never use the same port.

A reservation is an abstract Unix socket. The kernel removes it when the process ends, however the
process ends, and it exists once for each network namespace, as ports do.
"""

import random
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from genray.errors import ResourceError

FIRST, LAST = 20_000, 29_999
"""Ports of services: above the ports of Ray's workers (10,002 to 19,999), and below those that the
kernel gives to outgoing connections (from 32,768) and Kubernetes to services (from 30,000).
"""
BLOCK = 100
SINGLE = 7
"""Ports of a service besides those of its replicas."""
PORTS_OF_A_REPLICA = 8
"""A replica needs one port for HTTP and one for gRPC. A port that was used stays unused for 150 s,
so that restarted replicas need further ones: 8 of each kind.
"""
LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Ports:
    """The ports of loopback that one service uses."""

    fallback: int
    """Ray's Python proxy, which HAProxy asks while no replica answers."""
    fallback_grpc: int
    """The same for gRPC."""
    haproxy_metrics: int
    haproxy_stats: int
    metrics: int
    """Prometheus metrics of Ray and of the replicas."""
    autoscaler_metrics: int
    dashboard_metrics: int
    first_replica: int
    """The replicas' ports for HTTP: first_replica, …, first_grpc_replica − 1."""
    first_grpc_replica: int
    end_replica: int
    """The replicas' ports for gRPC: first_grpc_replica, …, end_replica − 1; none without gRPC."""


@contextmanager
def reserved_ports(replicas: int, *, grpc: bool = False) -> Iterator[Ports]:
    """Reserve the ports of a service inside a `with` block. Raises ResourceError if none are free.

    `grpc`: whether the replicas need ports for gRPC.

    Whole blocks of ports are reserved. The first one is chosen at random, because HAProxy of a
    service that was killed may live for a moment longer than the service.
    """
    kind = PORTS_OF_A_REPLICA * replicas
    blocks = -(-(SINGLE + kind * (1 + grpc)) // BLOCK)
    starts = list(range(FIRST, LAST + 2 - blocks * BLOCK, BLOCK))
    random.Random().shuffle(starts)
    for first in starts:
        with ExitStack() as held:
            wanted = [first + BLOCK * each for each in range(blocks)]
            if not all([_reserve(f"genray-serve-block-{each}", held) for each in wanted]):
                continue
            if not all(is_free(LOOPBACK, first + each) for each in range(SINGLE)):
                continue
            end = first + blocks * BLOCK
            single = range(first, first + SINGLE + 1)
            yield Ports(*single, end - kind * grpc, end)  # type: ignore[call-arg]
            return
    raise ResourceError(
        f"--replicas {replicas}: other services and programs use the ports {FIRST} to {LAST}; end "
        "one of them, or use fewer replicas"
    )


@contextmanager
def reserved_address(option: str, address: str, port: int) -> Iterator[None]:
    """Reserve the port on which the service listens. Raises ResourceError, which names `option`,
    if the port is in use or another service is about to use it.
    """
    with ExitStack() as held:
        reason = ""
        if not _reserve(f"genray-serve-{address}-{port}", held):
            reason = "another genray serve has reserved it"
        else:
            try:
                _bind(address, port)
            except OSError as error:
                reason = str(error.strerror)
        if reason:
            raise ResourceError(
                f"--{option} {port}: cannot listen on {address}:{port} ({reason}); try another port"
                + (", or 0 for a free one" if option == "port" else "")
            )
        yield


def is_free(address: str, port: int) -> bool:
    """Whether a program could listen on the port; port 0: on any port of the address."""
    try:
        _bind(address, port)
    except OSError:
        return False
    return True


def free_port(address: str = LOOPBACK) -> int:
    """Return a TCP port of `address` that is free now."""
    with socket.socket() as probe:
        probe.bind((address, 0))
        return int(probe.getsockname()[1])


def _bind(address: str, port: int) -> None:
    with socket.socket() as probe:
        # Connections that have just ended do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((address, port))


def _reserve(name: str, held: ExitStack) -> bool:
    """Bind an abstract Unix socket until `held` closes. Returns False if another process has it."""
    lock = held.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
    try:
        lock.bind(f"\0{name}")
    except OSError:
        return False
    return True
