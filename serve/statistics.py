"""Counts the work of one replica for each model and function, in the form of Triton's statistics.

The counts begin when the replica starts, and again when a model is replaced. Each replica has its
own counts.
[https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_statistics.md]
"""

import threading
import time
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Spent:
    """The time that one request spent in the batcher, in nanoseconds. `Batcher.run` fills it in."""

    queue_ns: int = 0
    """Until the batch began."""
    input_ns: int = 0
    """For joining the rows of the batch."""
    infer_ns: int = 0
    """For the call of the model."""
    output_ns: int = 0
    """For splitting the batch and writing the answer."""
    batch_rows: int = 0
    """Rows of the whole batch; 0 if the request was not processed."""
    is_first: bool = False
    """Whether the request is the first of its batch, so that a batch is counted once."""


@dataclass
class _Total:
    count: int = 0
    ns: int = 0

    def add(self, ns: int) -> None:
        self.count += 1
        self.ns += ns

    def to_json(self) -> dict[str, int]:
        return {"count": self.count, "ns": self.ns}


TIMES = ("compute_input", "compute_infer", "compute_output")


@dataclass
class _Counts:
    version: str
    inferences: int = 0
    executions: int = 0
    last_ms: int = 0
    totals: dict[str, _Total] = field(
        default_factory=lambda: {
            name: _Total()
            for name in ("success", "fail", "queue", *TIMES, "cache_hit", "cache_miss")
        }
    )
    batches: dict[int, dict[str, _Total]] = field(default_factory=dict)
    """Maps the number of rows of a batch to the time that such batches took."""


class Statistics:
    """Counts by (model, function). The methods may be called from any thread."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str], _Counts] = {}
        self._lock = threading.Lock()

    def record(
        self, model: str, version: str, function: str, rows: int, ns: int, spent: Spent, good: bool
    ) -> None:
        """Count one request of `rows` rows that took `ns` nanoseconds; `good`: it was answered."""
        with self._lock:
            counts = self._of(model, version, function)
            if not good:
                counts.totals["fail"].add(ns)
                return
            times = dict(zip(TIMES, (spent.input_ns, spent.infer_ns, spent.output_ns)))
            counts.inferences += rows
            counts.last_ms = time.time_ns() // 1_000_000
            counts.totals["success"].add(ns)
            counts.totals["queue"].add(spent.queue_ns)
            for name, value in times.items():
                counts.totals[name].add(value)
            if spent.is_first:
                counts.executions += 1
                batch = counts.batches.setdefault(
                    spent.batch_rows, {name: _Total() for name in TIMES}
                )
                for name, value in times.items():
                    batch[name].add(value)

    def _of(self, model: str, version: str, function: str) -> _Counts:
        counts = self._counts.get((model, function))
        if counts is None or counts.version != version:
            counts = self._counts[model, function] = _Counts(version)
        return counts

    def to_json(self, name: str, model: str, version: str, function: str) -> dict[str, Any]:
        """Return the statistics of a function, under the `name` that a client uses for it."""
        with self._lock:
            counts = self._of(model, version, function)
            return {
                "name": name,
                "version": version,
                "last_inference": counts.last_ms,
                "inference_count": counts.inferences,
                "execution_count": counts.executions,
                "inference_stats": {key: total.to_json() for key, total in counts.totals.items()},
                "batch_stats": [
                    {"batch_size": rows, **{key: each.to_json() for key, each in batch.items()}}
                    for rows, batch in sorted(counts.batches.items())
                ],
            }
