"""Tells the user that a call to Ray waits because no CPU or GPU is free for an actor."""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray

PATIENCE_S = 10.0
"""Seconds after which a wait is explained. Starting an actor takes seconds even on an idle machine.
"""


@contextmanager
def waits_explained(what: str, patience_s: float = PATIENCE_S) -> Iterator[None]:
    """Context manager: prints one line on stderr if Ray cannot place an actor or a task.

    `what` names the waiting program, e.g. "ApexDQN". Ray is asked every `patience_s` seconds until
    the block ends or the line is printed. On a shared cluster, the line may be about the actors of
    another program, because Ray answers for the whole cluster.
    """
    ended = threading.Event()
    watch = threading.Thread(target=_watch, args=(what, patience_s, ended), daemon=True)
    watch.start()
    try:
        yield
    finally:
        ended.set()
        watch.join()


def _watch(what: str, patience_s: float, ended: threading.Event) -> None:
    while not ended.wait(patience_s):
        if reason := unplaced():
            print(f"{what} waits: {reason}", file=sys.stderr, flush=True)
            return


def unplaced() -> str:
    """Return a text with the requests that Ray cannot place now and the free resources; "" if there
    are no such requests, or Ray does not answer.
    """
    try:
        from ray.autoscaler.v2.sdk import get_cluster_status

        demands = get_cluster_status(ray.get_runtime_context().gcs_address).resource_demands
        free = ray.available_resources()
    except Exception:  # a failed explanation must not end the waiting call
        return ""
    wanted = [
        f"{ask.count} x {_amounts(ask.bundle)}"
        for demand in [*demands.ray_task_actor_demand, *demands.placement_group_demand]
        for ask in demand.bundles_by_count
        if ask.bundle  # an actor without reservations waits only for its process to start
    ]
    if not wanted:
        return ""
    total = ray.cluster_resources()
    kinds = [kind for kind in ("CPU", "GPU") if total.get(kind)]
    have = ", ".join(f"{free.get(kind, 0):g} of {total[kind]:g} {kind}s" for kind in kinds)
    return (
        f"Ray is asked for {', '.join(wanted)}, but {have or 'no CPUs'} are free; another run, "
        "ApexDQN or sweep holds the rest: end it (algo.stop() in a notebook), or ask for less"
    )


def _amounts(bundle: dict[str, Any]) -> str:
    return " + ".join(f"{amount:g} {kind}" for kind, amount in sorted(bundle.items()))
