"""What a cluster of a given shape can do, from costs measured on one machine. `python -m
tests.bench.scale_model`

Three parts. *Costs*: CPU seconds of a step, a chunk, a batch and an update, and their bytes,
measured here a process at a time. *Check*: real runs of 1, 2 and 4 collectors on this machine
beside what the model says of them. *Table*: 16, 360 and 4,000 collectors, with what gives out
first. `--update-ms` puts another learner's time in (a GPU's) in place of this machine's.

The model adds up. A process has one core; what a second of it holds is what it can do. Steps and
updates are tied by samples per insert, s = updates · batch / steps, or run free of each other.
Left out: waiting (two rounds and two chunks are in flight, which hide it while no process is
full), the caches and the memory bus that processes of a machine share, faults. Whether
collectors should leave the network to one GPU is a model of its own: `tests.bench.acting`.
"""

import argparse
import os
import time
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import ray
import torch

from genray.distributed.coordinator import Coordinator, ray_session
from genray.machine import keep_freed_memory
from genray.rl.chunk import Chunk
from genray.rl.collect import CollectConfig, Collector
from genray.rl.config import DQNConfig, RunConfig
from genray.rl.env import AtariLanes, EnvConfig
from genray.rl.exploration import ExploreConfig
from genray.rl.learner import Learner, LearnerConfig
from genray.rl.networks import NetworkConfig, QNetwork
from genray.rl.replay import ReplayConfig
from tests.bench.common import describe_machine, last_json_line, print_table, tree_cpu_s
from tests.bench.rivals.bare_update import batch_of
from tests.bench.rivals.feed import feed_of, filled_actor
from tests.bench.rivals.replays import genray_shard, work

GAME, N_STEP = "road_runner", 3
LINK_BYTES_S = 10e9 / 8  # the network of a node in the table
COLLECTORS_A_NODE = 16
COORDINATOR_CALL_S = 1e-3  # of the driver, for each chunk: a call and its answer


@dataclass(frozen=True)
class Costs:
    """CPU seconds and bytes, of 84x84 frames, n = 3."""

    step_s: float  # a collector's agent step: environment, network, its part of a chunk
    ship_s: float  # … handing a step's part of the chunk to Ray
    take_s: float  # a shard's, taking that in
    pack_s: float  # … and compressing it
    # a shard's (and Ray's), drawing a batch whose frames the learner reads in its memory
    draw_s: float
    gather_s: float  # the learner's, for such a batch
    slice_s: float  # a shard's, for a batch that travels as LZ4 slices
    unpack_s: float  # the learner's, for such a batch
    update_s: float  # the learner's update of a batch
    second_s: float  # … the part of it that its second stream makes at the same time
    idle_s: float  # what Ray needs a second when nothing happens
    step_bytes: float
    slice_bytes: float  # of a sampled transition
    transition_bytes: float  # in memory, LZ4
    weights_bytes: float


@dataclass(frozen=True)
class Plan:
    collectors: int
    shards: int
    learners: int
    games: int  # of a collector
    batch_size: int = 512
    samples_per_insert: float = 0.0  # 0: free
    capacity: int = 2_000_000
    # shared by all processes; None: each has a core, shards and learners nodes of their own
    cores: int | None = None


@dataclass(frozen=True)
class Prediction:
    steps_per_s: float
    updates_per_s: float
    shard_bytes_s: float  # in and out of a shard's node
    learner_bytes_s: float
    memory_bytes: float  # of a shard
    bottleneck: str
    limits: dict[str, float]  # agent steps a second at which each gives out


def predict(plan: Plan, costs: Costs, publish_every: int = 25) -> Prediction:
    """What gives out first, and the rates then."""
    apart = plan.cores is None
    draw_s, take_batch_s = (
        (costs.slice_s, costs.unpack_s) if apart else (costs.draw_s, costs.gather_s)
    )
    # by the clock, with two cores
    learn_s = max(costs.update_s - costs.second_s, costs.second_s) + take_batch_s
    can_update = plan.learners / learn_s
    batch_bytes = plan.batch_size * costs.slice_bytes
    # Weights leave the learner once for each node of collectors; with several learners, one of them
    # sends.
    learner_bytes = (
        batch_bytes
        + costs.weights_bytes * plan.collectors / COLLECTORS_A_NODE / publish_every * plan.learners
    )
    teacher = "the learner"
    if apart and plan.learners * LINK_BYTES_S / learner_bytes < can_update:
        teacher, can_update = "the learner's network", plan.learners * LINK_BYTES_S / learner_bytes
    ratio = plan.samples_per_insert / plan.batch_size  # updates a step
    updates_free = 0.0 if ratio else can_update

    def fits(capacity: float, of_updates: float, a_step: float, an_update: float) -> float:
        """Steps a second that use up `capacity`."""
        return max(0.0, capacity - of_updates * an_update) / (a_step + ratio * an_update)

    limits = {
        "the collectors": plan.collectors / (costs.step_s + costs.ship_s),
        "the shards' processors": fits(
            plan.shards, updates_free, costs.pack_s if apart else costs.take_s, draw_s
        ),
        "the coordinator's calls": 32 * plan.games / COORDINATOR_CALL_S,
    }
    if ratio:
        limits[teacher] = can_update / ratio
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


# --- costs ----------------------------------------------------------------------------------------


def cpu_s_a_call(work_: Any, seconds: float) -> float:
    work_()
    calls, start = 0, time.process_time()
    while (spent := time.process_time() - start) < seconds:
        work_()
        calls += 1
    return spent / calls


