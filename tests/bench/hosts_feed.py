"""The learner's feed between two hosts: what a batch of 512 costs on the wire. `python -m
tests.bench.hosts_feed`

Two hosts made of namespaces (tests/cluster/hosts.py: root needed) on a bridge. On the first one
replay shard, on the second the learner's feed, which takes batches as fast as it can. The wire's
bytes are those of the learner's network interface, both ways, as the kernel counts them: frames,
priorities, Ray's own talk, and TCP's headers. The bridge is memory: rates say what the two ends
can do, on processors that both share, not what a network would.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from tests.bench.common import BenchError, describe_machine, last_json_line, print_table
from tests.bench.rivals.replays import genray_shard, work

PORT = 6400
BATCH = 512
WAYS = {  # our name: (store, frames compressed on the way)
    "lz4": ("lz4", True),
    "packed": ("raw", True),
    "plain": ("raw", False),
}


def wire_bytes(interface: str = "eth0") -> int:
    """Bytes in and out of an interface of this network namespace."""
    for line in Path("/proc/net/dev").read_text().splitlines():
        name, _, counts = line.partition(":")
        if name.strip() == interface:
            fields = counts.split()
            return int(fields[0]) + int(fields[8])
    raise BenchError(f"no interface {interface} here")


class OneWay:
    """In place of the feed's `CompressionChoice`, which would try both."""

    def __init__(self, packed: bool):
        self.packed = packed

    def choose(self) -> bool:
        return self.packed

    def note(self, packed: bool, waited_s: float) -> None:
        pass


def learner(address: str, n_step: int, seconds: float) -> dict[str, dict[str, float]]:
    """On the second host: {way: batches a second, bytes a batch}."""
    import ray

    from genray.distributed.replay_shard import ReplayShardActor
    from tests.bench.rivals.feed import feed_of, fill

    ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    found = {}
    steps = work.played_steps()
    for store in ("lz4", "raw"):
        replay = genray_shard.Replay(store, n_step)
        for one in steps:
            replay.add(one)  # for its chunks
        remote = ray.remote(ReplayShardActor).options(
            num_cpus=0, resources={"shard": 0.01}, max_concurrency=1000
        )
        shard = remote.remote(replay.shard.config, replay.layout, (0,))
        fill(shard, replay)
        for way, (of_store, packed) in WAYS.items():
            if of_store != store:
                continue
            feed = feed_of(shard, BATCH, 1, shared=False)
            feed._compression = OneWay(packed)  # type: ignore[assignment]
            rng = np.random.default_rng(0)
            for measured in (False, True):
                done, before, start = 0, wire_bytes(), time.perf_counter()
                while (wall := time.perf_counter() - start) < seconds:
                    for batch in feed.next_round() or []:
                        feed.send_back(batch, rng.random(batch.sample.size).astype(np.float32))
                        done += 1
                if measured:
                    found[way] = {"per_s": done / wall, "bytes": (wire_bytes() - before) / done}
        ray.kill(shard)
    ray.shutdown()
    return found


def measure(seconds: float) -> dict[int, dict[str, dict[str, float]]]:
    """{n: {way: …}}; Raises BenchError where no hosts can be made."""
    from tests.cluster.hosts import Hosts, missing

    if reason := missing():
        raise BenchError(reason)
    found = {}
    start = [
        "ray",
        "start",
        "--object-store-memory",
        "300000000",
        "--num-cpus",
        "1",
        "--disable-usage-stats",
    ]
    try:
        with Hosts(2, shm="1g") as (first, second):
            first.run(*start, "--head", "--port", str(PORT), "--include-dashboard", "false",
                      "--node-ip-address", first.address, "--resources", json.dumps({"shard": 1}))  # fmt: skip  # noqa: E501
            second.run(
                *start, "--address", f"{first.address}:{PORT}", "--node-ip-address", second.address
            )
            for n_step in (1, 3):
                words = [
                    sys.executable,
                    "-m",
                    "tests.bench.hosts_feed",
                    "--learner",
                    f"{first.address}:{PORT}",
                ]
                done = second.run(
                    *words, "--n-step", str(n_step), "--seconds", str(seconds), timeout=300
                )
                found[n_step] = json.loads(done.stdout.splitlines()[-1])
    except (RuntimeError, subprocess.TimeoutExpired) as error:
        raise BenchError(f"no feed between two hosts: {error}") from error
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measured stretch")
    parser.add_argument("--learner", help=argparse.SUPPRESS)
    parser.add_argument("--n-step", type=int, default=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.learner:
        last_json_line(learner(arguments.learner, arguments.n_step, arguments.seconds))
        return
    found = measure(arguments.seconds)
    titles = {
        "lz4": "lz4 store, its slices",
        "packed": "raw store, compressed on the way",
        "plain": "raw store, as it is",
    }
    print_table(
        f"A batch of {BATCH} between two hosts; {describe_machine()}",
        ("frames", "MB on the wire, n = 1", "n = 3", "batches a second, n = 1", "n = 3"),
        [
            (
                title,
                *(f"{found[n][way]['bytes'] / 1e6:.2f}" for n in (1, 3)),
                *(f"{found[n][way]['per_s']:.0f}" for n in (1, 3)),
            )
            for way, title in titles.items()
        ],
    )
    last_json_line(
        {
            f"{way}_{what}_n{n}": found[n][way][what]
            for n in found
            for way in found[n]
            for what in ("bytes", "per_s")
        }
    )


if __name__ == "__main__":
    main()
