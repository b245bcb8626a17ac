"""The coordinator's word to the shards: which epochs are in force, again and again, since a
restarted shard knows none.
"""

import time
from collections.abc import Sequence

import ray
from ray.exceptions import RayError, RayTaskError

from genray.distributed.fence import Epochs

PERIOD_S = 0.5


class EpochBroadcast:
    """Tells each shard the epochs at once when they change, otherwise every PERIOD_S; never
    waits for an answer.
    """

    def __init__(self, shards: Sequence[ray.actor.ActorHandle]):
        self._shards = shards
        self._calls: list[ray.ObjectRef | None] = [None] * len(shards)
        self._told: list[Epochs | None] = [None] * len(shards)
        self._due = [0.0] * len(shards)
        self._refused: list[dict[int, int]] = [{} for _ in shards]

    @property
    def refused(self) -> int:
        """Writes of stale lives that shards turned away, as far as they told."""
        return sum(sum(lives.values()) for lives in self._refused)

    def tick(self, epochs: Epochs) -> None:
        now = time.monotonic()
        for index, call in enumerate(self._calls):
            if call is not None and ray.wait([call], timeout=0)[0]:
                self._calls[index] = None
                self._take(index, call)
            if self._calls[index] is None and (
                now >= self._due[index] or self._told[index] != epochs
            ):
                self._calls[index] = self._shards[index].guard.remote(epochs)
                self._told[index], self._due[index] = epochs, now + PERIOD_S

    def _take(self, index: int, call: ray.ObjectRef) -> None:
        try:
            life, refused = ray.get(call)
        except RayTaskError:
            raise
        except RayError:  # it is down; what it had refused is known from its last answer
            return
        self._refused[index][life] = refused
