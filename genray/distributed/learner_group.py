"""Controls the learners (one, or K in data parallel) for the coordinator, and replaces dead ones.

When a learner dies, all K are started again, with the next epoch, from the last snapshot: the
whole state of learning, which the leader sends every few seconds. The coordinator keeps the
snapshot in its own memory. The memory of the learner is lost with the learner, as is what it put
into the object store, and a shard may die at the same instant; the coordinator's own death ends
the run in any case. The replay shards keep their data.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import ray
from ray.exceptions import RayError, RayTaskError

from genray.distributed.calls import cause
from genray.distributed.collector_handle import PORTIONS_AHEAD
from genray.distributed.data_parallel import PeerLost
from genray.distributed.messages import LearnReport, Snapshot
from genray.errors import GenrayError, RunFault

PORTION_S = 0.25  # length of one call of `learn`
MAX_DEATHS = 10  # in a row, without a snapshot between them, before the run ends
WAITING_NOTE_S = 60.0  # how often the user reads that the learner has not started yet


class LearnerLost(Exception):
    """Raised when a learner has died, or cannot be reached."""


@dataclass
class _Portion:
    reports: list[LearnReport] = field(default_factory=list)


class LearnerGroup:
    """Gives work to the learners, keeps their last snapshot, and replaces them after a death.

    Only `ask` and `load` block.

    Args:
        make: a function; `make(epoch, rank)` starts the actor of a learner.
        learners: K.
        snapshot_s: seconds between snapshots.
    """

    def __init__(
        self, make: Callable[[int, int], ray.actor.ActorHandle], learners: int, snapshot_s: float
    ):
        self._make, self._learners, self._snapshot_s = make, learners, snapshot_s
        self.epoch = 0
        self.restarts = 0
        self.lost_updates = 0
        """Updates that were lost with dead learners; the run makes them again."""
        self.last: LearnReport | None = None
        self._snapshot: Snapshot | None = None
        self._asked_at = self._taken_at = 0.0
        self._updates_known = 0
        self._deaths = 0
        self._events: list[str] = []
        self._calls: dict[ray.ObjectRef, _Portion | str] = {}
        self._portions = 0
        self._snapshot_due = self._next_note_at = 0.0
        self._start()

    # -- work --------------------------------------------------------------------------------------

    @property
    def waiting(self) -> list[ray.ObjectRef]:
        """Unfinished calls, for `ray.wait`."""
        return list(self._calls)

    @property
    def starting(self) -> bool:
        """Whether a learner has not finished `begin` yet."""
        return "begin" in self._calls.values()

    def give(self) -> None:
        """Keep the learners' queues filled, and ask for a snapshot when one is due."""
        while self._portions < PORTIONS_AHEAD:
            portion = _Portion()
            self._portions += 1
            for member in self.members:
                self._calls[member.learn.remote(PORTION_S)] = portion
        now = time.monotonic()
        # A snapshot without a new update since the last one would be of no use.
        moved = self._snapshot is None or self._updates_known > self._snapshot.updates
        if moved and now >= self._snapshot_due and "snapshot" not in self._calls.values():
            self._calls[self.first.snapshot.remote()] = "snapshot"
            self._snapshot_due, self._asked_at = now + self._snapshot_s, now
        if self.starting and now >= self._next_note_at:
            self._next_note_at = now + WAITING_NOTE_S
            self._events.append(
                "the learner has not started yet: it waits for a node with enough free CPUs "
                "and GPUs"
            )

    def take(self, ready: Sequence[ray.ObjectRef]) -> list[LearnReport]:
        """Return the reports of the finished portions among the calls `ready`."""
        reports = []
        for call in ready:
            if call not in self._calls:
                continue
            work = self._calls.pop(call)
            try:
                answer = get_from_learner(call)
            except LearnerLost as error:
                self.restart(error)
                break
            if isinstance(work, _Portion):
                # A portion is finished when all K learners have reported.
                work.reports.append(answer)
                if len(work.reports) == self._learners:
                    self._portions -= 1
                    self.last = _joined(work.reports)
                    self._updates_known = self.last.updates
                    reports.append(self.last)
            elif work == "snapshot":
                self._keep(answer)
        return reports

    def events(self) -> list[str]:
        """Return the messages for the user since the last call."""
        events, self._events = self._events, []
        return events

    def ask(self, question: Callable[[ray.actor.ActorHandle], ray.ObjectRef]) -> Any:
        """Wait for the leader's answer; if a learner dies meanwhile, replace it and ask again."""
        while True:
            try:
                return get_from_learner(question(self.first))
            except LearnerLost as error:
                self.restart(error)

    def load(self, folder: str, state: dict[str, Any], with_replay: bool) -> None:
        """Continue from a checkpoint."""
        calls = [member.load.remote(folder, state, with_replay) for member in self.members]
        try:
            for call in calls:
                get_from_learner(call)
            self._asked_at = time.monotonic()
            self._keep(get_from_learner(self.first.snapshot.remote()))
        except LearnerLost as error:
            raise RunFault(f"a learner died while it loaded {folder}: {error}") from error

    def close(self) -> None:
        """End the learners' actors."""
        for member in self.members:
            ray.kill(member)

    # -- starts and restarts -----------------------------------------------------------------------

    @property
    def first(self) -> ray.actor.ActorHandle:
        """The learner of rank 0, which is the leader."""
        return self.members[0]

    def _start(self) -> None:
        self.members = [self._make(self.epoch, rank) for rank in range(self._learners)]
        self._calls = {}
        self._portions = 0
        self._snapshot_due = 0.0
        self._next_note_at = time.monotonic() + WAITING_NOTE_S
        # Ray holds back the calls of the other learners until the leader has returned its address;
        # no call blocks here.
        place = self.first.rendezvous_address.remote() if self._learners > 1 else None
        state = ray.put(self._snapshot) if self._snapshot else None
        for member in self.members:
            self._calls[member.begin.remote(state, place)] = "begin"

    def restart(self, error: Exception) -> None:
        """Replace all learners after a death. Raises RunFault after MAX_DEATHS in a row."""
        self._deaths += 1
        if self._deaths > MAX_DEATHS:
            raise RunFault(f"the learner cannot be kept alive: {error}") from error
        self.close()
        # Work out for the user what is lost: the updates since the last snapshot.
        kept = self._snapshot.updates if self._snapshot else 0
        lost = max(0, self._updates_known - kept)
        age = (
            f"its state of {time.monotonic() - self._taken_at:.1f} s ago"
            if self._snapshot
            else "the beginning"
        )
        who = "the learner" if self._learners == 1 else f"one of {self._learners} learners"
        self._events.append(
            f"{who} died ({error}); learning continues from {age}: {lost:,} updates lost"
        )
        self.epoch += 1
        self.restarts += 1
        self.lost_updates += lost
        self._updates_known = kept
        if self.last:  # until the new learners report: there is work left
            self.last = replace(self.last, updates=kept, idle=False)
        self._start()

    def _keep(self, snapshot: Snapshot) -> None:
        self._snapshot, self._taken_at, self._deaths = snapshot, self._asked_at, 0
        self._updates_known = max(self._updates_known, snapshot.updates)


