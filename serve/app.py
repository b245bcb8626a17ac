"""Defines the Ray Serve application: one deployment whose replicas answer HTTP directly.

Every replica holds all models of the directory. HAProxy forwards a request directly to the server
of a replica. A second deployment behind the first would double the cost of a request to a small
model. Start the service with `genray serve MODELS_DIR`, or on a cluster with `serve deploy
serve/config.yaml`.
"""

from dataclasses import fields
from typing import Any

from ray import serve
from ray.serve import Application

from genray.config import from_dict
from genray.errors import ConfigError, require
from serve.middleware import keys_in_environment
from serve.settings import Settings

MAX_ONGOING = 1024
"""Requests that one replica accepts at a time. Ray's default of 5 limits batches to 5 rows and
raises the latency to seconds. The limit of the middleware (`Limits.max_in_flight`) answers 429
first.
"""


@serve.ingress()
class Gateway:
    """One replica of the service.

    Args:
        settings: the fields of `Settings`.
        local: see `build`.
    """

    def __init__(self, settings: dict[str, Any], local: bool = False):
        # PyTorch and the models are imported in the replica alone, not in every process of Serve.
        from serve.service import Service

        self._local = local
        self._rpc: Any = None
        self._service = Service(from_dict(Settings, settings))
        self._service.telemetry.publish(self._service)

    def __serve_build_asgi_app__(self) -> Any:
        from serve.web import build_web

        # Ray Serve adds the request id to each answer.
        self._web = build_web(self._service, sends_id=False, local=self._local)
        return self._web

    async def _answer(self, method: str, request: Any, context: Any) -> Any:
        if self._rpc is None:
            from serve.rpc import Rpc

            self._rpc = Rpc(self._service, self._web)
        return await self._rpc.answer(method, request, context)

    # Ray Serve calls the method that has the name of the gRPC method.
    async def ServerLive(self, request: Any, grpc_context: Any) -> Any:
        """Answer ServerLive of the Open Inference Protocol over gRPC."""
        return await self._answer("ServerLive", request, grpc_context)

    async def ServerReady(self, request: Any, grpc_context: Any) -> Any:
        """Answer ServerReady of the Open Inference Protocol over gRPC."""
        return await self._answer("ServerReady", request, grpc_context)

    async def ServerMetadata(self, request: Any, grpc_context: Any) -> Any:
        """Answer ServerMetadata of the Open Inference Protocol over gRPC."""
        return await self._answer("ServerMetadata", request, grpc_context)

    async def ModelReady(self, request: Any, grpc_context: Any) -> Any:
        """Answer ModelReady of the Open Inference Protocol over gRPC."""
        return await self._answer("ModelReady", request, grpc_context)

    async def ModelMetadata(self, request: Any, grpc_context: Any) -> Any:
        """Answer ModelMetadata of the Open Inference Protocol over gRPC."""
        return await self._answer("ModelMetadata", request, grpc_context)

    async def ModelInfer(self, request: Any, grpc_context: Any) -> Any:
        """Answer ModelInfer of the Open Inference Protocol over gRPC."""
        return await self._answer("ModelInfer", request, grpc_context)

    def check_health(self) -> None:
        """Do nothing. Ray Serve replaces a replica whose event loop does not run this in time."""


def build(arguments: dict[str, Any]) -> Application:
    """Build the application for `serve deploy serve/config.yaml` or `serve run serve.app:build
    models_dir=runs`.

    `arguments`: the fields of `Settings`, and `replicas` (or `min_replicas` and `max_replicas`).
    `open` must be true if the environment variable GENRAY_API_KEY is not set. GENRAY_API_KEY holds
    the API keys, separated by commas; keys are never read from a file. `genray serve` sets `local`
    when the service listens on loopback: without keys, the service then accepts only loopback names
    as Host. Raises ConfigError.
    """
    # Separate the arguments of the deployment from those of `Settings`.
    arguments = dict(arguments)
    is_open, local = _switch(arguments, "open"), _switch(arguments, "local")
    replicas, least, most = (
        _whole(arguments, name, default, at_least)
        for name, default, at_least in (
            ("replicas", 0, 0),
            ("min_replicas", 1, 0),
            ("max_replicas", 4, 1),
        )
    )
    known = {each.name for each in fields(Settings)}
    unknown = set(arguments) - known
    if unknown:
        raise ConfigError(
            f"{', '.join(sorted(unknown))}: no such argument; the arguments are "
            f"{', '.join(sorted(known))}"
        )
    # Require a key, or an explicit decision for an open service.
    arguments.setdefault("keys", keys_in_environment())
    require(
        bool(arguments["keys"]) or is_open,
        "GENRAY_API_KEY: set a key, or set `open: true` for a service without keys",
    )
    scaling: dict[str, Any] = {"num_replicas": replicas}
    if not replicas:
        # A replica uses one core. The autoscaler aims at half of the requests that a replica can
        # hold.
        scaling = {
            "autoscaling_config": {
                "min_replicas": least,
                "max_replicas": most,
                "target_ongoing_requests": 32,
                "downscale_delay_s": 120,
            }
        }
    deployment = serve.deployment(
        Gateway,
        name="genray",
        max_ongoing_requests=MAX_ONGOING,
        ray_actor_options={"num_cpus": 1},
        health_check_period_s=5,
        health_check_timeout_s=20,
        graceful_shutdown_wait_loop_s=1,
        graceful_shutdown_timeout_s=30,
        # Ray Serve's log line costs a quarter of the CPU time of a request. `request_log` replaces
        # it.
        logging_config={"enable_access_log": False, "log_level": "WARNING"},
        **scaling,
    )
    return deployment.bind(arguments, local)


def _switch(arguments: dict[str, Any], name: str) -> bool:
    """Remove a boolean from the arguments and return its value. Raises ConfigError.

    The value is a boolean from YAML, or text from a command line, where bool("false") is True.
    """
    value = arguments.pop(name, False)
    text = str(value).lower()
    require(text in ("true", "1", "false", "0"), f"{name}: {value!r} must be true or false")
    return text in ("true", "1")


def _whole(arguments: dict[str, Any], name: str, default: int, least: int) -> int:
    """Remove a whole number from the arguments and return its value. Raises ConfigError."""
    value = arguments.pop(name, default)
    text = str(value)
    whole = text.isascii() and text.isdigit() and not isinstance(value, bool) and int(text) >= least
    require(whole, f"{name}: {value!r} must be a whole number ≥ {least}, e.g. {max(default, 1)}")
    return int(text)
