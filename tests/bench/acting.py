"""Who should choose the actions: each collector's core, or one GPU for all? `python -m
tests.bench.acting`

Local: a collector runs the network on its own core (what genray does). Central: collectors only
play; a process with a GPU gets the newest frame of each lane, keeps the stacks there, and
answers with actions. A collector's lanes alternate in two groups, so that one plays while the
other waits: what counts is the work of each core, not the latency.

Measured here: the step with and without the network, and what a frame and its answer cost both
sides, by Ray calls and by shared memory with a pipe. Assumed, for want of a GPU here: what the
GPU's process needs for a batch (`bench_gpu` measures that where there is one: put it in with
`--launch-ms` and `--gpu-us`).
"""

import argparse
import mmap
import multiprocessing
import time
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import ray
import torch

from genray.distributed.coordinator import ray_session
from genray.machine import keep_freed_memory
from genray.rl.collect import CollectConfig, Collector
from genray.rl.env import AtariLanes, EnvConfig
from genray.rl.exploration import ExploreConfig
from genray.rl.networks import NetworkConfig, QNetwork
from tests.bench.common import describe_machine, last_json_line, print_table, tree_cpu_s

GAME, ACTIONS, FRAME = "road_runner", 18, (84, 84)
CORES = 16
CORES_ELSEWHERE = 2  # a shard's and the learner's
# assumed: of the GPU's process, to send frames, roll stacks, start 20 kernels and fetch the actions
LAUNCH_S = 0.3e-3
GPU_S = 3e-6  # assumed: of the GPU, a lane's forward pass in a batch of a hundred or more
# assumed: groups of lanes that wait when the GPU's process looks, and go into one batch
TOGETHER = 8


@dataclass(frozen=True)
class StepCosts:
    """Seconds of one agent step of one lane."""

    play_s: float  # a collector's core: game, stacks, its part of a chunk
    network_s: float  # … and the network, where it runs there
    ray_send_s: float  # central, by Ray: a collector's core
    ray_serve_s: float  # … the GPU process's core
    shared_send_s: float  # central, by shared memory and a pipe
    shared_serve_s: float


def rates(
    costs: StepCosts, lanes: int, launch_s: float = LAUNCH_S, gpu_s: float = GPU_S
) -> dict[str, float]:
    """Agent steps a second of one machine of CORES and a GPU, `lanes` in a group: local, and
    each central way.
    """
    found = {"local": (CORES - CORES_ELSEWHERE) / (costs.play_s + costs.network_s)}
    for way, send_s, serve_s in (
        ("ray", costs.ray_send_s, costs.ray_serve_s),
        ("shared", costs.shared_send_s, costs.shared_serve_s),
    ):
        collectors = (CORES - CORES_ELSEWHERE - 1) / (costs.play_s + send_s)
        server = 1 / (serve_s + launch_s / (TOGETHER * lanes))
        found[way] = min(collectors, server, 1 / gpu_s)
    return found


# --- costs ----------------------------------------------------------------------------------------


def playing(lanes: int, seconds: float) -> tuple[float, float]:
    """CPU seconds a step: (without the network, the network's)."""
    env_config, config = EnvConfig(game=GAME), CollectConfig(collectors=1, envs_per_collector=lanes)
    env, network = AtariLanes(env_config, lanes, 1), QNetwork(NetworkConfig(), ACTIONS)
    collector = Collector(env, network, env_config, config, ExploreConfig())
    device = torch.device("cpu")
    for _ in range(2):
        collector.collect()
    start, chunks = time.process_time(), 0
    while time.process_time() - start < seconds:
        collector.collect()
        chunks += 1
    whole = (time.process_time() - start) / (chunks * config.chunk_rows * lanes)
    start, calls = time.process_time(), 0
    while time.process_time() - start < seconds:
        collector.lanes.q_values(network, device)
        calls += 1
    spent = (time.process_time() - start) / (calls * lanes)
    env.close()
    return max(0.0, whole - spent), spent


class Server:
    """In place of the GPU's process: takes the frames in, and answers."""

    def __init__(self, lanes: int):
        self._frame_EHW = np.empty((lanes, *FRAME), np.uint8)

    def act(self, frame_EHW: np.ndarray) -> np.ndarray:
        np.copyto(self._frame_EHW, frame_EHW)
        return np.zeros(len(frame_EHW), np.uint8)