def get_from_learner(call: ray.ObjectRef) -> Any:
    """Return a learner's answer.

    Raises the original error if genray or the disk raised it there, RunFault for any other
    exception in the learner's code, and LearnerLost when its process, host, or group is gone.
    """
    try:
        return ray.get(call)
    except RayTaskError as error:
        if isinstance(error.cause, PeerLost):
            raise LearnerLost(cause(error)) from error
        if isinstance(error.cause, RayError):  # an argument of the call died with its owner
            raise LearnerLost(cause(error)) from error
        if isinstance(error.cause, GenrayError | OSError):
            raise error.cause from None
        raise RunFault(f"a learner failed: {cause(error)}") from error
    except RayError as error:
        if getattr(error, "actor_init_failed", False):
            raise RunFault(f"a learner cannot be started: {cause(error)}") from error
        raise LearnerLost(cause(error)) from error


def _joined(reports: list[LearnReport]) -> LearnReport:
    """Join the reports of a group: the leader's counts, and the means over the whole batch."""
    first = next(report for report in reports if report.rank == 0)
    loss, q_mean, grad_norm = np.mean(
        [(each.loss, each.q_mean, each.grad_norm) for each in reports], axis=0
    ).tolist()
    return replace(first, loss=loss, q_mean=q_mean, grad_norm=grad_norm)
