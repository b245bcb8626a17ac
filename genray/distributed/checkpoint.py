"""Saves the states of all actors while no data is in flight between them, and loads them.

If a shard does not answer for ABSENT_S, it is saved as an empty shard. This happens if its host is
lost and no other host has resources for it. Its transitions are lost in any case, and the run can
continue with the other shards.
"""

import contextlib
import time
from collections.abc import Sequence
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from genray.distributed.calls import MAX_FAILURES, RETRY_S, get
from genray.distributed.learner_group import LearnerGroup, get_from_learner
from genray.errors import RunFault
from genray.rl.checkpoint import shards_of
from genray.runs.storage import Place, child

ABSENT_S = 20.0
"""Seconds to wait for a shard that does not answer; Ray restarts one on another host in 10 s."""
ABSENT: dict[str, Any] = {"absent": True, "counts": {"size": 0, "inserted": 0}}
"""The state, in a checkpoint, of a shard that did not answer."""


def save_actors(
    folder: Place,
    learners: Sequence[ray.actor.ActorHandle],
    shards: Sequence[ray.actor.ActorHandle],
    collectors: Sequence[ray.actor.ActorHandle],
) -> dict[str, Any]:
    """Have learners and shards write their files into `folder`; return the rest of all actors'
    states as JSON values.

    Before the call, the collectors must have stopped, all chunks must have arrived, and no learner
    may have queued work. If a collector or shard dies during the save, all actors save again after
    its restart (a restarted shard is empty), so that all parts of a checkpoint belong to the same
    moment.

    Raises LearnerLost when a learner is dead, RunFault when a collector or shard cannot be
    restarted or an actor fails, and OSError when `folder` cannot be written.
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
        # Wait for all calls: no actor may still write when the caller clears the directory.
        ray.wait(calls, num_returns=len(calls))
        try:
            ray.get(calls)
        except RayTaskError:
            pass  # `get` below raises a RunFault for it
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


def load_actors(
    place: Place,
    state: dict[str, Any],
    shards: Sequence[ray.actor.ActorHandle],
    learners: LearnerGroup,
) -> None:
    """Load a checkpoint of `save_actors` from `place`: first the shards, then the learners.

    `state` is the content of the checkpoint's state.json. Collectors are made later, with their
    saved states. The number of shards may differ from the saved one only if the checkpoint has no
    replay. Raises CheckpointError if the checkpoint does not fit the shards or the network, and
    RunFault if an actor dies.
    """
    with_replay = bool(state["shards"])
    for index, shard_state in shards_of(state, len(shards), place) if with_replay else ():
        get(shards[index].load.remote(str(child(place, f"replay-{index}")), shard_state))
    learners.load(str(place), state, with_replay)


def _absent(shards: Sequence[ray.actor.ActorHandle]) -> list[int]:
    """Return the indices of the shards that do not answer within ABSENT_S."""
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
