"""Reports on the service with Prometheus metrics and a log of one JSON line for each request.

Metrics are accumulated in plain numbers and passed to Ray once a second. This costs a request
nanoseconds, instead of the 10 µs of a Ray counter with tags.
"""

import json
import logging
import os
import queue
import random
import threading
import time
from collections import defaultdict
from logging.handlers import QueueHandler, QueueListener, RotatingFileHandler
from pathlib import Path
from typing import Any

LATENCY_BOUNDS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
BATCH_BOUNDS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
MOST_SAMPLES = 100
"""Most observations of each kind that are kept for one second. Further observations are counted,
and each has the same chance to be kept. One observation of a Ray histogram costs 10 µs, and 100
observations a second give the same curve as 1,000.
"""


class Sample:
    """Uniform random sample of at most MOST_SAMPLES of the added values. [reservoir sampling:
    Vitter 1985]
    """

    def __init__(self) -> None:
        self.kept: list[Any] = []
        self._added = 0

    def add(self, value: Any) -> None:
        """Keep the value, or a random one of those that were added so far."""
        self._added += 1
        if len(self.kept) < MOST_SAMPLES:
            self.kept.append(value)
        elif (at := int(random.random() * self._added)) < MOST_SAMPLES:
            self.kept[at] = value


class Telemetry:
    """Counts the requests and batches of one replica, and writes the request log.

    `publish` passes the counts to Ray. Without `publish`, the counts stay in this object.

    Args:
        request_log: path of the log. Empty: no log.
    """

    def __init__(self, request_log: str = ""):
        self.requests: dict[tuple[str, str], int] = defaultdict(int)
        """Maps (route, status) to the number of answered requests."""
        self.latency_s: dict[str, Sample] = defaultdict(Sample)
        """Seconds per request, by route."""
        self.batches = Sample()
        """Pairs (rows, seconds that the oldest request waited)."""
        self.in_flight = 0
        """Requests being answered."""
        self.body_bytes = 0
        """Bytes of the bodies of all requests that are in memory."""
        self._lock = threading.Lock()
        self._log: logging.Logger | None = None
        self._listener: QueueListener | None = None
        if request_log:
            self._log, self._listener = _request_log(request_log)

    def batch(self, rows: int, waited_s: float) -> None:
        """Record a batch of `rows` that is about to run. Its oldest request has waited `waited_s`
        seconds.
        """
        with self._lock:
            self.batches.add((rows, waited_s))

    def request(self, *, route: str, status: int, seconds: float, **about: Any) -> None:
        """Record an answered request. `about` is written only to the request log."""
        with self._lock:
            self.requests[route, str(status)] += 1
            self.latency_s[route].add(seconds)
        if self._log:
            line = {
                "time": round(time.time(), 3),
                "route": route,
                "status": status,
                "ms": round(1e3 * seconds, 2),
            }
            self._log.info(json.dumps({**line, **about}, ensure_ascii=True))

    def publish(self, service: Any, period_s: float = 1.0) -> None:
        """Pass all counts to Ray's metrics every `period_s` seconds, in a separate thread.

        Must be called inside a replica of Ray Serve.
        """
        metrics = _RayMetrics()

        def run() -> None:
            while True:
                time.sleep(period_s)
                metrics.flush(self, service)

        threading.Thread(target=run, name="genray-metrics", daemon=True).start()

    def take(self) -> tuple[dict[tuple[str, str], int], dict[str, "Sample"], "Sample"]:
        """Return (requests, latencies, batches) since the last call."""
        with self._lock:
            taken = dict(self.requests), dict(self.latency_s), self.batches
            self.requests, self.latency_s, self.batches = (
                defaultdict(int),
                defaultdict(Sample),
                Sample(),
            )
        return taken

    def close(self) -> None:
        """Write the remaining lines of the request log."""
        if self._listener:
            self._listener.stop()


class _RayMetrics:
    def __init__(self) -> None:
        from ray.serve.metrics import Counter, Gauge, Histogram

        self.requests = Counter("genray_requests", "Requests answered.", ("route", "status"))
        self.latency = Histogram(
            "genray_request_seconds",
            "Seconds from a request's headers to the end of its answer, for a sample of requests.",
            list(LATENCY_BOUNDS_S),
            ("route",),
        )
        self.batch = Histogram(
            "genray_batch_rows", "Rows in one call of a model.", [b + 0.5 for b in BATCH_BOUNDS]
        )
        self.wait = Histogram(
            "genray_batch_wait_seconds",
            "Seconds that the oldest request of a batch waited.",
            list(LATENCY_BOUNDS_S),
        )
        self.queue = Gauge("genray_waiting", "Rows and slow requests that wait.")
        self.in_flight = Gauge("genray_in_flight", "Requests being answered.")
        self.models = Gauge("genray_models", "Models by state.", ("state",))
        self.loads = Gauge("genray_model_loads", "Models loaded since the replica started.")

    def flush(self, telemetry: Telemetry, service: Any) -> None:
        requests, latency, batches = telemetry.take()
        for (route, status), count in requests.items():
            self.requests.inc(count, {"route": route, "status": status})
        for route, sample in latency.items():
            for seconds in sample.kept:
                self.latency.observe(seconds, {"route": route})
        for rows, waited_s in batches.kept:
            self.batch.observe(rows)
            self.wait.observe(waited_s)
        self.queue.set(service.waiting)
        self.in_flight.set(telemetry.in_flight)
        self.models.set(len(service.registry.models), {"state": "loaded"})
        self.models.set(len(service.registry.failed), {"state": "failed"})
        self.loads.set(service.registry.loads)


def _request_log(path: str) -> tuple[logging.Logger, QueueListener]:
    """Create a logger whose lines are written by a separate thread, so that the event loop never
    waits for a disk. 5 files of 20 MB are kept.
    """
    file = Path(path)
    # Each replica needs its own file: replicas would rotate each other's file.
    file = file.with_name(f"{file.stem}-{os.getpid()}{file.suffix}")
    file.parent.mkdir(parents=True, exist_ok=True)
    handler = RotatingFileHandler(file, maxBytes=20_000_000, backupCount=4)
    handler.setFormatter(logging.Formatter("%(message)s"))
    lines: queue.SimpleQueue[logging.LogRecord] = queue.SimpleQueue()
    listener = QueueListener(lines, handler)
    listener.start()
    logger = logging.getLogger(f"genray.requests.{path}")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.handlers = [QueueHandler(lines)]
    return logger, listener
