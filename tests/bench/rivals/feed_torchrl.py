"""torchrl's replay as a Ray actor, the rival of genray's feed. `python -m
tests.bench.rivals.feed_torchrl`

RayReplayBuffer as its documentation makes one, prioritized, filled as in `replays/torchrl.py`. A
draw is a call for a batch and one for its new priorities, which go back as indices and values:
its own `update_tensordict_priority` would send all frames back. It offers neither several
batches a call nor draws in flight.
"""

import argparse
import time
from functools import partial
from statistics import median

import torch
from tensordict import TensorDict
from torchrl.data import LazyTensorStorage, RayReplayBuffer, TensorDictReplayBuffer
from torchrl.data.replay_buffers.samplers import PrioritizedSampler

from genray.distributed.session import ray_session
from tests.bench.common import last_json_line
from tests.bench.rivals.replays import work


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch-size", type=int, default=512)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measured stretch")
    parser.add_argument("--turns", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    generator = torch.Generator().manual_seed(0)
    with ray_session():
        buffer = RayReplayBuffer(
            # its prioritized subclass cannot be made remotely (0.14)
            replay_buffer_cls=TensorDictReplayBuffer,
            remote_config={"num_cpus": 0},
            storage=partial(LazyTensorStorage, work.CAPACITY),
            sampler=partial(
                PrioritizedSampler, work.CAPACITY, work.ALPHA, work.BETA, eps=work.EPSILON
            ),
            batch_size=arguments.batch_size,
        )
        chunks = work.played_steps()
        for index in range(work.CAPACITY // work.CHUNK + 2):
            steps = chunks[index % work.CHUNKS]
            done_T1 = torch.from_numpy(steps.done_T)[:, None]
            after = {
                "reward": torch.from_numpy(steps.reward_T)[:, None],
                "done": done_T1,
                "terminated": done_T1,
            }
            fields = {
                "pixels": torch.from_numpy(steps.obs_TSHW),
                "action": torch.from_numpy(steps.action_T),
                "next": {"pixels": torch.from_numpy(steps.next_obs_TSHW), **after},
            }
            buffer.extend(TensorDict(fields, batch_size=[len(steps.done_T)]))

        def stretch() -> float:
            """Batches a second."""
            done, start = 0, time.perf_counter()
            while (wall := time.perf_counter() - start) < arguments.seconds:
                batch = buffer.sample()
                buffer.update_priority(
                    batch["index"], torch.rand(arguments.batch_size, generator=generator)
                )
                done += 1
            return done / wall

        stretch()
        rates = [stretch() for _ in range(arguments.turns)]
        buffer.close()
    last_json_line({"batch_size": arguments.batch_size, "per_s": median(rates)})


if __name__ == "__main__":
    main()
