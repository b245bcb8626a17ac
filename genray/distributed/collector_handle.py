"""A collector as the coordinator sees it: the calls queued at it, its epoch, and when it may be
asked again.
"""

import time

import ray
from ray.exceptions import RayError, RayTaskError

from genray.distributed.calls import MAX_FAILURES, RETRY_S, cause
from genray.distributed.messages import CollectReport
from genray.errors import RunFault

PORTIONS_AHEAD = 2  # calls queued at each worker, so that none waits for the coordinator


class CollectorHandle:
    """One collector. Ray restarts its actor, on another host if need be; each life gets an epoch
    of its own.
    """

    def __init__(self, index: int, actor: ray.actor.ActorHandle):
        self.index, self.name, self.actor = index, f"collector {index}", actor
        self.calls: list[ray.ObjectRef] = []
        self.retry_at = 0.0
        self.failures = 0
        self.epsilon: float | None = None
        """None: it has not reported yet."""
        self.epoch = 0
        self._away_since: float | None = None
        self.node = ""
        """Where it was when it last reported; "": it has not since it (re)started."""

    @property
    def away(self) -> bool:
        """It died or left, and its successor has not reported yet."""
        return self._away_since is not None

    def away_s(self) -> float:
        """Seconds since then."""
        return 0.0 if self._away_since is None else time.monotonic() - self._away_since

    @property
    def may_work(self) -> bool:
        return len(self.calls) < PORTIONS_AHEAD and time.monotonic() >= self.retry_at

    def collect(self, steps: int) -> None:
        self.calls.append(self.actor.collect.remote(steps, self.epoch))

    def rest(self) -> None:
        if time.monotonic() >= self.retry_at:  # one that has just died has nothing on its way
            self.calls.append(self.actor.rest.remote())

    def leave(self) -> None:
        """Its host is about to go: let it finish, and look for another place."""
        self.node = ""
        self.calls.append(self.actor.leave.remote())

    def take(self, call: ray.ObjectRef) -> tuple[CollectReport | None, str | None]:
        """What a finished call says, and what there is to tell the user: a death (no report), or
        a leave.
        """
        self.calls.remove(call)
        try:
            report: CollectReport = ray.get(call)
        except RayError as error:
            # the environment raised: begin anew in a new process
            if isinstance(error, RayTaskError):
                ray.kill(self.actor, no_restart=False)
                self.failures += 1
            if getattr(error, "actor_init_failed", False) or self.failures >= MAX_FAILURES:
                raise RunFault(f"{self.name} cannot be kept alive: {cause(error)}") from error
            # Calls fail as long as Ray has no place for it: that is one death, not many.
            event = (
                None
                if self.away
                else f"{self.name} died ({cause(error)}); it restarts with new episodes"
            )
            self._begin_anew()
            return None, event
        self.failures, self._away_since = 0, None
        self.epsilon, self.node = report.epsilon, report.node
        if not report.leaving:
            return report, None
        # it waits for nothing else; Ray finds it another place
        ray.kill(self.actor, no_restart=False)
        self._begin_anew()
        return (
            report,
            f"{self.name} left as it was asked to, its last chunk arrived; it starts again "
            "elsewhere",
        )

    def _begin_anew(self) -> None:
        """All that was queued died with it, and what that life may still write is stale."""
        self.calls.clear()
        self.node = ""
        self.epoch += 1
        self._away_since = self._away_since or time.monotonic()
        self.retry_at = time.monotonic() + RETRY_S
