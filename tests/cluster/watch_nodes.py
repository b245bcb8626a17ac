"""Prints a line on a cluster's head whenever Ray's list of live machines changes. See
ray_cluster.Watch.
"""

import json
import sys
import time

import ray

ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
before: list[str] | None = None
while True:
    up = sorted(node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"])
    if up != before:
        print(json.dumps({"time": time.time(), "up": up}), flush=True)
        before = up
    time.sleep(0.1)
