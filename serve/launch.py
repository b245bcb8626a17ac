"""Implements `genray serve`: starts Ray, HAProxy (if installed) and the application.

HAProxy needs a tenth of the CPU time of Ray's Python proxy to forward a request (0.2 against 2.2
CPU-ms). With Ray Serve's throughput-optimized setting, the handlers run in the event loop of the
replica. Ray Serve reads both settings from the environment at import, here and in every process
that Ray starts. This module therefore sets them before that import.
"""

import contextlib
import importlib
import io
import logging
import os
import re
import secrets
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from genray.bounds import bounded, check_bounds
from genray.config import to_dict
from genray.errors import ConfigError, GenrayError, RunFault, require
from genray.machine import check_surroundings, ensure_ray_token, ray_temporary_directory
from genray.ray_processes import few_processes, start_private_ray
from genray.runs.stop import stop_signals, stop_signals_blocked
from serve.cleanup import Cleanup
from serve.environment import export_import_path, prepare_environment
from serve.forwarded import is_prefix
from serve.origin import is_loopback
from serve.ports import LOOPBACK, free_port, is_free, reserved_address, reserved_ports
from serve.private_ray import ServeStart, frequent_polls
from serve.settings import Settings, check_folder


@dataclass(frozen=True, kw_only=True)
class ServeLaunch:
    """Options of `genray serve`: where the service listens, and how many cores it uses."""

    host: str = "127.0.0.1"
    """An IPv4 address or a host name. An address beyond loopback needs keys in GENRAY_API_KEY, or
    --open.
    """
    port: int = bounded(8000, min=0, max=65_535, note="(0: a free one)")
    """TCP port; 0 chooses a free one."""
    open: bool = False
    """Let the service listen beyond loopback without keys. Everyone who reaches the port may then
    use the service and delete models.
    """
    grpc_port: int = bounded(0, min=0, max=65_535, note="(0: no gRPC)")
    """TCP port of the Open Inference Protocol over gRPC, at the address of --host; 0: no gRPC."""
    route_prefix: str = "/"
    """Path under which the service is reached, e.g. /gen, for a proxy in front that keeps this
    path.
    """
    replicas: int = bounded(1, min=1)
    """Number of replica processes. Each uses one core and holds all models."""
    address: str | None = None
    """Address of a Ray cluster (`auto` or HOST:PORT); default: start a private Ray on this machine.
    """
    haproxy: bool = True
    """Use HAProxy as the ingress if it is installed; otherwise Ray's Python proxy is used."""
    dashboard_port: int = bounded(0, min=0, max=65_535, note="(0: no dashboard)")
    """Port of Ray's dashboard and jobs API on loopback, protected by Ray's token
    (~/.ray/auth_token); 0: no dashboard.
    """

    def validate(self, keys: tuple[str, ...]) -> None:
        """Raise ConfigError for an invalid option, or an open address without `keys`."""
        check_bounds(self)
        require(
            not (self.dashboard_port and self.address),
            f"--dashboard-port {self.dashboard_port}: the cluster at --address {self.address} has "
            "its own dashboard; leave one of the two options out",
        )
        require(
            is_prefix(self.route_prefix),
            f"--route-prefix {self.route_prefix}: must be / or a path of letters, digits, - and _, "
            "e.g. /gen",
        )
        require(
            ":" not in self.host,
            f"--host {self.host}: IPv6 addresses are not served; use 127.0.0.1 or 0.0.0.0, or a "
            "proxy in front",
        )
        require(
            bool(self.host.strip()),
            f"--host {self.host!r}: is empty, which would be every address; write 127.0.0.1, or "
            "0.0.0.0 for every address",
        )
        if not is_loopback(self.host) and not keys and not self.open:
            raise ConfigError(
                f"--host {self.host}: without a key, everyone who reaches this address may use the "
                "service; set GENRAY_API_KEY (openssl rand -hex 24), or add --open"
            )

    def resolve(self) -> str:
        """Return the IPv4 address of `host`. Raises ConfigError if the name has none, or if the
        address belongs to another machine.
        """
        try:
            address = socket.gethostbyname(self.host)
        except (OSError, UnicodeError) as error:
            raise ConfigError(
                f"--host {self.host}: the name has no IPv4 address; use one of this machine's "
                "addresses (hostname -I), 127.0.0.1 or 0.0.0.0"
            ) from error
        require(
            is_free(address, 0),
            f"--host {self.host}: {address} is no address of this machine; use one of its "
            "addresses (hostname -I), 127.0.0.1 or 0.0.0.0",
        )
        return address


@dataclass(frozen=True)
class Running:
    """The addresses of a running service."""

    url: str
    """URL of the browser page; the routes begin with this URL."""
    haproxy: bool
    """Whether HAProxy is the ingress, instead of Ray's Python proxy."""
    metrics_url: str
    """URL of the Prometheus metrics, on loopback."""
    grpc: str = ""
    """HOST:PORT of the Open Inference Protocol over gRPC; empty: no gRPC."""


