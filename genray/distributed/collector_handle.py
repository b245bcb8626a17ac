"""Defines the coordinator's view of one collector: its queued calls, its last report, its epoch."""

import time

import ray
from ray.exceptions import RayError, RayTaskError

from genray.distributed.calls import MAX_FAILURES, RETRY_S, cause
from genray.distributed.messages import CollectReport
from genray.errors import RunFault

# Calls queued at each collector and learner, so that none of them waits for the coordinator.
PORTIONS_AHEAD = 2


class CollectorHandle:
    """Queues calls at one collector and tracks its restarts.

    Ray restarts the actor when it dies, on another host if necessary. Every incarnation (life of
    the actor) has its own epoch.

    Args:
        index: the collector's number.
        actor: the actor's handle, which stays valid when the actor restarts.
    """

    def __init__(self, index: int, actor: ray.actor.ActorHandle):
        self.index, self.name, self.actor = index, f"collector {index}", actor
        self.calls: list[ray.ObjectRef] = []
        self.retry_at = 0.0
        self.failures = 0
        self.epsilon: float | None = None
        """The last reported ε; None before the first report."""
        self.epoch = 0
        self._away_since: float | None = None
        self.node = ""
        """The node of the last report; "" if the collector has not reported since its start."""

    @property
    def away(self) -> bool:
        """Whether the collector died or left, and its next incarnation has not reported yet."""
        return self._away_since is not None

    def away_s(self) -> float:
        """Return the seconds since the collector died or left; 0 if it is present."""
        return 0.0 if self._away_since is None else time.monotonic() - self._away_since

    @property
    def is_ready(self) -> bool:
        """Whether another call may be queued now."""
        return len(self.calls) < PORTIONS_AHEAD and time.monotonic() >= self.retry_at

    def collect(self, steps: int) -> None:
        """Queue a call that plays one chunk; `steps`: the run's count of agent steps."""
        self.calls.append(self.actor.collect.remote(steps, self.epoch))

    def finish_chunk(self) -> None:
        """Queue a call that returns when the shard has answered for the chunk in flight."""
        if time.monotonic() >= self.retry_at:  # a collector that has just died has no such chunk
            self.calls.append(self.actor.finish_chunk.remote())

    def leave(self) -> None:
        """Queue a call after which the collector stops, because its host will stop. Then `take`
        restarts the collector on another host.
        """
        self.node = ""
        self.calls.append(self.actor.leave.remote())

    def take(self, call: ray.ObjectRef) -> tuple[CollectReport | None, str | None]:
        """Return (the report of a finished call, a message for the user).

        The report is None if the call failed. The message is None unless the collector died or left
        its node. Raises RunFault when the collector cannot be started, or failed too often.
        """
        self.calls.remove(call)
        try:
            report: CollectReport = ray.get(call)
        except RayError as error:
            # Its code raised an error, for example in the environment: restart it in a new process.
            if isinstance(error, RayTaskError):
                ray.kill(self.actor, no_restart=False)
                self.failures += 1
            if getattr(error, "actor_init_failed", False) or self.failures >= MAX_FAILURES:
                raise RunFault(f"{self.name} cannot be kept alive: {cause(error)}") from error
            # All calls fail until Ray has restarted the actor; only the first failure is reported.
            event = (
                None
                if self.away
                else f"{self.name} died ({cause(error)}); it restarts with new episodes"
            )
            self._begin_epoch()
            return None, event
        self.failures, self._away_since = 0, None
        self.epsilon, self.node = report.epsilon, report.node
        if not report.leaving:
            return report, None
        # The collector has no work left; Ray restarts it on another host.
        ray.kill(self.actor, no_restart=False)
        self._begin_epoch()
        return (
            report,
            f"{self.name} left its node as requested, after its last chunk; it starts again "
            "elsewhere",
        )

    def _begin_epoch(self) -> None:
        """Begin the next incarnation's epoch. Calls that were queued are forgotten, and shards will
        refuse chunks of the old epoch.
        """
        self.calls.clear()
        self.node = ""
        self.epoch += 1
        self._away_since = self._away_since or time.monotonic()
        self.retry_at = time.monotonic() + RETRY_S
