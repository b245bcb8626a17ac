"""Predicts the rates of a cluster of a given shape from costs that are measured on one machine.
Start it with `python -m tests.bench.scale_model`.

The output has three parts. *Costs*: CPU seconds and bytes of a step, a chunk, a batch and an
update, measured in one process at a time. *Check*: the rates of real runs of 1, 2 and 4 collectors
on this machine, and the predicted rates. *Table*: predictions for 16, 360 and 4,000 collectors,
with the first bottleneck. `--update-ms` replaces the learner's update time, e.g. by that of a GPU.

The model adds the costs of each process, which has one core. Steps and updates are tied by samples
per insert, s = updates · batch / steps, or are independent. The model ignores waiting (two rounds
and two chunks are in flight, so processes do not wait while none is at its limit), the caches and
the memory bus that the processes of a machine share, and faults. `tests.bench.acting` models
whether collectors should leave the network to one GPU.
"""

import argparse
import os
import time
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from genray.distributed.coordinator import Coordinator, ray_session
from genray.machine import keep_freed_memory
from tests.bench.common import describe_machine, last_json_line, print_table, tree_cpu_s
from tests.bench.scale_costs import Costs, configuration, measure

LINK_BYTES_S = 10e9 / 8  # the network of a node in the table
COLLECTORS_A_NODE = 16
COORDINATOR_CALL_S = 1e-3  # of the driver, for each chunk: a call and its answer


@dataclass(frozen=True)
class Plan:
    """The shape of a cluster and of its run."""

    collectors: int
    shards: int
    learners: int
    games: int  # for each collector
    batch_size: int = 512
    samples_per_insert: float = 0.0  # 0: free
    capacity: int = 2_000_000
    # Cores that all processes share. None: each process has a core, and each shard and learner a
    # node of its own.
    cores: int | None = None


@dataclass(frozen=True)
class Prediction:
    """The rates at which the first part of the cluster reaches its limit."""

    steps_per_s: float
    updates_per_s: float
    shard_bytes_s: float  # in and out of a shard's node
    learner_bytes_s: float
    memory_bytes: float  # of a shard
    bottleneck: str
    limits: dict[str, float]  # agent steps/s at which each part reaches its limit


def predict(plan: Plan, costs: Costs, publish_every: int = 25) -> Prediction:
    """Predict the rates of `plan`, and the part of the cluster that limits them."""
    # Costs of a batch, within a node or between nodes.
    apart = plan.cores is None
    draw_s, take_batch_s = (
        (costs.slice_s, costs.unpack_s) if apart else (costs.draw_s, costs.gather_s)
    )
    # The wall-clock time of an update on two cores.
    learn_s = max(costs.update_s - costs.second_s, costs.second_s) + take_batch_s
    can_update = plan.learners / learn_s
    batch_bytes = plan.batch_size * costs.slice_bytes
    # Weights leave the learner once for each node of collectors; with several learners, one of them
    # sends.
    learner_bytes = (
        batch_bytes
        + costs.weights_bytes * plan.collectors / COLLECTORS_A_NODE / publish_every * plan.learners
    )
    slowest = "the learner"
    if apart and plan.learners * LINK_BYTES_S / learner_bytes < can_update:
        slowest, can_update = "the learner's network", plan.learners * LINK_BYTES_S / learner_bytes
    ratio = plan.samples_per_insert / plan.batch_size  # updates a step
    updates_free = 0.0 if ratio else can_update

    def fits(capacity: float, of_updates: float, a_step: float, an_update: float) -> float:
        """Return the steps per second that use all of `capacity`."""
        return max(0.0, capacity - of_updates * an_update) / (a_step + ratio * an_update)

    # Steps per second at which each part reaches its limit; the smallest one counts.
    limits = {
        "the collectors": plan.collectors / (costs.step_s + costs.ship_s),
        "the shards' processors": fits(
            plan.shards, updates_free, costs.pack_s if apart else costs.take_s, draw_s
        ),
        "the coordinator's calls": 32 * plan.games / COORDINATOR_CALL_S,
    }
    if ratio:
        limits[slowest] = can_update / ratio
    if apart:
        limits["the shards' network"] = fits(
            plan.shards * LINK_BYTES_S, updates_free, costs.step_bytes, batch_bytes
        )
    else:
        everything = (
            costs.step_s
            + costs.ship_s
            + costs.take_s
            + ratio * (draw_s + take_batch_s + costs.update_s)
        )
        limits["this machine's cores"] = (
            (plan.cores or 0) * (1 - costs.idle_s / (plan.cores or 1)) / everything
        )
    bottleneck = min(limits, key=limits.__getitem__)
    steps = limits[bottleneck]
    updates = steps * ratio if ratio else can_update
    return Prediction(
        steps_per_s=steps,
        updates_per_s=updates,
        shard_bytes_s=(steps * costs.step_bytes + updates * batch_bytes) / plan.shards,
        learner_bytes_s=updates * learner_bytes / plan.learners,
        memory_bytes=plan.capacity * costs.transition_bytes / plan.shards,
        bottleneck=bottleneck,
        limits=limits,
    )


