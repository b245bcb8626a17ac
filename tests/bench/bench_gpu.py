"""What a GPU makes of it. `python -m tests.bench.bench_gpu` where there is one; `--device cpu
--quick` shows that it runs.

Transitions a second that genray's own learner trains, by the clock: the update alone, on a batch
that lies on the device; with draws and priorities from a shard in the same process, frames
gathered on the host (pinned memory, sent while the device works on the batch before) or on the
device (`--frames-on device`); and over Ray, from a shard in a process of its own. Beside the
learner as it is stand two experiments with the same learner: its networks under torch.compile
("reduce-overhead", CUDA graphs inside), and the whole update captured as one CUDA graph, which a
real run could not use as it stands: β and the size of the replay are frozen in it.

Then who should act: the network on a core, beside batches of lanes on the device
(`tests.bench.acting` is the model). A row that fails says why and is left out of the figures.
"""

import argparse
import sys
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
import ray
import torch

from genray.distributed.coordinator import ray_session
from genray.machine import cuda_trial, has_bfloat16, keep_freed_memory
from genray.rl.learner import Learner
from genray.rl.networks import NetworkConfig, QNetwork
from genray.rl.transfer import AnySample
from tests.bench import acting
from tests.bench.common import describe_machine, last_json_line, print_table
from tests.bench.rivals.feed import filled_actor
from tests.bench.rivals.gpu_learner import (
    ACTIONS,
    BETA,
    InProcess,
    OverRay,
    Source,
    Still,
    learner_of,
    trained_per_s,
)
from tests.bench.rivals.replays import genray_shard, work

GOAL = 500_000  # trained transitions a second on one H200


# --- experiments ----------------------------------------------------------------------------------


def compiled(learner: Learner) -> Learner:
    """Its networks' passes under torch.compile."""
    for network in (learner.online, learner.target):
        network.compile(mode="reduce-overhead")
    begin = learner.begin

    def marked(*arguments: Any) -> None:
        torch.compiler.cudagraph_mark_step_begin()
        begin(*arguments)

    learner.begin = marked  # type: ignore[method-assign]
    return learner


def graph_per_s(learner: Learner, batch: AnySample, seconds: float) -> float:
    """Transitions a second of the whole update, replayed from one CUDA graph; results are read
    back each time.
    """
    for group in learner.optimizer.param_groups:
        group["capturable"] = True
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    tensors = learner._transfers.take(batch)
    learner._transfers.take = lambda batch: tensors  # type: ignore[method-assign]
    with torch.cuda.stream(side):
        for _ in range(5):
            learner.update(batch, work.CAPACITY, BETA)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        learner.begin(batch, work.CAPACITY, BETA)

    def stretch(seconds: float) -> float:
        done, start = 0, time.perf_counter()
        while time.perf_counter() - start < seconds:
            graph.replay()
            learner.finish()
            done += 1
        return done * batch.size / (time.perf_counter() - start)

    return median(stretch(seconds / 3) for _ in range(3))


# --- acting ---------------------------------------------------------------------------------------


def acted_per_s(lanes: int, device: torch.device, seconds: float) -> tuple[float, float]:
    """(lanes a second, ms a batch) of central inference: newest frames there, stacks rolled
    there, actions back.
    """
    network = QNetwork(NetworkConfig(), ACTIONS).to(device)
    frame_EHW = torch.zeros(
        lanes, *acting.FRAME, dtype=torch.uint8, pin_memory=device.type == "cuda"
    )
    stack_ESHW = torch.zeros(lanes, work.STACK, *acting.FRAME, dtype=torch.uint8, device=device)

    @torch.inference_mode()
    def act() -> np.ndarray:
        nonlocal stack_ESHW
        newest_EHW = frame_EHW.to(device, non_blocking=True)
        stack_ESHW = torch.cat([stack_ESHW[:, 1:], newest_EHW[:, None]], dim=1)
        q_EA = network(stack_ESHW)
        return torch.stack([q_EA.argmax(dim=1).float(), q_EA.amax(dim=1)]).cpu().numpy()

    for _ in range(3):
        act()
    calls, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        act()
        calls += 1
    wall = time.perf_counter() - start
    return calls * lanes / wall, 1e3 * wall / calls


# --- the tables -----------------------------------------------------------------------------------


