"""Starts or joins Ray, and works out the CPUs, GPUs and roles that the actors reserve."""

import contextlib
import math
import os
import signal
import socket
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import ray
from ray.exceptions import AuthenticationError, RpcError

from genray.config import whole_number
from genray.errors import ResourceError
from genray.machine import check_socket_path
from genray.rl.config import DQNConfig

ANSWER_S = 5.0  # how long a cluster's head may take to answer
FREE_S = 10.0  # how long the CPUs of a run that has just ended may take to be free
# Ray reads the variable once, when Ray is imported; this is the value then.
SHOWS_TOKEN = os.environ.get("RAY_AUTH_MODE") == "token"


@contextmanager
def ray_session(address: str | None = None) -> Iterator[None]:
    """Context manager: Ray is initialized inside the block.

    Uses the cluster at `address`, the Ray that this process has already joined, or a private Ray
    on this machine. Raises ResourceError when no cluster answers at `address`.
    """
    if ray.is_initialized():
        yield
        return
    # Adopts Ray's announced default, which silences its warning.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if address:
        _join(address)
    else:
        check_socket_path()
        # "local" never joins a cluster that happens to run on this machine. Ray counts the CPUs
        # itself, and respects a container's limit.
        # 1 GB of object store: two rounds and two chunks per collector use a tenth of it.
        with _stop_signals_blocked():
            ray.init(
                address="local",
                object_store_memory=10**9,
                include_dashboard=False,
                log_to_driver=False,
                logging_level="ERROR",
            )
        _end_without_asking()
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _stop_signals_blocked() -> Iterator[None]:
    """Have every process that starts inside the `with` statement block SIGTERM and SIGHUP. Ray's
    processes block SIGINT already.

    Programs that stop a run often signal all its processes at once (timeout, scancel, systemd, a
    closed terminal). Ray has to keep running, so that the run can be saved. Ray ends with this
    process in any case.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_without_asking() -> None:
    """Make `ray.shutdown` kill the processes of the private Ray at once.

    By default, each process gets SIGTERM first and has a second to react.
    """
    # Private names: if a later Ray renames them, the end takes these seconds.
    with contextlib.suppress(ImportError, AttributeError):
        from ray._private import worker

        node: Any = worker._global_node
        kill = node.kill_all_processes
        node.kill_all_processes = lambda **how: kill(**how | {"allow_graceful": False})


def _join(address: str) -> None:
    host, _, port = address.rpartition(":")
    try:
        if whole_number(port) is not None and "://" not in address:
            # Ray itself would retry for minutes.
            socket.create_connection((host, int(port)), timeout=ANSWER_S).close()
        _check_token(address)
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except AuthenticationError as error:
        raise ResourceError(
            f"--address {address}: the cluster refuses this machine's token; copy the head's "
            "~/.ray/auth_token here, or set "
            "RAY_AUTH_TOKEN"
        ) from error
    except (OSError, ValueError, RuntimeError, OverflowError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        if lines[0].startswith("Version mismatch"):
            words = " ".join(" ".join(lines).split())
            raise ResourceError(
                f"--address {address}: {words}; install the same on every machine"
            ) from error
        # A cluster answers, but the program needs a Ray node on its own machine.
        if lines[0].startswith("Failed to connect to Ray cluster"):
            raise ResourceError(
                f"--address {address}: {lines[0]}; run it on a machine of the cluster, or with "
                "genray submit "
                "(and with the cluster's token, ~/.ray/auth_token)"
            ) from error
        raise ResourceError(
            f"--address {address}: no Ray cluster answers there ({lines[0]}); start one (ray up "
            "cluster.yaml), or leave "
            "--address out to train on this machine alone"
        ) from error


def _check_token(address: str) -> None:
    """Raise AuthenticationError when the cluster refuses the token.

    `ray.init` would retry for 20 s, and would not give the reason.
    """
    if not SHOWS_TOKEN:
        return
    try:
        from ray._private.services import canonicalize_bootstrap_address
        from ray._raylet import GcsClient  # type: ignore[attr-defined]
    except (
        ImportError
    ):  # private names: a later Ray may rename them; `ray.init` then reports the error
        return
    found = canonicalize_bootstrap_address(address)
    if found:
        with contextlib.suppress(RpcError):
            GcsClient(address=found).internal_kv_exists(b"genray", timeout=ANSWER_S)


def has_resource(resource: str) -> bool:
    """Return whether a node of the cluster offers the custom resource."""
    return ray.cluster_resources().get(resource, 0) > 0


def role(name: str) -> dict[str, float]:
    """Return one unit of a role's custom resource, or {} if the cluster's nodes have no roles (see
    cluster.yaml).
    """
    resource = f"genray_{name}"
    return {resource: 1} if has_resource(resource) else {}


def gpus_each(config: DQNConfig, have: int) -> int:
    """Return the GPUs that each learner reserves of the `have` in the cluster.

    Returns 1 if --device asks for a GPU, or is `auto` and there are GPUs; otherwise 0. Raises
    ResourceError when there are fewer GPUs than learners.
    """
    learners = config.learner.learners
    if config.run.device == "cpu" or (config.run.device == "auto" and not have):
        return 0
    if not have:
        raise ResourceError("--device cuda: Ray sees no GPU in this cluster; use --device cpu")
    if learners > have:
        raise ResourceError(
            f"--learners {learners}: each needs a GPU, and this cluster has {have}; use --learners "
            f"{have}, or --device cpu"
        )
    return 1


def draining_nodes() -> Collection[str]:
    """Return Ray's ids of nodes that will stop soon: after a spot machine's notice, `ray
    drain-node`, or an autoscaler's scale-down.

    The call is private to Ray 2.60. If a later Ray removes it, nodes stop without warning.
    """
    try:
        from ray._private import state

        return state.state.get_draining_nodes()
    except (ImportError, AttributeError):
        return ()


def free_cpus() -> list[float]:
    """Return the CPUs of each node that no actor, task or placement group has reserved."""
    from ray._private.state import available_resources_per_node

    return [free.get("CPU", 0.0) for free in available_resources_per_node().values()]


def reserve_share(config: DQNConfig) -> float:
    """Return the CPUs that each collector and learner can reserve now: `even_share` of the free
    ones.

    A run that has just ended frees its CPUs within seconds, so this waits up to FREE_S for the
    share of the whole cluster. Raises ResourceError when no CPU is free.
    """
    wanted, stop = even_share(config, node_cpus()), time.monotonic() + FREE_S
    while (share := even_share(config, free_cpus())) < wanted and time.monotonic() < stop:
        time.sleep(0.2)
    if wanted and not share:
        total, workers = sum(node_cpus()), config.collect.collectors + config.learner.learners
        raise ResourceError(
            f"{workers} actors need CPUs, but {sum(free_cpus()):g} of this Ray's {total:g} are "
            "free: "
            "another run, ApexDQN or sweep holds them; end it (algo.stop() in a notebook), or give "
            "this one fewer --collectors"
        )
    return min(wanted, share)


def node_cpus() -> list[float]:
    """Return the CPUs of each live node."""
    return [node["Resources"].get("CPU", 0.0) for node in ray.nodes() if node["Alive"]]


def even_share(config: DQNConfig, places: Sequence[float]) -> float:
    """Return the CPUs that each collector and learner reserves: one, or the largest equal share
    if there are fewer CPUs than actors.

    `places` are the CPUs of nodes, or of a placement group's bundles; an actor has to fit into
    one place. Shards reserve no CPU: they are limited by memory.
    """
    workers = config.collect.collectors + config.learner.learners
    # Candidates: each place's CPUs divided among 1, 2, … actors, rounded down to 0.01 CPU.
    parts = {
        min(1.0, math.floor(100 * cpus / count + 1e-6) / 100)
        for cpus in places
        for count in range(1, workers + 1)
    }
    fitting = (
        part
        for part in parts
        if part and sum(int(cpus / part + 1e-6) for cpus in places) >= workers
    )
    return max(fitting, default=0.0)
