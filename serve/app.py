"""The service on Ray Serve: one deployment, every replica of which answers HTTP by itself and
holds all small models.

One hop: behind HAProxy a request goes straight to a replica's own server; a deployment behind a
deployment would double the price of a small model's request. Start it with `genray serve
MODELS_DIR`, or on a cluster with `serve deploy serve/config.yaml`.
"""

from dataclasses import fields
from typing import Any

from ray import serve
from ray.serve import Application

from genray.config import from_dict
from genray.errors import ConfigError, require
from serve.middleware import keys_in_environment
from serve.service import Service, Settings

MAX_ONGOING = 1024
"""Requests in a replica. Ray's default of 5 keeps batches at 5 and latency at seconds; our own
limit answers 429 first.
"""


@serve.ingress()
class Gateway:
    """A replica."""

    def __init__(self, settings: dict[str, Any], local: bool = False):
        self._local = local
        self._service = Service(from_dict(Settings, settings))
        self._service.telemetry.publish(self._service)

    def __serve_build_asgi_app__(self) -> Any:
        from serve.web import build_web

        # Serve names every answer itself
        return build_web(self._service, sends_id=False, local=self._local)

    def check_health(self) -> None:
        """Serve replaces a replica whose event loop does not come to this in time."""


def build(arguments: dict[str, Any]) -> Application:
    """The application that `serve deploy serve/config.yaml` or `serve run serve.app:build
    models_dir=runs` starts.

    `arguments`: the fields of `Settings`, and `replicas` (or `min_replicas`, `max_replicas`).
    Keys come from the environment variable GENRAY_API_KEY, separated by commas, never from a
    file; without one `open` must be true. `local` is `genray serve`'s, when it listens on
    loopback: without keys, only loopback's names are answered to. Raises ConfigError.
    """
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
            f"{', '.join(sorted(unknown))}: no such argument; there are {', '.join(sorted(known))}"
        )
    arguments.setdefault("keys", keys_in_environment())
    require(
        bool(arguments["keys"]) or is_open,
        "GENRAY_API_KEY: set a key, or say `open: true` for a service without any",
    )
    scaling: dict[str, Any] = {"num_replicas": replicas}
    if not replicas:
        # A replica is a core; half of what it can hold at a time is a fair load.
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
        # Serve's log line of each request is a quarter of what it costs; ours is `request_log`.
        logging_config={"enable_access_log": False, "log_level": "WARNING"},
        **scaling,
    )
    return deployment.bind(arguments, local)


def _switch(arguments: dict[str, Any], name: str) -> bool:
    """Takes a yes or no out of the arguments: YAML's, or a command line's text, of which "false"
    would be true.
    """
    value = arguments.pop(name, False)
    text = str(value).lower()
    require(text in ("true", "1", "false", "0"), f"{name}: {value!r} must be true or false")
    return text in ("true", "1")


def _whole(arguments: dict[str, Any], name: str, default: int, least: int) -> int:
    value = arguments.pop(name, default)
    text = str(value)
    whole = text.isascii() and text.isdigit() and not isinstance(value, bool) and int(text) >= least
    require(whole, f"{name}: {value!r} must be a whole number ≥ {least}, e.g. {max(default, 1)}")
    return int(text)
