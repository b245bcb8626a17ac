"""Implements the operations of the routes without HTTP, for one replica.

Each kind of work has its own thread. Predictions take milliseconds and are batched in one thread.
Styles, dreams and clips take seconds. They run in a second thread, so that they do not delay
predictions: PyTorch releases the interpreter lock while it computes.
"""

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from genray.errors import CheckpointError, ConfigError
from serve.batching import Batcher
from serve.errors import BadRequest, Busy, NotFound, TooLarge
from serve.games import Dreams, Places
from serve.models import Arrays, Function, Predictor
from serve.registry import Registry, UnknownModel
from serve.search import Search
from serve.settings import Settings as Settings
from serve.statistics import Spent, Statistics
from serve.telemetry import Telemetry

T = TypeVar("T")
Check = Callable[[], None]
"""Raises if no client waits for the result any more."""


class _Abandoned(Exception):
    """Ends slow work whose client has disconnected. No answer is sent."""


class Service:
    """Implements all operations of the routes. The coroutines must run in one event loop.

    Args:
        settings: the settings of this replica. Raises ConfigError for an invalid setting, or if
            `models_dir` is no directory.
    """

    def __init__(self, settings: Settings):
        settings.validate()
        # A replica uses one core, so more threads for one model would only wait for each other.
        torch.set_num_threads(1)
        self.settings, self.limits = settings, settings.limits
        self.telemetry = Telemetry(settings.request_log)
        self.registry = Registry(Path(settings.models_dir))
        self.registry.refresh()
        self.registry.watch(settings.watch_s)
        self.batcher = Batcher(settings.max_batch, seen=self.telemetry.batch)
        self.statistics = Statistics()
        self.search = Search()
        self.places, self.dreams = Places(self.limits.max_streams), Dreams()
        self._slow = ThreadPoolExecutor(1, thread_name_prefix="genray-slow")
        self._slow_work: set[Future[Any]] = set()
        self.parsers = asyncio.Semaphore(2)
        """Bounds the number of processes that parse large bodies."""
        self.started = time.time()

    # -- models ------------------------------------------------------------------------------------

    def model(self, name: str) -> Predictor:
        """Return the model of this name. Raises NotFound."""
        try:
            return self.registry.get(name)
        except UnknownModel as error:
            raise NotFound(str(error), param="model") from error

    def models(self) -> list[Predictor]:
        """Return all loaded models, sorted by name."""
        return [self.registry.models[name] for name in sorted(self.registry.models)]

    def default_generator(self) -> Predictor:
        """Return the first model that generates images. Raises NotFound."""
        for predictor in self.models():
            if predictor.makes_images:
                return predictor
        raise NotFound(
            "model: none of the loaded models generates images; train a vae or a gan into the "
            "models directory",
            param="model",
        )

    def function(self, predictor: Predictor, name: str) -> Function:
        """Return a function of the model. Raises BadRequest if this kind of model does not have the
        function.
        """
        try:
            return predictor.functions[name]
        except KeyError:
            functions = ", ".join(sorted(predictor.functions)) or "none"
            raise BadRequest(
                f"model {predictor.name!r} ({predictor.kind}) has no function {name!r}; its "
                f"functions: {functions}",
                param="model",
            ) from None

    async def delete(self, name: str) -> None:
        """Remove a model from the directory; `roll_back` restores the model.

        Raises NotFound, or BadRequest if the directory cannot be changed.
        """
        self._check_changes()
        self.model(name)
        await self._change(lambda: self.registry.delete(name))

    async def roll_back(self, name: str, version: str) -> str:
        """Restore a version of a model (empty: the newest other version), and return the version.

        Raises NotFound, or BadRequest if the directory cannot be changed.
        """
        self._check_changes()
        return await self._change(lambda: self.registry.roll_back(name, version))

    def _check_changes(self) -> None:
        if not self.settings.allow_changes:
            raise BadRequest(
                "models cannot be changed: the service was started with --no-allow-changes"
            )

    async def _change(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(None, work)
        except UnknownModel as error:
            raise NotFound(str(error), param="model") from error
        except (OSError, CheckpointError) as error:
            reason = error.strerror if isinstance(error, OSError) else "a damaged version"
            raise BadRequest(f"the models directory cannot be changed: {reason}") from error

    # -- work --------------------------------------------------------------------------------------

    async def predict(
        self,
        predictor: Predictor,
        function: str,
        arrays: Arrays,
        after: Callable[[Arrays], T] | None = None,
    ) -> Any:
        """Run a function of a model on the rows in `arrays`, batched with rows of other requests.

        `arrays` maps the name of each input to an array [N, …]. `after` is called in the batching
        thread with the outputs; if given, its result is returned instead of the outputs. Raises
        TooLarge, Busy, or BadRequest if the model rejects the values.
        """
        rows = len(next(iter(arrays.values())))
        if rows > self.limits.max_rows:
            raise TooLarge(f"the request has {rows} rows; the limit is {self.limits.max_rows}")
        spent, start, good = Spent(), time.perf_counter_ns(), False
        try:
            called = self.function(predictor, function)
            # Check each request alone, because an error in a batch fails all requests of the batch.
            called.check(arrays)
            answer = await self.batcher.run(called, arrays, after, spent)
            good = True
            return answer
        except ConfigError as error:
            raise BadRequest(str(error)) from error
        finally:
            ns, version = time.perf_counter_ns() - start, predictor.version
            if function in predictor.functions:
                self.statistics.record(predictor.name, version, function, rows, ns, spent, good)

    async def run_slow(self, work: Callable[[Check], T]) -> T:
        """Run work that takes seconds in the thread for slow work, and return its result.

        `work` receives a function and must call the function between its steps. The function raises
        once the client has disconnected or the time limit has passed, so that abandoned work does
        not block the thread. Work counts as waiting until it has ended. Raises Busy when
        `max_slow` requests wait already, and BadRequest for a ConfigError.
        """
        if len(self._slow_work) >= self.limits.max_slow:
            raise Busy(f"{len(self._slow_work)} slow requests are waiting already", retry_after_s=5)
        abandoned = threading.Event()

        def check() -> None:
            if abandoned.is_set():
                raise _Abandoned

        future = self._slow.submit(lambda: work(check))
        self._slow_work.add(future)
        future.add_done_callback(self._slow_work.discard)
        try:
            # If this coroutine is cancelled, work that has not begun is cancelled with it.
            return await asyncio.wrap_future(future)
        except ConfigError as error:
            raise BadRequest(str(error)) from error
        finally:
            abandoned.set()

    @property
    def waiting(self) -> int:
        """Number of waiting rows, plus slow requests that wait or are being processed."""
        return self.batcher.waiting_rows + len(self._slow_work)

    def readiness(self) -> tuple[bool, dict[str, Any]]:
        """Return (whether the directory has models and all are loaded, a report for JSON).

        The report contains `ready`, the names of the loaded models, and `failed`: why others
        failed.
        """
        failed = dict(self.registry.failed)
        ready = bool(self.registry.models) and not failed
        return ready, {"ready": ready, "models": sorted(self.registry.models), "failed": failed}

    def close(self) -> None:
        """Stop the threads. Work that has not begun is cancelled."""
        self.registry.close()
        self.batcher.close()
        self._slow.shutdown(wait=False, cancel_futures=True)


def finite(values: np.ndarray, name: str) -> np.ndarray:
    """Return `values` unchanged if all are finite.

    Raises BadRequest for NaN and infinite values, because one such row could affect other requests
    of a batch.
    """
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise BadRequest(f"{name}: all values must be finite numbers, e.g. 0.5", param=name)
    return values
