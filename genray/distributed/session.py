"""A Ray to run on, and where its actors find their places."""

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

ANSWER_S = 5.0
FREE_S = 10.0  # for the CPUs of a run that has just ended
# as Ray read it, once, when it was imported
SHOWS_TOKEN = os.environ.get("RAY_AUTH_MODE") == "token"


@contextmanager
def ray_session(address: str | None = None) -> Iterator[None]:
    """Ray for the duration: the cluster at `address`, the one already joined, or a private one
    on this machine.

    Raises ResourceError when nothing answers at `address`.
    """
    if ray.is_initialized():
        yield
        return
    # Ray's announced default; silences its warning
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if address:
        _join(address)
    else:
        check_socket_path()
        # "local": never a cluster that happens to run here. Its CPUs are what Ray finds, which
        # minds containers.
        # 1 GB: two rounds and two chunks a collector in flight are a tenth of it.
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
    """Every process begun meanwhile blocks SIGTERM and SIGHUP, as Ray has its own block SIGINT.

    What stops a run often tells all its processes at once (timeout, scancel, systemd, a closed
    terminal): Ray must outlast that, so that the run can be saved. It ends with this process in
    any case.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_without_asking() -> None:
    """Have `ray.shutdown` kill the private Ray's processes at once: each would get SIGTERM
    first, and a second to heed it.
    """
    # private names: without them the end takes those seconds
    with contextlib.suppress(ImportError, AttributeError):
        from ray._private import worker

        node: Any = worker._global_node
        kill = node.kill_all_processes
        node.kill_all_processes = lambda **how: kill(**how | {"allow_graceful": False})


def _join(address: str) -> None:
    host, _, port = address.rpartition(":")
    try:
        if whole_number(port) is not None and "://" not in address:
            # Ray itself would try for minutes
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
        # one answers, but a driver needs a Ray beside it
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
    """Raise AuthenticationError when the cluster refuses the token: `ray.init` would try again
    for 20 s, and not say why.
    """
    if not SHOWS_TOKEN:
        return
    try:
        from ray._private.services import canonicalize_bootstrap_address
        from ray._raylet import GcsClient  # type: ignore[attr-defined]
    except (
        ImportError
    ):  # private names: a later Ray may have others, and then `ray.init` speaks for itself
        return
    found = canonicalize_bootstrap_address(address)
    if found:
        with contextlib.suppress(RpcError):
            GcsClient(address=found).internal_kv_exists(b"genray", timeout=ANSWER_S)


def has_resource(resource: str) -> bool:
    return ray.cluster_resources().get(resource, 0) > 0


def role(name: str) -> dict[str, float]:
    """One unit of a role's custom resource where the cluster marks its nodes by role (see
    cluster.yaml).
    """
    resource = f"genray_{name}"
    return {resource: 1} if has_resource(resource) else {}


def gpus_each(config: DQNConfig, have: int) -> int:
    """GPUs that each learner reserves of the `have` in the cluster: 1 where --device asks for
    one, or `auto` finds them.

    Raises ResourceError when there are fewer than learners.
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
    """Ray's ids of nodes that it has been told will go: a spot notice, `ray drain-node`, an
    autoscaler's scale-down.

    Ray 2.60 tells its own libraries only; should a later one drop the call, hosts go without a
    farewell.
    """
    try:
        from ray._private import state

        return state.state.get_draining_nodes()
    except (ImportError, AttributeError):
        return ()


def free_cpus() -> list[float]:
    """The CPUs of each node that no actor, task or placement group has reserved."""
    from ray._private.state import available_resources_per_node

    return [free.get("CPU", 0.0) for free in available_resources_per_node().values()]


def reserve_share(config: DQNConfig) -> float:
    """CPUs that each collector and learner can reserve now: `even_share` of what is free.

    Waits up to FREE_S for the share that the whole cluster would give, since a run that has
    just ended frees its CPUs within seconds. Raises ResourceError when nothing is left.
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
    """The CPUs of each node that is up."""
    return [node["Resources"].get("CPU", 0.0) for node in ray.nodes() if node["Alive"]]


def even_share(config: DQNConfig, places: Sequence[float]) -> float:
    """CPUs that each collector and the learner reserve: one, or the largest equal share where
    there are fewer.

    `places` are the CPUs of nodes, or of a placement group's bundles; an actor fits into one
    place, never across two. Shards reserve none: they wait for memory, not for a core.
    """
    workers = config.collect.collectors + config.learner.learners
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
