"""Sends the current epochs from the coordinator to all shards. They are sent repeatedly, because a
restarted shard does not know them. See fence.py for what epochs are.
"""

import time
from collections.abc import Sequence

import ray
from ray.exceptions import RayError, RayTaskError

from genray.distributed.fence import Epochs

PERIOD_S = 0.5  # seconds between two calls to a shard if the epochs do not change


class EpochBroadcast:
    """Sends every shard the epochs when they change, and every PERIOD_S otherwise.

    The next call to a shard is made only after the shard has answered the previous one. `tick`
    never waits for an answer.

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
        """Number of refused writes in the last answers of all incarnations of the shards."""
        return sum(sum(lives.values()) for lives in self._refused)

    def tick(self, epochs: Epochs) -> None:
        """Take the answers that have arrived, and send `epochs` to each shard that needs them."""
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
        except RayError:  # the shard is down; the count of its last answer is kept
            return
        self._refused[index][life] = refused