@contextlib.contextmanager
def running(settings: Settings, launch: ServeLaunch) -> Iterator[Running]:
    """Run the service inside a `with` block. Yields when the service answers. Raises ConfigError,
    ResourceError or RunFault.
    """
    # Check all options before anything starts.
    settings.validate()
    launch.validate(settings.keys)
    check_folder(Path(settings.models_dir))
    if settings.request_log:
        _check_request_log(settings.request_log)
    if not launch.address:
        check_surroundings()
        ensure_ray_token()
    address = launch.resolve()
    port = launch.port or free_port("" if address == "0.0.0.0" else address)
    temporary = None if launch.address else ray_temporary_directory()
    with contextlib.ExitStack() as held:
        held.enter_context(reserved_address("port", address, port))
        if launch.grpc_port:
            held.enter_context(reserved_address("grpc-port", address, launch.grpc_port))
        if launch.dashboard_port:
            held.enter_context(reserved_address("dashboard-port", LOOPBACK, launch.dashboard_port))
        ports = held.enter_context(reserved_ports(launch.replicas, grpc=launch.grpc_port > 0))
        made = tempfile.TemporaryDirectory(prefix="genray-", dir=room_for_sockets(temporary))
        folder = Path(held.enter_context(made))
        # Set the environment before Ray Serve is imported.
        haproxy = prepare_environment(folder, launch.haproxy, ports, address, settings)
        cleanup = held.enter_context(Cleanup(secrets.token_hex(8), folder))
        # Ray installs signal handlers of its own; the caller's are set again.
        handlers = {number: signal.getsignal(number) for number in stop_signals()}
        import ray

        # `genray serve` prints the progress itself.
        logging.getLogger("ray.serve").setLevel(logging.WARNING)
        # Join the cluster, or start a private Ray.
        if launch.address:
            ray.init(address=launch.address, log_to_driver=False, logging_level="ERROR")
        else:
            (folder / "empty").mkdir()
            # Ray's workers search the working directory before all others. A user's serve.py or
            # types.py there must not replace an installed module.
            export_import_path()
            with (
                _failures_of_ray(),
                stop_signals_blocked(),
                contextlib.chdir(folder / "empty"),
                few_processes(dashboard=launch.dashboard_port > 0),
            ):
                start_private_ray(
                    num_cpus=launch.replicas + 1,
                    object_store_memory=200 * 2**20,
                    include_dashboard=launch.dashboard_port > 0,
                    dashboard_port=launch.dashboard_port or None,
                    _metrics_export_port=ports.metrics,
                    _system_config={"preload_python_modules": ["serve.preload"]},
                )
            cleanup.note_children()
        # Ray's first workers start meanwhile. The order of the two imports matters.
        importlib.import_module("serve.preload")
        from ray import serve as ray_serve

        # Start Serve and the application, and wait until it answers.
        try:
            with _failures_of_ray():
                _set_handlers(handlers)
                # Replicas and Ray's proxy listen on one address. Behind HAProxy this is loopback:
                # serve/haproxy.py opens the service's address.
                inner = LOOPBACK if haproxy and not launch.address else address
                starting = ServeStart(
                    http_options={"host": inner, "port": port, "request_timeout_s": None},
                    grpc_options=_grpc_options(settings, launch, inner),
                    logging_config={"enable_access_log": False, "log_level": "WARNING"},
                )
                # The replicas start while the proxies start.
                starting.wait_for_controller()
                deploy(settings, launch)
                starting.wait()
            shown = LOOPBACK if address == "0.0.0.0" else address
            url = f"http://{shown}:{port}{launch.route_prefix.rstrip('/')}"
            _wait(url)
            if launch.grpc_port and haproxy and not launch.address:
                from serve.grpc_options import check_loopback

                check_loopback(ports)
            cleanup.note_children()
            grpc = f"{shown}:{launch.grpc_port}" if launch.grpc_port else ""
            yield Running(url, haproxy, f"http://{LOOPBACK}:{ports.metrics}/metrics", grpc)
        finally:
            # When Serve shuts down, its controller ends. Ray's listener would report this as a
            # failed task.
            with contextlib.redirect_stdout(io.StringIO()):
                # The replicas first answer the requests that they have begun. Without this step,
                # Serve would end HAProxy, and with it every answer, at once.
                with contextlib.suppress(Exception):  # the start failed before there was one
                    ray_serve.delete("genray")
                if not launch.address:
                    ray_serve.shutdown()
                ray.shutdown()


