"""The learner's feed over Ray on one node, beside the same draws in one process. `python -m
tests.bench.rivals.feed`

One replay shard is an actor, this process the learner: it takes batches with both observations
put together, and sends priorities back, as fast as it can. In turns, by the wall clock, because
two processes work at once: the shard in this process; one shard's frames by shared memory; sent
as slices, as if from another node; several batches a call of each.
"""

import argparse
import time
from statistics import median

import numpy as np
import ray
import torch

from genray.distributed.coordinator import ray_session
from genray.distributed.feed import Feed, batches_per_round
from genray.distributed.messages import Request
from genray.distributed.replay_shard import ReplayShardActor
from genray.machine import keep_freed_memory
from genray.rl.chunk import Chunk
from genray.rl.limiter import SamplesPerInsert
from tests.bench.common import last_json_line, tree_cpu_s
from tests.bench.rivals.replays import genray_shard, work


def filled_actor(replay: genray_shard.Replay) -> ray.actor.ActorHandle:
    """A shard of the same contents as `replay`."""
    actor = ray.remote(ReplayShardActor).options(num_cpus=0, max_concurrency=1000)
    shard = actor.remote(replay.shard.config, replay.layout, (0,))
    fill(shard, replay)
    return shard


def fill(shard: ray.actor.ActorHandle, replay: genray_shard.Replay) -> None:
    chunks = list(replay._chunks.values())
    ray.get(shard.wait_for.remote(Request(insert_limit=float("inf")), 0, 0.0))
    for index in range(work.CAPACITY // work.CHUNK + 2):
        chunk = chunks[index % len(chunks)]
        ray.get(shard.add.remote(Chunk(**{**vars(chunk), "first_row": index * chunk.num_rows})))


def feed_of(
    shard: ray.actor.ActorHandle, batch_size: int, round_batches: int, shared: bool
) -> Feed:
    limiter = SamplesPerInsert(ratio=0.0, min_size=1, tolerance=0.0)
    feed = Feed([shard], limiter, batch_size, np.random.default_rng(0), round_batches)
    feed.refresh()
    if not shared:
        feed._records[0].frames = None
    elif feed._records[0].frames is None:
        raise RuntimeError("the shard's memory cannot be read from here")
    return feed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch-size", type=int, default=512)
    parser.add_argument("--round-batches", type=int, nargs="+", default=None, help="batches a call")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measured stretch")
    parser.add_argument("--turns", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()
    batch_size, rng = arguments.batch_size, np.random.default_rng(0)
    replay, steps = genray_shard.Replay(), work.played_steps()
    for index in range(work.CAPACITY // work.CHUNK + 2):
        replay.add(steps[index % work.CHUNKS])
    with ray_session():
        shard = filled_actor(replay)
        feeds = {
            f"{'shared' if shared else 'store'}_{many}": feed_of(shard, batch_size, many, shared)
            for many in arguments.round_batches or (batches_per_round(batch_size),)
            for shared in (True, False)
        }

        def stretch(name: str) -> tuple[float, float]:
            """(batches a second, CPU-ms a batch)."""
            done, start, cpu = 0, time.perf_counter(), tree_cpu_s()
            while (wall := time.perf_counter() - start) < arguments.seconds:
                if name == "in_process":
                    replay.draw(batch_size)
                    done += 1
                    continue
                for batch in feeds[name].next_round() or []:
                    feeds[name].send_back(batch, rng.random(batch.sample.size).astype(np.float32))
                    done += 1
            return done / wall, 1e3 * (tree_cpu_s() - cpu) / done

        names = ["in_process", *feeds]
        for name in names:
            stretch(name)  # compiles, attaches, touches
        found = {name: [] for name in names}  # type: dict[str, list[tuple[float, float]]]
        for _ in range(arguments.turns):
            for name in names:
                found[name].append(stretch(name))
    rates = {name: median(rate for rate, _ in pairs) for name, pairs in found.items()}
    cpu_ms = {f"{name}_cpu_ms": median(ms for _, ms in pairs) for name, pairs in found.items()}
    last_json_line({"batch_size": batch_size} | rates | cpu_ms)


if __name__ == "__main__":
    main()
