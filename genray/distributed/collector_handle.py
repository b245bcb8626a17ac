"""Queues the coordinator's calls at one collector, and tracks the collector's epoch."""

import time

import ray
from ray.exceptions import RayError, RayTaskError

from genray.distributed.calls import MAX_FAILURES, RETRY_S, cause
from genray.distributed.messages import CollectReport
from genray.errors import RunFault

PORTIONS_AHEAD = 2  # calls queued at each collector, so that none waits for the coordinator


class CollectorHandle:
    """Queues calls at one collector and tracks its restarts.

    Ray restarts the actor when it dies, on another host if necessary. Every incarnation has its
    own epoch.

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
        """Whether the collector died or left, and its successor has not reported yet."""
        return self._away_since is not None

    def away_s(self) -> float:
        """Return the seconds since the collector died or left; 0 if it is present."""
        return 0.0 if self._away_since is None else time.monotonic() - self._away_since

    @property
    def is_ready(self) -> bool:
        """Whether the collector may be given another portion of work now."""
        return len(self.calls) < PORTIONS_AHEAD and time.monotonic() >= self.retry_at

    def collect(self, steps: int) -> None:
        """Queue one chunk; `steps`: the run's count of agent steps."""
        self.calls.append(self.actor.collect.remote(steps, self.epoch))

    def finish_chunk(self) -> None:
        """Queue a call that returns when the collector's chunk in flight has arrived."""
        if time.monotonic() >= self.retry_at:  # a collector that has just died has no chunk
            self.calls.append(self.actor.finish_chunk.remote())

    def leave(self) -> None:
        """Have the collector finish and restart on another host, because its host will stop."""
        self.node = ""
        self.calls.append(self.actor.leave.remote())

    def take(self, call: ray.ObjectRef) -> tuple[CollectReport | None, str | None]:
        """Return (the report of a finished call, an event for the user).

        The report is None if the collector died. The event describes a death or a departure.
        """
        self.calls.remove(call)
        try:
            report: CollectReport = ray.get(call)
        except RayError as error:
            # The environment raised an error: restart the actor in a new process.
            if isinstance(error, RayTaskError):
                ray.kill(self.actor, no_restart=False)
                self.failures += 1
            if getattr(error, "actor_init_failed", False) or self.failures >= MAX_FAILURES:
                raise RunFault(f"{self.name} cannot be kept alive: {cause(error)}") from error
            # Calls fail until Ray has restarted the actor: all these failures are one death.
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
        """Start the next epoch: queued calls are lost; later writes of the old one are stale."""
        self.calls.clear()
        self.node = ""
        self.epoch += 1
        self._away_since = self._away_since or time.monotonic()
        self.retry_at = time.monotonic() + RETRY_S
