"""Starts a private Ray with fewer processes than Ray's defaults do."""

import contextlib
import inspect
from collections.abc import Iterator
from typing import Any
from unittest import mock

from genray.errors import ResourceError

START_TRIES = 2
"""Ray gives up a start after 30 seconds, which a busy machine may need."""


@contextlib.contextmanager
def few_processes(dashboard: bool = False) -> Iterator[None]:
    """Let `ray.init` start only the processes that a run or a service on one machine needs.

    Not needed are the autoscaler (there is one node), the monitor of the workers' logs (their logs
    are not forwarded), and the process of the dashboard unless `dashboard` is true. They cost a
    fifth of the CPU time of a start, and `ray.init` waits for the dashboard's process although that
    has nothing to do. Ray's agent gets a free port: if another Ray on this machine has the usual
    one, the agent would try that port for three seconds. `ray start` has options for all but the
    dashboard; `ray.init` has none. A release of Ray without these parameters starts as it does.
    """
    from ray._private import parameter, services

    with contextlib.ExitStack() as patched:
        made: Any = getattr(parameter, "RayParams", None)
        values = {
            "no_monitor": True,
            "include_log_monitor": False,
            "dashboard_agent_listen_port": 0,
        }
        if made and values.keys() <= inspect.signature(made).parameters.keys():

            def parameters(**given: Any) -> Any:
                return made(**{**given, **values})

            patched.enter_context(mock.patch.object(parameter, "RayParams", parameters))
        if not dashboard and hasattr(services, "start_api_server"):
            # (no URL, no process): what the function returns when the dashboard does not start.
            patched.enter_context(
                mock.patch.object(services, "start_api_server", lambda *_, **__: (None, None))
            )
        yield


def start_private_ray(**options: Any) -> None:
    """Start a private Ray with these options of `ray.init`, quietly.

    Raises ResourceError when Ray is not ready in time, START_TRIES times.
    """
    import ray

    for left in reversed(range(START_TRIES)):
        try:
            ray.init(address="local", log_to_driver=False, logging_level="ERROR", **options)
            return
        except Exception as error:
            if "timed out during startup" not in str(error):  # Ray raises a plain Exception
                raise
            ray.shutdown()
            if not left:
                raise ResourceError(
                    f"Ray did not start within 30 s, {START_TRIES} times: this machine is too busy "
                    "or short of memory; end other programs, or try again later"
                ) from error
