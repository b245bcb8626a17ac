"""Starts or joins Ray, and computes which CPUs, GPUs and roles the actors reserve."""

import contextlib
import math
import os
import socket
import sys
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import ray
from ray.exceptions import AuthenticationError, RpcError
from ray.job_config import JobConfig

from genray.config import whole_number
from genray.errors import ResourceError
from genray.machine import check_surroundings, ensure_ray_token
from genray.ray_processes import few_processes, start_private_ray
from genray.rl.config import DQNConfig
from genray.rl.env import OWN_MODULES
from genray.runs.stop import stop_signals_blocked

ANSWER_S = 5.0  # seconds that a cluster's head may take to answer
FREE_S = 10.0  # seconds until the CPUs of a run that has just ended should be free
# Whether Ray sends a token. Ray reads the variable when it is imported, as this line does.
SHOWS_TOKEN = os.environ.get("RAY_AUTH_MODE") == "token"


@contextmanager
def ray_session(address: str | None = None) -> Iterator[None]:
    """Context manager: Ray is initialized inside the block.

    If this process has already joined a Ray, this Ray is used and keeps running. Otherwise the
    process joins the cluster at `address` or, without an address, starts a private Ray on this
    machine. Raises ResourceError when the cluster at `address` cannot be joined.
    """
    if ray.is_initialized():
        yield
        return
    # Set the value that Ray has announced as its new default, so that Ray does not warn about it.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if address:
        _join(address)
    else:
        check_surroundings()
        ensure_ray_token()
        # "local" starts a private Ray even if a cluster runs on this machine. Ray counts the CPUs
        # itself, and respects the limit of a container. Two rounds of batches and two chunks per
        # collector use a tenth of the object store of 1 GB.
        with stop_signals_blocked(), few_processes():
            start_private_ray(
                object_store_memory=10**9,
                include_dashboard=False,
                job_config=_job_config(),
            )
        _end_without_asking()
    try:
        yield
    finally:
        ray.shutdown()


def _job_config() -> JobConfig:
    """Return a job configuration that keeps the import order of this process in Ray's workers.

    Ray adds the working directory in front of all others. A file there, e.g. types.py, would
    replace a module of Python in the workers. If the directory comes last in this process, as in
    the command `genray`, the workers append it when they import a user's environment.
    """
    config, here = JobConfig(), os.getcwd()
    if sys.path[-1:] == [here] and not {"", here} & set(sys.path[:-1]):
        # The name is private. If a later Ray renames it, the order is again that of Ray.
        config._py_driver_sys_path = _Without(here)
        os.environ[OWN_MODULES] = here
    return config


class _Without(list[str]):
    """A list to which `extend` does not add one of the words."""

    def __init__(self, word: str):
        super().__init__()
        self._word = word

    def extend(self, words: Iterable[str]) -> None:
        super().extend(word for word in words if word != self._word)


def _end_without_asking() -> None:
    """Make `ray.shutdown` kill the processes of the private Ray immediately.

    By default, each process gets SIGTERM first and has a second to react.
    """
    # These names are private. If a later Ray renames them, only the end of Ray takes longer.
    with contextlib.suppress(ImportError, AttributeError):
        from ray._private import worker

        node: Any = worker._global_node
        kill = node.kill_all_processes
        node.kill_all_processes = lambda **how: kill(**how | {"allow_graceful": False})


def _join(address: str) -> None:
    host, _, port = address.rpartition(":")
    try:
        if whole_number(port) is not None and "://" not in address:
            # Test the connection first, because Ray would retry for minutes.
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
        # The cluster answers, but this machine runs no node of it.
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

    Without this check, `ray.init` would retry for 20 s, and its error would not name the reason.
    """
    if not SHOWS_TOKEN:
        return
    try:
        from ray._private.services import canonicalize_bootstrap_address
        from ray._raylet import GcsClient  # type: ignore[attr-defined]
    except (
        ImportError
    ):  # these names are private; if a later Ray renames them, `ray.init` reports the error
        return
    found = canonicalize_bootstrap_address(address)
    if found:
        with contextlib.suppress(RpcError):
            GcsClient(address=found).internal_kv_exists(b"genray", timeout=ANSWER_S)


def has_resource(resource: str) -> bool:
    """Return whether any node of the cluster has the custom resource."""
    return ray.cluster_resources().get(resource, 0) > 0


def role(name: str) -> dict[str, float]:
    """Return one unit of a role's custom resource as a request of resources; {} if no node of the
    cluster has this role (see cluster.yaml).
    """
    resource = f"genray_{name}"
    return {resource: 1} if has_resource(resource) else {}


def gpus_each(config: DQNConfig, have: int) -> int:
    """Return the number of GPUs that each learner reserves; the cluster has `have` GPUs.

    Returns 1 if --device is `cuda`, or is `auto` and there are GPUs; otherwise 0. Raises
    ResourceError when learners need GPUs, and there are fewer GPUs than learners.
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
    """Return Ray's ids of the nodes that will stop soon, because of a spot machine's notice, `ray
    drain-node`, or a scale-down by the autoscaler.

    The call is private to Ray (2.60). If a later Ray does not have it, no ids are returned.
    """
    try:
        from ray._private import state

        return state.state.get_draining_nodes()
    except (ImportError, AttributeError):
        return ()


def free_cpus() -> list[float]:
    """Return for each node the CPUs that no actor, task or placement group has reserved."""
    from ray._private.state import available_resources_per_node

    return [free.get("CPU", 0.0) for free in available_resources_per_node().values()]


def reserve_share(config: DQNConfig) -> float:
    """Return the CPUs that each collector and learner can reserve now, `even_share` of the free
    CPUs.

    If this is less than `even_share` of all CPUs, the function waits for up to FREE_S, because a
    run that has just ended frees its CPUs within seconds. Raises ResourceError when the free CPUs
    do not suffice for any share.
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
    """Return the number of CPUs of each live node."""
    return [node["Resources"].get("CPU", 0.0) for node in ray.nodes() if node["Alive"]]


def even_share(config: DQNConfig, places: Sequence[float]) -> float:
    """Return the CPUs that each collector and learner reserves: one, or the largest equal share
    if there are fewer CPUs than actors; 0 if no share of at least 0.01 CPU fits.

    `places`: the CPUs of each node, or of each bundle of a placement group. All CPUs of an actor
    have to be in one place. Shards reserve no CPU, because memory limits them, not CPUs.
    """
    workers = config.collect.collectors + config.learner.learners
    # Try all shares that divide the CPUs of a place among 1, 2, … actors, rounded down to 0.01 CPU.
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
