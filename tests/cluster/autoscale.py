"""Runs on a host: a cluster whose collectors an autoscaler starts on demand, and a run that
needs them. See test_autoscaler.py.

Ray's fake provider starts its machines as processes beside the head. Its AutoscalingCluster
wants a file that the wheel lacks, and quotes resources twice: so the head is started here. The
host's power-off ends it all.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import ray

from genray import cli

HEAD = {"genray_learner": 1, "genray_replay": 2}
COLLECTOR = {
    "resources": {"CPU": 2, "genray_collector": 2},
    "node_config": {},
    "min_workers": 0,
    "max_workers": 3,
}
LISTS = ("initialization_commands", "setup_commands", "head_setup_commands", "worker_setup_commands",  # noqa: E501
         "head_start_ray_commands", "worker_start_ray_commands", "cluster_synced_files", "rsync_exclude",  # noqa: E501
         "rsync_filter")  # fmt: skip
CONFIG: dict[str, Any] = {
    "cluster_name": "fake_multinode",
    "max_workers": 8,
    # The machines share one address, so that each is known by its id.
    "provider": {
        "type": "fake_multinode",
        "use_node_id_as_ip": True,
        "disable_node_updaters": True,
        "disable_launch_config_check": True,
    },
    "available_node_types": {
        "collector": COLLECTOR,
        "ray.head.default": {"resources": {"CPU": 2, **HEAD}, "node_config": {}, "max_workers": 0},
    },
    "head_node_type": "ray.head.default",
    "upscaling_speed": 1.0,
    "idle_timeout_minutes": 5,
    "auth": {},
    "docker": {},
    "file_mounts": {},
    "file_mounts_sync_continuously": False,
    **{name: [] for name in LISTS},
}


def count_collectors() -> list[float]:
    return [
        node["Resources"]["genray_collector"]
        for node in ray.nodes()
        if "genray_collector" in node["Resources"]
    ]


def main(out: str) -> int:
    file = Path("/root/autoscaler.json")
    file.write_text(json.dumps(CONFIG))
    fake = {
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "RAY_FAKE_CLUSTER": "1",
        "RAY_enable_autoscaler_v2": "0",
    }
    words = [
        "ray",
        "start",
        "--head",
        f"--autoscaling-config={file}",
        "--num-cpus=2",
        f"--resources={json.dumps(HEAD)}",
    ]
    subprocess.run([*words, "--object-store-memory=100000000"], env=os.environ | fake, check=True)
    ray.init(address="auto", log_to_driver=False)
    before = count_collectors()
    run = [
        "--preset",
        "catch",
        "--collectors",
        "4",
        "--steps",
        "600",
        "--min-size",
        "200",
        "--evaluate-episodes",
        "2",
    ]
    status = cli.main(["train", "dqn", *run, "--address", "auto", "--out", out])
    print(json.dumps({"status": status, "before": before, "after": count_collectors()}))
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
