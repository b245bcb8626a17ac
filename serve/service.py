"""The service of one replica without HTTP: models, batching, slow requests, and the checks that all
APIs share.

Requests run in two lanes with one thread each. Predictions are batched in the fast lane. Styles,
dreams and clips take seconds; they run in the slow lane, so that they do not delay predictions
(PyTorch releases the interpreter lock while it computes).
"""

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from genray.errors import CheckpointError, ConfigError, require
from genray.paths import PathOrUrl
from serve.batching import Batcher
from serve.errors import BadRequest, Busy, NotFound, TooLarge
from serve.limits import Limits
from serve.models import Arrays, Function, Predictor
from serve.search import Search
from serve.shelf import Shelf, UnknownModel
from serve.telemetry import Telemetry

T = TypeVar("T")
Check = Callable[[], None]
"""Raises if no client waits for the result any more."""


class _Abandoned(Exception):
    """Ends slow work whose client has disconnected. No answer is sent."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of one replica."""

    models_dir: PathOrUrl
    keys: tuple[str, ...] = ()
    """API keys; a request may use any of them. Empty: everyone who reaches the port may use the
    service.
    """
    limits: Limits = field(default_factory=Limits)
    max_batch: int = 32
    """Most rows in one call of a model. An image of a DCGAN costs 5.7 CPU-ms alone and 1.6 CPU-ms
    in a batch of 32.
    """
    watch_s: float = 2.0
    """Seconds between two scans of the directory."""
    allow_changes: bool = True
    """Allow clients to delete models and to roll them back."""
    request_log: PathOrUrl = ""
    """File that receives one JSON line for each request. The process id of each replica is added to
    the file's name. Empty: no log.
    """

    def validate(self) -> None:
        self.limits.validate()
        require(self.max_batch >= 1, f"--max-batch {self.max_batch}: must be ≥ 1, e.g. 32")
        require(self.watch_s > 0, f"--watch-s {self.watch_s}: must be > 0, e.g. 2")
        for key in self.keys:
            require(
                len(key) >= 16,
                "GENRAY_API_KEY: each key must have 16 characters or more (openssl rand -hex 24)",
            )
            require(
                key.isascii() and key.isprintable() and " " not in key,
                "GENRAY_API_KEY: keys are printable ASCII",
            )


class Service:
    """Implements all operations of the routes. Its coroutines run in one event loop."""

    def __init__(self, settings: Settings):
        settings.validate()
        # a replica uses one core: more threads of one model would only wait for each other
        torch.set_num_threads(1)
        self.settings, self.limits = settings, settings.limits
        self.telemetry = Telemetry(settings.request_log)
        self.shelf = Shelf(Path(settings.models_dir))
        self.shelf.refresh()
        self.shelf.watch(settings.watch_s)
        self.batcher = Batcher(settings.max_batch, seen=self.telemetry.batch)
        self.search = Search()
        self._slow = ThreadPoolExecutor(1, thread_name_prefix="genray-slow")
        self._slow_work: set[Future[Any]] = set()
        self.started = time.time()

    # -- models ------------------------------------------------------------------------------------

    def model(self, name: str) -> Predictor:
        """Return the model of this name. Raises NotFound."""
        try:
            return self.shelf.get(name)
        except UnknownModel as error:
            raise NotFound(str(error), param="model") from error

    def models(self) -> list[Predictor]:
        return [self.shelf.models[name] for name in sorted(self.shelf.models)]

    def default_generator(self) -> Predictor:
        """Return the first model that generates images. Raises NotFound."""
        for predictor in self.models():
            if predictor.makes_images:
                return predictor
        raise NotFound(
            "no model here makes images: train a vae or a gan into the models directory",
            param="model",
        )

    def function(self, predictor: Predictor, name: str) -> Function:
        """Return a function of the model. Raises BadRequest if this kind of model does not have the
        function.
        """
        try:
            return predictor.functions[name]
        except KeyError:
            can = ", ".join(sorted(predictor.functions)) or "nothing by arrays"
            raise BadRequest(
                f"model {predictor.name!r} ({predictor.kind}) cannot {name}; it can: {can}",
                param="model",
            ) from None

    async def delete(self, name: str) -> None:
        self._check_changes()
        self.model(name)
        await self._change(lambda: self.shelf.delete(name))

    async def roll_back(self, name: str, version: str) -> str:
        self._check_changes()
        return await self._change(lambda: self.shelf.roll_back(name, version))

    def _check_changes(self) -> None:
        if not self.settings.allow_changes:
            raise BadRequest(
                "models cannot be changed here: the service was started with --no-allow-changes"
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
        """Run a function of a model on some rows, batched with the rows of other requests.

        Raises TooLarge, Busy, or BadRequest if the model rejects the values.
        """
        rows = len(next(iter(arrays.values())))
        if rows > self.limits.max_rows:
            raise TooLarge(f"{rows} rows in one request; the limit is {self.limits.max_rows}")
        try:
            called = self.function(predictor, function)
            # check each request alone: an error in a batch fails all its requests
            called.check(arrays)
            return await self.batcher.run(called, arrays, after)
        except ConfigError as error:
            raise BadRequest(str(error)) from error

    async def slowly(self, work: Callable[[Check], T]) -> T:
        """Run work that takes seconds in the slow lane. Raises Busy when too much of this kind of
        work waits, and BadRequest for a ConfigError.

        `work` receives a function and must call it between its steps. The function raises once the
        client has disconnected or the time limit has passed, so that abandoned work does not block
        the lane. Until `work` has ended, it counts as waiting.
        """
        if len(self._slow_work) >= self.limits.max_slow:
            raise Busy(f"{len(self._slow_work)} slow requests are waiting already", retry_after_s=5)
        gone = threading.Event()

        def check() -> None:
            if gone.is_set():
                raise _Abandoned

        future = self._slow.submit(lambda: work(check))
        self._slow_work.add(future)
        future.add_done_callback(self._slow_work.discard)
        try:
            # cancelling the wait cancels work that has not begun
            return await asyncio.wrap_future(future)
        except ConfigError as error:
            raise BadRequest(str(error)) from error
        finally:
            gone.set()

    @property
    def waiting(self) -> int:
        """Number of rows and slow requests that wait or are being processed."""
        return self.batcher.waiting_rows + len(self._slow_work)

    def readiness(self) -> tuple[bool, dict[str, Any]]:
        """Return (whether every model of the directory is loaded, the reasons why not)."""
        failed = dict(self.shelf.failed)
        ready = bool(self.shelf.models) and not failed
        return ready, {"ready": ready, "models": sorted(self.shelf.models), "failed": failed}

    def close(self) -> None:
        self.shelf.close()
        self.batcher.close()
        self._slow.shutdown(wait=False, cancel_futures=True)


def finite(values: np.ndarray, name: str) -> np.ndarray:
    """Return `values`. Raises BadRequest if some are NaN or infinite, because one bad row could
    affect other requests of a batch.
    """
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise BadRequest(f"{name}: has NaN or infinite values", param=name)
    return values
