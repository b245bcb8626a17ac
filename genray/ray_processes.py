"""Starts a private Ray with fewer processes than Ray's defaults do."""

import contextlib
import inspect
from collections.abc import Iterator
from typing import Any
from unittest import mock


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