def configuration(
    collectors: int, games: int, samples_per_insert: float, batch_size: int
) -> DQNConfig:
    return DQNConfig(
        env=EnvConfig(game=GAME),
        network=NetworkConfig(),
        replay=ReplayConfig(
            capacity=work.CAPACITY, min_size=2_000, samples_per_insert=samples_per_insert
        ),
        learner=LearnerConfig(batch_size=batch_size),
        collect=CollectConfig(collectors=collectors, envs_per_collector=games, n_step=N_STEP),
        run=RunConfig(device="cpu"),
    )


def measure(games: int, batch_size: int, seconds: float) -> Costs:
    """Each cost alone, in this process and a shard's."""
    config = configuration(1, games, 0, batch_size)
    rows = config.collect.chunk_rows
    network = QNetwork(config.network, 18)
    lanes = AtariLanes(config.env, games, 1)
    collector = Collector(lanes, network, config.env, config.collect, ExploreConfig())
    step_s = cpu_s_a_call(collector.collect, seconds) / (rows * games)
    chunk, _ = collector.collect()
    lanes.close()
    batch = batch_of(batch_size)
    learner = Learner(config.learner, network, QNetwork(config.network, 18))
    update_s = cpu_s_a_call(lambda: learner.update(batch, 50_000, 0.4), seconds)
    following = torch.from_numpy(batch.next_obs_BSHW), torch.from_numpy(batch.next_past_BK)
    with torch.no_grad():
        # w's and w⁻'s over s'
        second_s = 2 * cpu_s_a_call(lambda: learner.target(*following), seconds)

    packed, raw = genray_shard.Replay("lz4"), genray_shard.Replay()
    steps = work.played_steps()
    for index in range(work.CAPACITY // work.CHUNK + 2):
        for replay in (packed, raw):
            replay.add(steps[index % work.CHUNKS])
    slice_bytes = packed.shard.sample_slices(4096).nbytes / 4096
    with ray_session():
        time.sleep(3)
        before = tree_cpu_s()
        time.sleep(4)
        idle_s = (tree_cpu_s() - before) / 4
        taken, of_batch = {}, {}
        for name, replay, shared in (("near", raw, True), ("far", packed, False)):
            shard = filled_actor(replay)
            ship_s, taken[name] = _chunk_costs(shard, next(iter(replay._chunks.values())), idle_s)
            feed = feed_of(shard, batch_size, max(1, 512 // batch_size), shared)
            rng = np.random.default_rng(0)
            for counted in (False, True):
                done, start = 0, time.perf_counter()
                mine, all_ = time.process_time(), tree_cpu_s()
                while time.perf_counter() - start < seconds:
                    for one in feed.next_round() or []:
                        feed.send_back(one, rng.random(one.sample.size).astype(np.float32))
                        done += 1
                if counted:
                    own = time.process_time() - mine
                    others = tree_cpu_s() - all_ - own - idle_s * (time.perf_counter() - start)
                    of_batch[name] = (max(0.0, others) / done, own / done)
            ray.kill(shard)
    return Costs(
        step_s=step_s,
        ship_s=ship_s,
        take_s=taken["near"],
        pack_s=taken["far"],
        draw_s=of_batch["near"][0],
        gather_s=of_batch["near"][1],
        slice_s=of_batch["far"][0],
        unpack_s=of_batch["far"][1],
        update_s=update_s,
        second_s=second_s,
        idle_s=idle_s,
        step_bytes=chunk.nbytes / (rows * games),
        slice_bytes=slice_bytes,
        transition_bytes=packed.nbytes() / work.CAPACITY,
        weights_bytes=sum(tensor.nbytes for tensor in network.state_dict().values()),
    )


def _chunk_costs(
    shard: ray.actor.ActorHandle, chunk: Chunk, idle_s: float, count: int = 40
) -> tuple[float, float]:
    """CPU seconds a step of (sending, taking in) a chunk; the shard is full before."""
    head = (work.CAPACITY // work.CHUNK + 2) * chunk.num_rows
    start, mine, everyone = time.perf_counter(), time.process_time(), tree_cpu_s()
    for index in range(count):
        ray.get(
            shard.add.remote(Chunk(**{**vars(chunk), "first_row": head + index * chunk.num_rows}))
        )
    sent = time.process_time() - mine
    taken = tree_cpu_s() - everyone - sent - idle_s * (time.perf_counter() - start)
    return sent / (count * work.CHUNK), max(0.0, taken) / (count * work.CHUNK)


# --- the check ------------------------------------------------------------------------------------


def run(plan: Plan, seconds: float) -> tuple[float, float, float]:
    """A real run of one shard and one learner: (agent steps a second, updates a second, CPU
    seconds a step).
    """
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
    """Rows of the table, and the errors."""
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
    """In microseconds: the JSON line has four decimals."""
    return {
        f"{title}_{name.removesuffix('_s')}_us" if name.endswith("_s") else f"{title}_{name}":
            1e6 * value if name.endswith("_s") else value
        for name, value in asdict(costs).items()
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--games", type=int, default=8, help="of each collector")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each cost")
    parser.add_argument("--run-seconds", type=float, default=15.0, help="of each real run; 0: none")
    parser.add_argument(
        "--update-ms", type=float, default=None, help="the learner's update of 512 in the table"
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
            "The model beside real runs here: batch 32, 2 samples an insert",
            (
                "collectors",
                "steps/s said",
                "measured",
                "error",
                "what gives out",
                "updates/s",
                "CPU-ms a step said",
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
