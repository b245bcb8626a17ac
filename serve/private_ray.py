"""Starts Ray Serve for a service on this machine faster than Ray's defaults do."""

import contextlib
import threading
from collections.abc import Iterator
from typing import Any
from unittest import mock


@contextlib.contextmanager
def frequent_polls() -> Iterator[None]:
    """Let `ray.serve.run` notice within a tenth of a second that the application runs. Ray asks
    once a second.
    """
    from ray.serve._private import client

    if not hasattr(client, "CLIENT_POLLING_INTERVAL_S"):
        yield
        return
    with mock.patch.object(client, "CLIENT_POLLING_INTERVAL_S", 0.1):
        yield


class ServeStart:
    """Starts Ray Serve's controller and proxies in a thread, so that replicas can start meanwhile.

    Args:
        options: the arguments of `ray.serve.start`.
    """

    def __init__(self, **options: Any):
        self._options = options
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="genray-serve-start", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        from ray import serve as ray_serve

        try:
            ray_serve.start(**self._options)
        except BaseException as error:
            self._error = error

    def wait_for_controller(self) -> None:
        """Return when the controller exists, so that applications can be deployed. Raises the error
        of the start.
        """
        import ray
        from ray.serve._private.constants import SERVE_CONTROLLER_NAME, SERVE_NAMESPACE

        while self._thread.is_alive():
            with contextlib.suppress(ValueError):  # not yet
                ray.get_actor(SERVE_CONTROLLER_NAME, namespace=SERVE_NAMESPACE)
                return
            self._thread.join(0.05)
        self.wait()

    def wait(self) -> None:
        """Return when the proxies listen. Raises the error of the start."""
        self._thread.join()
        if self._error:
            raise self._error
