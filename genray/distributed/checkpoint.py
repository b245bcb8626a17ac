"""A checkpoint of all actors at one instant: nothing is on its way between them while they save.

A shard that has been down for long (its host is gone and there is no other place for it) is
saved as an empty one: what it held is lost in any case, and a run that learns on from the other
shards must not end over it.
"""

import contextlib
import time
from collections.abc import Sequence
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from genray.distributed.calls import MAX_FAILURES, RETRY_S, get
from genray.distributed.learner_group import get_from_learner
from genray.errors import RunFault
from genray.runs.storage import Place, child

ABSENT_S = 20.0
"""A shard that Ray restarts on another host is back within 10 s."""
ABSENT: dict[str, Any] = {"absent": True, "counts": {"size": 0, "inserted": 0}}
"""What stands for such a shard in a checkpoint."""


def save_actors(
    folder: Place,
    learners: Sequence[ray.actor.ActorHandle],
    shards: Sequence[ray.actor.ActorHandle],
    collectors: Sequence[ray.actor.ActorHandle],
) -> dict[str, Any]:
    """Have every actor write its part into `folder`, all at the same time; returns the rest as
    JSON-able values.

    The collectors rest and their chunks have arrived; the learners have no work queued. A
    collector or shard that dies meanwhile is saved as it comes back (a shard: empty), and
    everybody saves again: parts of two instants never mix. Raises LearnerLost when a learner is
    dead, RunFault when a collector does not come back, OSError when the disk is full.
    """
    for _ in range(MAX_FAILURES):
        absent = _absent(shards)
        present = [index for index in range(len(shards)) if index not in absent]
        for settled in [learner.settle.remote(absent) for learner in learners]:
            get_from_learner(settled)
        calls = [learner.save.remote(str(folder)) for learner in learners]
        calls += [
            shards[index].save.remote(str(child(folder, f"replay-{index}"))) for index in present
        ]
        calls += [collector.state.remote() for collector in collectors]
        # all: nobody may still write when the caller clears the folder away
        ray.wait(calls, num_returns=len(calls))
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
        states = dict(zip(present, parts)) | {index: ABSENT for index in absent}
        return saved | rngs | {
            "shards": [states[index] for index in range(len(shards))],
            "collectors": parts[len(present) :],
        }  # fmt: skip
    raise RunFault(
        "a collector or a replay shard cannot be kept alive, so no checkpoint could be written"
    )


def _absent(shards: Sequence[ray.actor.ActorHandle]) -> list[int]:
    """The shards that do not answer within ABSENT_S."""
    waiting, stop = set(range(len(shards))), time.monotonic() + ABSENT_S
    while waiting:
        calls = {shards[index].counts.remote(): index for index in waiting}
        for call in ray.wait(list(calls), num_returns=len(calls), timeout=ABSENT_S)[0]:
            with contextlib.suppress(RayError):
                ray.get(call)
                waiting.remove(calls[call])
        if time.monotonic() >= stop:
            break
        time.sleep(RETRY_S if waiting else 0)
    return sorted(waiting)