def run(plan: Plan, seconds: float) -> tuple[float, float, float]:
    """Run one shard and one learner. Returns (agent steps/s, updates/s, CPU seconds per step)."""
    config = configuration(plan.collectors, plan.games, plan.samples_per_insert, plan.batch_size)
    with ray_session():
        engine = Coordinator(config, learner_threads=1)
        while engine.advance(10**9, seconds=0.5).updates < 20:
            pass
        first = engine.advance(10**9, seconds=4.0)
        start, cpu = time.perf_counter(), tree_cpu_s()
        last = engine.advance(10**9, seconds=seconds)
        wall, cpu = time.perf_counter() - start, tree_cpu_s() - cpu
        engine.close()
    steps = last.steps - first.steps
    return steps / wall, (last.updates - first.updates) / wall, cpu / steps


def check(
    costs: Costs, games: int, batch_size: int, seconds: float
) -> tuple[list[tuple[str, ...]], dict[str, float]]:
    """Compare predictions with real runs. Returns (rows of the table, relative errors by name)."""
    rows, found = [], {}
    cores = len(os.sched_getaffinity(0))
    for collectors in (1, 2, 4):
        plan = Plan(collectors, 1, 1, games, batch_size, samples_per_insert=2.0, cores=cores)
        said = predict(plan, costs)
        ratio = plan.samples_per_insert / batch_size
        said_cpu = costs.step_s + costs.ship_s + costs.take_s
        said_cpu += ratio * (costs.draw_s + costs.gather_s + costs.update_s)
        steps, updates, cpu = run(plan, seconds)
        cpu -= costs.idle_s / steps
        error, cpu_error = said.steps_per_s / steps - 1, said_cpu / cpu - 1
        rows.append(
            (
                f"{collectors}",
                f"{said.steps_per_s:,.0f}",
                f"{steps:,.0f}",
                f"{error:+.0%}",
                said.bottleneck,
                f"{updates:.1f}",
                f"{1e3 * said_cpu:.3f}",
                f"{1e3 * cpu:.3f}",
                f"{cpu_error:+.0%}",
            )
        )
        found |= {f"steps_error_{collectors}": error, f"cpu_error_{collectors}": cpu_error}
    return rows, found


def _for_json(title: str, costs: Costs) -> dict[str, Any]:
    """Return the costs in microseconds, because the JSON line has four decimals."""
    return {
        f"{title}_{name.removesuffix('_s')}_us" if name.endswith("_s") else f"{title}_{name}":
            1e6 * value if name.endswith("_s") else value
        for name, value in asdict(costs).items()
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--games", type=int, default=8, help="games of each collector")
    parser.add_argument("--seconds", type=float, default=3.0, help="seconds to measure each cost")
    parser.add_argument(
        "--run-seconds", type=float, default=15.0, help="seconds of each real run; 0: no runs"
    )
    parser.add_argument(
        "--update-ms", type=float, help="milliseconds of an update of 512 samples, in the table"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    machine = describe_machine()
    small = measure(arguments.games, 32, arguments.seconds)
    result: dict[str, Any] = _for_json("cost", small)
    print_table(
        f"Costs, batch 32 on one node, 512 between nodes; {machine}",
        ("cost", "value"),
        [
            (name, f"{1e6 * value:,.1f} µs" if name.endswith("_s") else f"{value:,.0f} B")
            for name, value in asdict(small).items()
        ],
    )
    if arguments.run_seconds:
        rows, errors = check(small, arguments.games, 32, arguments.run_seconds)
        print_table(
            "Predictions and real runs on this machine: batch 32, 2 samples per insert",
            (
                "collectors",
                "steps/s predicted",
                "measured",
                "error",
                "bottleneck",
                "updates/s",
                "CPU-ms per step predicted",
                "measured",
                "error",
            ),
            rows,
        )
        result |= errors
    large = measure(arguments.games, 512, arguments.seconds)
    if arguments.update_ms:
        large = replace(large, update_s=arguments.update_ms / 1e3, second_s=0.0)
    result |= _for_json("cost_512", large)
    rows = []
    for collectors, shards, learners in ((16, 1, 1), (360, 4, 1), (4_000, 32, 8)):
        for samples in (0.0, 8.0):
            one = predict(
                Plan(collectors, shards, learners, arguments.games, samples_per_insert=samples),
                large,
            )
            rows.append(
                (
                    f"{collectors:,}",
                    shards,
                    learners,
                    f"{samples:g}" if samples else "free",
                    f"{one.steps_per_s:,.0f}",
                    f"{one.updates_per_s:,.1f}",
                    f"{one.shard_bytes_s / 1e6:,.0f}",
                    f"{one.learner_bytes_s / 1e6:,.0f}",
                    f"{one.memory_bytes / 1e9:,.2f}",
                    one.bottleneck,
                )
            )
            name = f"{collectors}_{'free' if not samples else 'tied'}"
            result |= {f"steps_{name}": one.steps_per_s, f"updates_{name}": one.updates_per_s,
                       f"bottleneck_{name}": one.bottleneck}  # fmt: skip
    print_table(
        f"Predicted: batch 512, n = 3, {arguments.games} games a collector, 2 M transitions, LZ4, "
        "links of 10 Gbit/s, "
        f"an update in {1e3 * large.update_s:.0f} ms"
        + (" (given)" if arguments.update_ms else " (this machine's CPU)"),
        (
            "collectors",
            "shards",
            "learners",
            "samples an insert",
            "agent steps/s",
            "updates/s",
            "MB/s a shard",
            "MB/s a learner",
            "GB a shard",
            "first bottleneck",
        ),
        rows,
    )
    last_json_line(result)


if __name__ == "__main__":
    main()
