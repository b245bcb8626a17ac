"""The learner with batches from somewhere, in the order of `LearnerActor`: what `bench_gpu`
measures.
"""

import time
from collections.abc import Iterator
from statistics import median
from typing import Any, Protocol

import numpy as np
import ray
import torch

from genray.distributed.feed import Feed
from genray.rl.device_frames import DeviceFrames, empty_batch
from genray.rl.learner import Learner, LearnerConfig
from genray.rl.limiter import SamplesPerInsert
from genray.rl.networks import NetworkConfig, QNetwork
from genray.rl.transfer import AnySample, DeviceSample
from tests.bench.rivals.replays import genray_shard, work

ACTIONS, BETA = 18, 0.4


class Source(Protocol):
    """Where batches come from, and where their priorities go."""

    def draw(self) -> AnySample: ...

    def send_back(self, batch: AnySample, delta_B: np.ndarray) -> None: ...


class Still:
    """The same batch for ever: the update alone."""

    def __init__(self, batch: AnySample):
        self._batch = batch

    def draw(self) -> AnySample:
        return self._batch

    def send_back(self, batch: AnySample, delta_B: np.ndarray) -> None:
        pass


class InProcess:
    """A shard in this process."""

    def __init__(
        self, replay: genray_shard.Replay, batch_size: int, device: torch.device, frames_on: str
    ):
        self._shard, self._size, self._device, self._frames_on = (
            replay.shard,
            batch_size,
            device,
            frames_on,
        )
        self._copy = (
            DeviceFrames(replay.layout, replay.shard.frame_LCP, device)
            if frames_on == "device"
            else None
        )

    def draw(self) -> AnySample:
        batch = empty_batch(self._size, self._shard.layout, self._device, self._frames_on)
        if self._copy and isinstance(batch, DeviceSample):
            self._copy.gather(self._shard.sample_places(self._size), batch)
            return batch
        assert not isinstance(batch, DeviceSample)
        return self._shard.sample(self._size, batch)

    def send_back(self, batch: AnySample, delta_B: np.ndarray) -> None:
        self._shard.update(batch.key_B, delta_B)


class OverRay:
    """A shard in a process of its own, by the learner's feed."""

    def __init__(
        self, shard: ray.actor.ActorHandle, batch_size: int, device: torch.device, frames_on: str
    ):
        limiter = SamplesPerInsert(ratio=0.0, min_size=1, tolerance=0.0)
        rng = np.random.default_rng(0)
        self._feed = Feed([shard], limiter, batch_size, rng, 1, device=device, frames_on=frames_on)
        self._feed.refresh()
        self._batches = iter(self._next())
        self._last: dict[int, Any] = {}

    def _next(self) -> Iterator[Any]:
        while True:
            yield from self._feed.next_round() or []

    def draw(self) -> AnySample:
        batch = next(self._batches)
        self._last[id(batch.sample)] = batch
        return batch.sample

    def send_back(self, batch: AnySample, delta_B: np.ndarray) -> None:
        self._feed.send_back(self._last.pop(id(batch)), delta_B)


def learner_of(batch_size: int, precision: Any, device: torch.device) -> Learner:
    torch.manual_seed(0)
    config = LearnerConfig(batch_size=batch_size, precision=precision)
    online, target = (QNetwork(NetworkConfig(), ACTIONS) for _ in range(2))
    return Learner(config, online, target, str(device))


def trained_per_s(learner: Learner, source: Source, seconds: float) -> float:
    """Transitions a second, in the order of `LearnerActor`: the next batch is fetched while the
    device works.
    """

    def stretch(least: int, seconds: float) -> float:
        done, transitions, start = 0, 0, time.perf_counter()
        following = source.draw()
        while done < least or time.perf_counter() - start < seconds:
            batch = following
            learner.begin(batch, work.CAPACITY, BETA)
            following = source.draw()
            learner.expect(following)
            source.send_back(batch, learner.finish().delta_B)
            done += 1
            transitions += batch.size
        return transitions / (time.perf_counter() - start)

    stretch(5, 0.0)  # compiles, chooses algorithms, pins
    return median(stretch(3, seconds / 3) for _ in range(3))
