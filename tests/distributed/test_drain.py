"""Tests that a collector leaves a node that will stop, and restarts when another node has a
free CPU.
"""

import subprocess
import sys
import time
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster

from genray.distributed.coordinator import Coordinator
from tests.helpers.distributed import tiny

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]
COLLECTOR = {"num_cpus": 1, "resources": {"genray_collector": 1}}


@pytest.fixture
def cluster():
    head = {
        "num_cpus": 2,
        "resources": {"genray_collector": 1, "genray_replay": 2, "genray_learner": 1},
    }
    made = Cluster(initialize_head=True, head_node_args=head)
    made.add_node(**COLLECTOR)
    ray.init(address=made.address, log_to_driver=False, logging_level="ERROR")
    yield made
    ray.shutdown()
    made.shutdown()


def drain(cluster: Cluster, node: str) -> None:
    command = [
        str(Path(sys.executable).with_name("ray")),
        "drain-node",
        "--address",
        cluster.address,
        "--node-id",
        node,
    ]
    command += ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "spot"]
    subprocess.run(
        [*command, "--deadline-remaining-seconds", "120"], check=True, capture_output=True
    )


def test_collector_leaves_a_drained_node_for_another(cluster: Cluster):
    engine = Coordinator(tiny(), learner_threads=1)
    events: list[str] = []

    def left() -> list[str]:
        # A busy machine also has events about slow actors.
        return [event for event in events if " left " in event]

    def until(condition) -> None:
        stop = time.monotonic() + 150
        while not condition():
            assert time.monotonic() < stop, events
            progress = engine.advance(10**9, seconds=0.5)
            events.extend(progress.events)
            assert progress.restarts == progress.lost_transitions == 0, events

    try:
        until(lambda: engine.steps > 500 and all(worker.node for worker in engine._collectors))
        head = ray.get_runtime_context().get_node_id()
        (worker,) = (worker for worker in engine._collectors if worker.node != head)
        old = worker.node
        drain(cluster, old)
        until(left)
        assert [f"collector {worker.index} left" in event for event in left()] == [True]
        made = engine.steps
        # no node has a free CPU; the other collector continues
        until(lambda: engine.steps > made + 500)
        assert worker.away
        cluster.add_node(**COLLECTOR)
        until(lambda: not worker.away)
        assert worker.node not in ("", old, head)
        assert len(left()) == 1
    finally:
        engine.close()