class Table:
    """Rates of what works; what does not is named."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, ...]] = []
        self.result: dict[str, Any] = {}

    def add(
        self, size: int, precision: str, ways: dict[tuple[str, str], Callable[[], float]]
    ) -> None:
        for (way, source), measure in ways.items():
            try:
                rate = measure()
            except (
                Exception
            ) as error:  # an experiment that this PyTorch or this GPU cannot do costs one row
                said = (str(error).strip().splitlines() or [type(error).__name__])[0]
                found = ("failed", said[:90])
            else:
                found = (f"{rate:,.0f}", f"{rate / size:,.1f}")
                name = f"{source} {size} {precision} {way} per s"
                self.result[name.replace(",", "").replace(" ", "_")] = rate
            self.rows.append((f"{size}", precision, way, source, *found))
            print(self.rows[-1], flush=True)


def in_process(
    size: int, precision: str, replay: genray_shard.Replay, device: torch.device, seconds: float
) -> dict[tuple[str, str], Callable[[], float]]:
    """(learner, where batches come from) -> what measures it."""

    def learner() -> Learner:
        return learner_of(size, precision, device)

    def source(frames_on: str) -> Source:
        return InProcess(replay, size, device, frames_on)

    still = source("device").draw()
    ways = {
        ("eager", "update alone"): lambda: trained_per_s(learner(), Still(still), seconds),
        ("eager", "frames on host"): lambda: trained_per_s(learner(), source("host"), seconds),
        ("eager", "frames on device"): lambda: trained_per_s(learner(), source("device"), seconds),
    }
    if device.type == "cuda":
        ways |= {
            ("compiled", "update alone"): lambda: trained_per_s(
                compiled(learner()), Still(still), seconds
            ),
            ("compiled", "frames on device"): lambda: trained_per_s(
                compiled(learner()), source("device"), seconds
            ),
            ("graph", "update alone"): lambda: graph_per_s(learner(), still, seconds),
        }
    return ways


def over_ray(
    size: int, precision: str, shard: ray.actor.ActorHandle, device: torch.device, seconds: float
) -> dict[tuple[str, str], Callable[[], float]]:
    def rate(frames_on: str) -> float:
        return trained_per_s(
            learner_of(size, precision, device), OverRay(shard, size, device, frames_on), seconds
        )

    return {
        ("eager", f"over Ray, {where}"): lambda where=where: rate(where)
        for where in ("host", "device")
    }


def learn_table(
    sizes: list[int], precisions: list[str], device: torch.device, seconds: float
) -> Table:
    table, replay, steps = Table(), genray_shard.Replay(), work.played_steps()
    for index in range(work.CAPACITY // work.CHUNK + 2):
        replay.add(steps[index % work.CHUNKS])
    for size in sizes:
        for precision in precisions:
            table.add(size, precision, in_process(size, precision, replay, device, seconds))
    with ray_session():
        shard = filled_actor(replay)
        table.add(
            sizes[0], precisions[-1], over_ray(sizes[0], precisions[-1], shard, device, seconds)
        )
    return table


def act_table(
    lanes: list[int], device: torch.device, seconds: float
) -> tuple[list[tuple[str, ...]], dict[str, float]]:
    play_s, network_s = acting.playing(8, seconds)
    rows = [
        ("a core that plays and acts, 8 lanes", f"{1 / (play_s + network_s):,.0f}", ""),
        ("a core that only plays", f"{1 / play_s:,.0f}", ""),
    ]
    result = {
        "local_steps_per_core_s": 1 / (play_s + network_s),
        "playing_steps_per_core_s": 1 / play_s,
    }
    for count in lanes:
        rate, ms = acted_per_s(count, device, seconds)
        rows.append((f"central, {count} lanes a batch", f"{rate:,.0f}", f"{ms:.2f}"))
        result |= {f"central_{count}_lanes_per_s": rate, f"central_{count}_ms": ms}
    return rows, result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--threads", type=int, default=0, help="of PyTorch; 0: its own choice")
    parser.add_argument("--quick", action="store_true", help="one small size, short stretches")
    parser.add_argument("--seconds", type=float, default=6.0, help="of each row")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[512, 2048, 8192])
    arguments = parser.parse_args()
    gpu = cuda_trial() if arguments.device == "cuda" else "no GPU"
    if gpu is None:
        print(
            "error: no usable GPU here: see `genray doctor`, or run it with --device cpu --quick",
            file=sys.stderr,
        )
        raise SystemExit(2)
    device = torch.device(arguments.device)
    sizes, lanes, seconds = arguments.batch_sizes, [64, 256, 1024], arguments.seconds
    if arguments.quick:
        sizes, lanes, seconds = [32], [16], 0.6
    keep_freed_memory()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    precisions = (
        ["float32", "bfloat16"]
        if has_bfloat16(device.type) or device.type == "cuda"
        else ["float32"]
    )
    machine = f"{gpu}; {describe_machine()}"
    table = learn_table(sizes, precisions, device, seconds)
    print_table(
        f"Transitions trained a second, feed included where there is one; goal {GOAL:,} on an "
        f"H200; {machine}",
        ("batch", "precision", "learner", "batches from", "transitions/s", "updates/s"),
        table.rows,
    )
    torch.set_num_threads(1)
    rows, acted = act_table(lanes, device, min(seconds, 2.0))
    print_table("Agent steps a second", ("who", "steps/s", "ms a batch"), rows)
    fed = [rate for name, rate in table.result.items() if name.startswith("frames_on")]
    failed = [" ".join(row[:4]) for row in table.rows if row[4] == "failed"]
    summary = {
        "gpu": gpu,
        "best_fed_per_s": max(fed, default=None),
        "goal_per_s": GOAL,
        "failed": failed,
    }
    last_json_line(summary | table.result | acted)


if __name__ == "__main__":
    main()
