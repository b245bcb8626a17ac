"""Reverb: a server of compressed chunks; a client in the same process.
https://github.com/google-deepmind/reverb
"""

import numpy as np
import reverb

from tests.bench.rivals.replays import work


class Replay:
    def __init__(self) -> None:
        self._rng = np.random.default_rng(0)
        self._server = reverb.Server(
            tables=[
                reverb.Table(
                    name="replay",
                    sampler=reverb.selectors.Prioritized(work.ALPHA),
                    remover=reverb.selectors.Fifo(),
                    max_size=work.CAPACITY,
                    rate_limiter=reverb.rate_limiters.MinSize(1),
                )
            ]
        )
        self._client = reverb.Client(f"localhost:{self._server.port}")

    def add(self, steps: work.Steps) -> None:
        with self._client.trajectory_writer(num_keep_alive_refs=work.STACK + 1) as writer:
            for t in range(len(steps.done_T)):
                writer.append(
                    {
                        "frame": steps.frame_THW[t],
                        "action": np.uint8(steps.action_T[t]),
                        "reward": steps.reward_T[t],
                    }
                )
                if t >= work.STACK:
                    history = writer.history
                    writer.create_item(
                        "replay",
                        priority=1.0,
                        trajectory={
                            "obs": history["frame"][-work.STACK - 1 : -1],
                            "next_obs": history["frame"][-work.STACK :],
                            "action": history["action"][-2:-1],
                            "reward": history["reward"][-2:-1],
                        },
                    )
            writer.flush()

    def draw(self, batch_size: int) -> None:
        samples = [sample[0] for sample in self._client.sample("replay", batch_size)]
        for part in range(4):
            np.stack([sample.data[part] for sample in samples])
        priority_B = self._rng.random(batch_size)
        self._client.mutate_priorities(
            "replay", {s.info.key: float(p) for s, p in zip(samples, priority_B)}
        )

    def nbytes(self) -> int:
        return 0  # it does not say
