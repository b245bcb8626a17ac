"""Dynamic batching: rows of several requests are processed in one call, in one worker thread.

No timer delays a request. While one batch is processed, the next batch collects. At low load a
request is processed alone and at once; at high load batches grow to `max_rows`.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from serve.errors import Busy
from serve.models import Arrays, Function
from serve.statistics import Spent


@dataclass
class _Job:
    arrays: Arrays
    rows: int
    after: Callable[[Arrays], Any] | None
    done: "asyncio.Future[Any]"
    since: float
    spent: Spent


class Batcher:
    """Runs functions in one thread, one batch at a time.

    Args:
        max_rows: most rows in a batch. A request with more rows runs alone.
        max_waiting_rows: most rows in the queue; further requests are refused with Busy.
        seen: called as `seen(rows, seconds_waited)` before each batch runs.
    """

    def __init__(
        self,
        max_rows: int = 32,
        max_waiting_rows: int = 512,
        seen: Callable[[int, float], None] | None = None,
    ):
        self.max_rows, self.max_waiting_rows = max_rows, max_waiting_rows
        self._seen = seen
        self._waiting: dict[int, tuple[Function, deque[_Job]]] = {}
        self._waiting_rows = 0
        self._working = False
        self._worker: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="genray-predict")

    @property
    def waiting_rows(self) -> int:
        """Number of rows in the queue, without those of the batch that is running."""
        return self._waiting_rows

    async def run(
        self,
        function: Function,
        arrays: Arrays,
        after: Callable[[Arrays], Any] | None = None,
        spent: Spent | None = None,
    ) -> Any:
        """Return the outputs of `function` for the rows in `arrays`, as arrays [N, …].

        `after` is called in the worker thread with these outputs; if given, its result is returned
        instead. `spent` receives the times. Raises Busy when too many rows are waiting, and any
        exception of `function`, also if another request of the batch caused the exception.
        """
        rows = len(next(iter(arrays.values())))
        if self._waiting_rows + rows > self.max_waiting_rows and self._waiting_rows:
            raise Busy(f"{self._waiting_rows} rows are waiting already", retry_after_s=1)
        loop = asyncio.get_running_loop()
        job = _Job(arrays, rows, after, loop.create_future(), time.monotonic(), spent or Spent())
        # The key is the function's identity: after a model is replaced, the old model keeps its own
        # queue until its last request is answered.
        self._waiting.setdefault(id(function), (function, deque()))[1].append(job)
        self._waiting_rows += rows
        if not self._working:
            self._working = True
            self._worker = loop.create_task(self._work())
        return await job.done

    async def _work(self) -> None:
        """Run batches until no request waits."""
        loop = asyncio.get_running_loop()
        try:
            while self._waiting:
                # The oldest request goes first, so that no model starves another.
                key = min(self._waiting, key=lambda each: self._waiting[each][1][0].since)
                function, queue = self._waiting[key]
                jobs = self._take(queue)
                if not queue:
                    del self._waiting[key]
                # Skip requests whose clients have disconnected.
                jobs = [job for job in jobs if not job.done.done()]
                if not jobs:
                    continue
                if self._seen:
                    self._seen(sum(job.rows for job in jobs), time.monotonic() - jobs[0].since)
                results = await loop.run_in_executor(self._thread, _run, function, jobs)
                for job, result in zip(jobs, results):
                    if job.done.done():
                        continue
                    if isinstance(result, Exception):
                        job.done.set_exception(result)
                    else:
                        job.done.set_result(result)
        finally:
            self._working = False

    def _take(self, queue: deque[_Job]) -> list[_Job]:
        """Remove requests from the front of the queue, up to `max_rows` rows. A request with more
        rows than that forms a batch alone.
        """
        jobs = [queue.popleft()]
        rows = jobs[0].rows
        while queue and rows + queue[0].rows <= self.max_rows:
            jobs.append(queue.popleft())
            rows += jobs[-1].rows
        self._waiting_rows -= rows
        return jobs

    def close(self) -> None:
        """End the worker thread. Batches that have not begun are cancelled."""
        self._thread.shutdown(wait=False, cancel_futures=True)


def _run(function: Function, jobs: list[_Job]) -> list[Any]:
    """Run one call for all jobs. Returns the result of each job, or the exception that the job
    raised. Sets the times of the jobs.
    """
    begin, clock = time.monotonic(), time.perf_counter_ns
    try:
        start = clock()
        arrays = jobs[0].arrays
        if len(jobs) > 1:
            arrays = {name: np.concatenate([job.arrays[name] for job in jobs]) for name in arrays}
        joined = clock()
        whole = function.run(arrays)
        ran = clock()
    except Exception as error:
        return [error] * len(jobs)
    results: list[Any] = []
    rows, at = sum(job.rows for job in jobs), 0
    for job in jobs:
        part = {name: values[at : at + job.rows] for name, values in whole.items()}
        at += job.rows
        before = clock()
        try:
            results.append(job.after(part) if job.after else part)
        except Exception as error:
            results.append(error)
        spent = job.spent
        spent.queue_ns, spent.input_ns = int(1e9 * (begin - job.since)), joined - start
        spent.infer_ns, spent.output_ns = ran - joined, clock() - before
        spent.batch_rows, spent.is_first = rows, job is jobs[0]
    return results
