"""Measures what a step, a chunk, a batch and an update cost, for the model of scale."""

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
import torch

from genray.distributed.coordinator import ray_session
from genray.rl.chunk import Chunk
from genray.rl.collect import CollectConfig, Collector
from genray.rl.config import DQNConfig, RunConfig
from genray.rl.env import AtariLanes, EnvConfig
from genray.rl.exploration import ExploreConfig
from genray.rl.learner import Learner, LearnerConfig
from genray.rl.networks import NetworkConfig, QNetwork
from genray.rl.replay import ReplayConfig
from tests.bench.common import tree_cpu_s
from tests.bench.rivals.bare_update import batch_of
from tests.bench.rivals.feed import feed_of, filled_actor
from tests.bench.rivals.replays import genray_shard, work

GAME, N_STEP = "road_runner", 3


@dataclass(frozen=True)
class Costs:
    """CPU seconds and bytes for 84x84 frames and n = 3."""

    step_s: float  # a collector's agent step: environment, network, its part of a chunk
    ship_s: float  # passing a step's part of the chunk to Ray
    take_s: float  # storing a step in a shard
    pack_s: float  # storing and compressing a step in a shard
    # drawing a batch in a shard (with Ray), if the learner reads the frames in the shard's memory
    draw_s: float
    gather_s: float  # reading such a batch in the learner
    slice_s: float  # drawing a batch in a shard and packing it as LZ4 slices
    unpack_s: float  # unpacking such a batch in the learner
    update_s: float  # one update of the learner
    second_s: float  # the part of an update that the second stream computes at the same time
    idle_s: float  # CPU seconds per second of an idle Ray
    step_bytes: float
    slice_bytes: float  # of one sampled transition
    transition_bytes: float  # in memory, LZ4
    weights_bytes: float


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
    """Measure each cost alone, in this process and in a shard's process."""
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
        # Each update runs w and w⁻ over s'.
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
    """Return the CPU seconds per step of (sending a chunk, storing it in a shard that is full)."""
    head = (work.CAPACITY // work.CHUNK + 2) * chunk.num_rows
    start, mine, everyone = time.perf_counter(), time.process_time(), tree_cpu_s()
    for index in range(count):
        ray.get(
            shard.add.remote(Chunk(**{**vars(chunk), "first_row": head + index * chunk.num_rows}))
        )
    sent = time.process_time() - mine
    taken = tree_cpu_s() - everyone - sent - idle_s * (time.perf_counter() - start)
    return sent / (count * work.CHUNK), max(0.0, taken) / (count * work.CHUNK)