def by_ray(lanes: int, seconds: float) -> tuple[float, float]:
    """CPU seconds a step: (sender's, server's and Ray's)."""
    frame_EHW = np.zeros((lanes, *FRAME), np.uint8)
    with ray_session():
        server = ray.remote(Server).options(num_cpus=0).remote(lanes)
        ray.get(server.act.remote(frame_EHW))
        time.sleep(3)
        before = tree_cpu_s()
        time.sleep(4)
        idle_s = (tree_cpu_s() - before) / 4
        start, mine, everyone, calls = time.perf_counter(), time.process_time(), tree_cpu_s(), 0
        waiting = server.act.remote(frame_EHW)  # two groups: one is always under way
        while time.perf_counter() - start < seconds:
            following = server.act.remote(frame_EHW)
            ray.get(waiting)
            waiting, calls = following, calls + 1
        ray.get(waiting)
        sent = time.process_time() - mine
        served = tree_cpu_s() - everyone - sent - idle_s * (time.perf_counter() - start)
    return sent / (calls * lanes), max(0.0, served) / (calls * lanes)


def _serve(memory: mmap.mmap, pipe: Connection, lanes: int) -> None:
    shared_EHW = np.frombuffer(memory, np.uint8, lanes * FRAME[0] * FRAME[1]).reshape(lanes, *FRAME)
    frame_EHW, answer = np.empty_like(shared_EHW), bytes(lanes)
    pipe.send_bytes(b"ready")
    start = time.process_time()
    while pipe.recv_bytes():
        np.copyto(frame_EHW, shared_EHW)
        pipe.send_bytes(answer)
    pipe.send(time.process_time() - start)


def by_shared_memory(lanes: int, seconds: float) -> tuple[float, float]:
    """CPU seconds a step: (sender's, server's)."""
    size = lanes * FRAME[0] * FRAME[1]
    memory, context = mmap.mmap(-1, size), multiprocessing.get_context("fork")
    mine, theirs = context.Pipe()
    server = context.Process(target=_serve, args=(memory, theirs, lanes), daemon=True)
    server.start()
    mine.recv_bytes()
    shared_EHW = np.frombuffer(memory, np.uint8, size).reshape(lanes, *FRAME)
    frame_EHW, calls = np.zeros_like(shared_EHW), 0
    start, cpu = time.perf_counter(), time.process_time()
    while time.perf_counter() - start < seconds:
        np.copyto(shared_EHW, frame_EHW)
        mine.send_bytes(b"go")
        mine.recv_bytes()
        calls += 1
    sent = time.process_time() - cpu
    mine.send_bytes(b"")
    served = mine.recv()
    server.join()
    return sent / (calls * lanes), served / (calls * lanes)


def measure(lanes: tuple[int, ...], seconds: float) -> dict[int, StepCosts]:
    # it forks: before there are threads
    shared = {each: by_shared_memory(each, seconds) for each in lanes}
    return {
        each: StepCosts(*playing(each, seconds), *by_ray(each, seconds), *shared[each])
        for each in lanes
    }


WAYS = {
    "local": "local: each collector's own core",
    "ray": "central, by Ray calls",
    "shared": "central, by shared memory and a pipe",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--lanes", type=int, nargs="+", default=[8, 32], help="in a group that acts together"
    )
    parser.add_argument("--seconds", type=float, default=2.0, help="of each cost")
    parser.add_argument(
        "--launch-ms", type=float, default=1e3 * LAUNCH_S, help="of the GPU's process, a batch"
    )
    parser.add_argument("--gpu-us", type=float, default=1e6 * GPU_S, help="of the GPU, a lane")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    result: dict[str, Any] = {}
    for lanes, costs in measure(tuple(arguments.lanes), arguments.seconds).items():
        found = rates(costs, lanes, arguments.launch_ms / 1e3, arguments.gpu_us / 1e6)
        print_table(
            f"Agent steps a second on {CORES} cores and a GPU, {lanes} lanes a group; "
            f"{describe_machine()}",
            ("who acts", "steps/s", "of local"),
            [
                (WAYS[way], f"{rate:,.0f}", f"{rate / found['local']:.2f}")
                for way, rate in found.items()
            ],
        )
        print(", ".join(f"{name} {1e6 * value:.1f} µs" for name, value in asdict(costs).items()))
        best = max(found, key=found.__getitem__)
        print(
            f"wins: {WAYS[best]}. Assumed: {arguments.launch_ms} ms a batch of {TOGETHER} groups, "
            f"{arguments.gpu_us} µs a lane"
        )
        result |= {f"{way}_{lanes}_steps_per_s": rate for way, rate in found.items()}
        result |= {
            f"{name.removesuffix('_s')}_{lanes}_us": 1e6 * value
            for name, value in asdict(costs).items()
        }
    last_json_line(result)


if __name__ == "__main__":
    main()