def _grpc_options(settings: Settings, launch: ServeLaunch, address: str) -> Any:
    """Return the options of Ray Serve's gRPC servers; None without gRPC. `address`: where Ray's
    own servers listen.
    """
    if not launch.grpc_port:
        return None
    from serve.grpc_options import grpc_options

    # The nodes of a cluster reach each other's replicas, as Ray Serve has it.
    return grpc_options(
        launch.grpc_port,
        "[::]" if launch.address else address,
        settings.limits.request_timeout_s,
    )


def room_for_sockets(folder: str | None) -> str:
    """Return `folder` (None: the usual one for temporary files), or /tmp if the paths of HAProxy's
    sockets would be too long there: at most 97 bytes.

    Ray makes the sockets in a directory that is named by the 56 digits of the node.
    """
    folder = folder or tempfile.gettempdir()
    longest = f"{folder}/genray-{8 * '_'}/{56 * '0'}/metrics.sock"
    return folder if len(os.fsencode(longest)) <= 97 or not os.access("/tmp", os.W_OK) else "/tmp"


@contextlib.contextmanager
def _failures_of_ray() -> Iterator[None]:
    """Turn an error of Ray into a RunFault of one line, with the cause that Ray found."""
    try:
        yield
    except GenrayError:
        raise
    except Exception as error:
        raise RunFault(
            f"Ray did not start the service: {_cause(error)}; on a busy machine, try again later "
            f"(Ray's own logs: {ray_temporary_directory()}/ray/session_latest/logs)"
        ) from error


_NAMED = r"[\w.]*(Error|Exception|Exit)\b|\[ALERT\]"
"""How the line begins that names a cause; the latter is HAProxy's."""


def _cause(error: Exception) -> str:
    """Return the line of an error that says why. Ray's errors contain tracebacks of processes."""
    text = str(error)
    with contextlib.suppress(Exception):  # Serve's answer is better, if there is one
        import ray
        from ray import serve as ray_serve

        assert ray.is_initialized()  # otherwise `status` would start Ray once more
        application = ray_serve.status().applications["genray"]
        text = "\n".join([text, *(each.message for each in application.deployments.values())])
    lines = [line.strip() for line in re.sub(r"\x1b\[\d*m", "", text).splitlines() if line.strip()]
    # HAProxy's last line says only that there are errors; the lines before name them.
    named = [line for line in lines if re.match(_NAMED, line) and "Fatal errors found" not in line]
    return (named or lines or [type(error).__name__])[-1][:300]


def _set_handlers(handlers: dict[signal.Signals, Any]) -> None:
    """Set signal handlers, in the main thread only: elsewhere Python allows none."""
    if threading.current_thread() is threading.main_thread():
        for number, handler in handlers.items():
            signal.signal(number, handler)


def deploy(settings: Settings, launch: ServeLaunch) -> None:
    """Start the application on the running Ray, and return when all replicas are new.

    A second call replaces the replicas one by one, and no request is lost.
    """
    from ray import serve as ray_serve

    from serve.app import build

    local = is_loopback(launch.host) and not launch.open
    application = build(
        {**_for_replicas(settings), "replicas": launch.replicas, "open": True, "local": local}
    )
    with frequent_polls():
        ray_serve.run(application, name="genray", route_prefix=launch.route_prefix, blocking=False)


def _check_request_log(log: str) -> None:
    """Raise ConfigError unless a file can be made beside `log`, as each replica does."""
    folder = Path(log).resolve().parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
        reason = "it is a directory" if Path(log).is_dir() else ""
    except OSError as error:
        reason = str(error.strerror)
    require(
        not reason,
        f"--request-log {log}: cannot be written ({reason}); name a file in a directory in which "
        "this user may write",
    )


def _for_replicas(settings: Settings) -> dict[str, Any]:
    """Return the settings as a dictionary with absolute paths, because a replica has its own
    working directory.
    """
    log = str(Path(settings.request_log).resolve()) if settings.request_log else ""
    folder = str(Path(settings.models_dir).resolve())
    # HAProxy, on loopback, removes headers that do not come from a trusted proxy.
    haproxy = os.environ.get("RAY_SERVE_ENABLE_HA_PROXY") == "1"
    trusted = (*settings.trusted_proxies, *((LOOPBACK,) if haproxy else ()))
    return to_dict(replace(settings, models_dir=folder, request_log=log, trusted_proxies=trusted))


def _wait(url: str, seconds: float = 60) -> None:
    """Wait until /healthz answers with status 200. Raises RunFault after `seconds`."""
    import urllib.error
    import urllib.request

    # The service is on this machine, so no HTTP proxy is used.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    stop = time.monotonic() + seconds
    last: Any = None
    while time.monotonic() < stop:
        try:
            with opener.open(f"{url}/healthz", timeout=5) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, OSError) as error:
            last = error
        time.sleep(0.1)
    raise RunFault(f"{url} does not answer after {seconds:.0f} s ({last})")
