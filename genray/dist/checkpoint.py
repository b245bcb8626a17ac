"""A checkpoint of all actors at one instant: nothing is on its way between them while they save."""

import time
from collections.abc import Sequence
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from genray.dist.calls import MAX_FAILURES, RETRY_S, get
from genray.dist.learner_group import get_from_learner
from genray.errors import RunFault
from genray.storage import Place, child


def save_actors(
    folder: Place,
    learners: Sequence[ray.actor.ActorHandle],
    shards: Sequence[ray.actor.ActorHandle],
    collectors: Sequence[ray.actor.ActorHandle],
) -> dict[str, Any]:
    """Have every actor write its part into `folder`, all at the same time; returns the rest as JSON-able values.

    The collectors rest and their chunks have arrived; the learners have no work queued. A collector or shard that dies
    meanwhile is saved as it comes back (a shard: empty), and everybody saves again: parts of two instants never mix.
    Raises LearnerLost when a learner is dead, RunFault when another does not come back, OSError when the disk is full.
    """
    for _ in range(MAX_FAILURES):
        for settled in [learner.settle.remote() for learner in learners]:
            get_from_learner(settled)
        calls = [learner.save.remote(str(folder)) for learner in learners]
        calls += [shard.save.remote(str(child(folder, f"replay-{index}"))) for index, shard in enumerate(shards)]
        calls += [collector.state.remote() for collector in collectors]
        ray.wait(calls, num_returns=len(calls))  # all: nobody may still write when the caller clears the folder away
        try:
            ray.get(calls)
        except RayTaskError:
            pass  # `get` below words it
        except RayError:
            time.sleep(RETRY_S)
            continue
        saved, *others = [get(call) for call in calls[: len(learners)]]
        parts = [get(call) for call in calls[len(learners) :]]
        rngs = {"learner_rngs": [other["rng"] for other in others]} if others else {}
        return saved | rngs | {"shards": parts[: len(shards)], "collectors": parts[len(shards) :]}
    raise RunFault("a collector or a replay shard cannot be kept alive, so no checkpoint could be written")
