"""Sends the current epochs from the coordinator to all shards, repeatedly, because a restarted
shard knows none.
"""

import time
from collections.abc import Sequence

import ray
from ray.exceptions import RayError, RayTaskError

from genray.distributed.fence import Epochs

PERIOD_S = 0.5


class EpochBroadcast:
    """Sends every shard the epochs: at once when they change, otherwise every PERIOD_S.

    `tick` never waits for an answer.

    Args:
        shards: handles of the ReplayShardActors.
    """

    def __init__(self, shards: Sequence[ray.actor.ActorHandle]):
        self._shards = shards
        self._calls: list[ray.ObjectRef | None] = [None] * len(shards)
        self._told: list[Epochs | None] = [None] * len(shards)
        self._due = [0.0] * len(shards)
        self._refused: list[dict[int, int]] = [{} for _ in shards]

    @property
    def refused(self) -> int:
        """Writes of stale incarnations that the shards refused, according to their last answers."""
        return sum(sum(lives.values()) for lives in self._refused)

    def tick(self, epochs: Epochs) -> None:
        """Take the shards' answers and send `epochs` to each shard that is due."""
        now = time.monotonic()
        for index, call in enumerate(self._calls):
            if call is not None and ray.wait([call], timeout=0)[0]:
                self._calls[index] = None
                self._take(index, call)
            if self._calls[index] is None and (
                now >= self._due[index] or self._told[index] != epochs
            ):
                self._calls[index] = self._shards[index].set_epochs.remote(epochs)
                self._told[index], self._due[index] = epochs, now + PERIOD_S

    def _take(self, index: int, call: ray.ObjectRef) -> None:
        try:
            life, refused = ray.get(call)
        except RayTaskError:
            raise
        except RayError:  # the shard is down; its last answer had the count of refused writes
            return
        self._refused[index][life] = refused
