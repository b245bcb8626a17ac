"""Controls the learners (one, or K in data parallel) for the coordinator, and replaces dead ones.

When a learner dies, all K learners are started again, with the next epoch, and continue from the
last snapshot. A snapshot contains the networks, the optimizer, and the other state of learning; the
leader sends one every few seconds. The coordinator keeps it in its own memory, because the object
store would lose it when the leader dies, and a shard might die at the same time. The death of the
coordinator ends the run in any case. The replay shards keep their data.
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

PORTION_S = 0.25  # seconds that one call of `learn` takes
MAX_DEATHS = 10  # deaths without a snapshot between them; one more ends the run
WAITING_NOTE_S = 60.0  # seconds between messages that the learner has not started yet


class LearnerLost(Exception):
    """Raised when a learner has died, or cannot be reached."""


@dataclass
class _Portion:
    """One call of `learn` at each of the K learners, and the reports that have arrived."""

    reports: list[LearnReport] = field(default_factory=list)


class LearnerGroup:
    """Gives work to the learners, keeps their last snapshot, and replaces them after a death.

    Only `ask` and `load` wait for the learners.

    Args:
        make: `make(epoch, rank)` starts the actor of a learner and returns its handle.
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
        """Number of updates that were lost with dead learners, and that the run makes again."""
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
        """Whether a learner is still starting (has not finished `begin`)."""
        return "begin" in self._calls.values()

    def give(self) -> None:
        """Queue calls at the learners, and request a snapshot when one is due."""
        while self._portions < PORTIONS_AHEAD:
            portion = _Portion()
            self._portions += 1
            for member in self.members:
                self._calls[member.learn.remote(PORTION_S)] = portion
        now = time.monotonic()
        # Without new updates, a new snapshot would equal the last one.
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
        """Take the results of the calls `ready`; return a report for each portion that all learners
        have finished. If a learner has died, replace all learners.
        """
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
        """Return the messages for the user that were added since the last call."""
        events, self._events = self._events, []
        return events

    def ask(self, question: Callable[[ray.actor.ActorHandle], ray.ObjectRef]) -> Any:
        """Call `question` with the leader's handle, and return the result of the call that it
        makes.

        If the leader dies meanwhile, replace all learners and ask again.
        """
        while True:
            try:
                return get_from_learner(question(self.first))
            except LearnerLost as error:
                self.restart(error)

    def load(self, folder: str, state: dict[str, Any], with_replay: bool) -> None:
        """Continue from the checkpoint in `folder`, whose state.json contains `state`.

        Raises RunFault if a learner dies meanwhile, and CheckpointError if the checkpoint does not
        fit.
        """
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
        # Ray starts `begin` when the leader has returned its address, so nothing waits here.
        place = self.first.rendezvous_address.remote() if self._learners > 1 else None
        state = ray.put(self._snapshot) if self._snapshot else None
        for member in self.members:
            self._calls[member.begin.remote(state, place)] = "begin"

    def restart(self, error: Exception) -> None:
        """Replace all learners after a death. Raises RunFault after more than MAX_DEATHS deaths
        without a snapshot between them.
        """
        self._deaths += 1
        if self._deaths > MAX_DEATHS:
            raise RunFault(f"the learner cannot be kept alive: {error}") from error
        self.close()
        # Tell the user how many updates since the last snapshot are lost.
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
        if self.last:  # the values until the new learners report; they have work left
            self.last = replace(self.last, updates=kept, idle=False)
        self._start()

    def _keep(self, snapshot: Snapshot) -> None:
        self._snapshot, self._taken_at, self._deaths = snapshot, self._asked_at, 0
        self._updates_known = max(self._updates_known, snapshot.updates)


def get_from_learner(call: ray.ObjectRef) -> Any:
    """Return the result of a call to a learner.

    If the call raised a GenrayError or an OSError, raises this error. Raises RunFault for another
    exception in the learner's code, and if the learner cannot be started. Raises LearnerLost when
    the learner's process or host, or another learner of its group, is lost.
    """
    try:
        return ray.get(call)
    except RayTaskError as error:
        if isinstance(error.cause, PeerLost):
            raise LearnerLost(cause(error)) from error
        if isinstance(error.cause, RayError):  # an argument was lost with the actor that made it
            raise LearnerLost(cause(error)) from error
        if isinstance(error.cause, GenrayError | OSError):
            raise error.cause from None
        raise RunFault(f"a learner failed: {cause(error)}") from error
    except RayError as error:
        if getattr(error, "actor_init_failed", False):
            raise RunFault(f"a learner cannot be started: {cause(error)}") from error
        raise LearnerLost(cause(error)) from error


def _joined(reports: list[LearnReport]) -> LearnReport:
    """Join the reports of all learners: the leader's counts, and the means over the learners."""
    first = next(report for report in reports if report.rank == 0)
    loss, q_mean, grad_norm = np.mean(
        [(each.loss, each.q_mean, each.grad_norm) for each in reports], axis=0
    ).tolist()
    return replace(first, loss=loss, q_mean=q_mean, grad_norm=grad_norm)
