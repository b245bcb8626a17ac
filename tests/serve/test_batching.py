"""Tests that the batcher joins waiting requests and returns each request its own rows."""

import asyncio
import threading

import numpy as np
import pytest

from serve.batching import Batcher
from serve.errors import Busy
from serve.models import Arrays, Function, TensorSpec

SPEC = (TensorSpec("x", "FP32", (2,)),)


class Doubling:
    """A function that doubles its rows, records its calls, and waits while `gate` is not set."""

    def __init__(self) -> None:
        self.calls: list[int] = []
        self.entered, self.gate = threading.Event(), threading.Event()
        self.gate.set()
        self.function = Function(SPEC, SPEC, self.run)

    def run(self, arrays: Arrays) -> Arrays:
        self.entered.set()
        self.gate.wait(10)
        self.calls.append(len(arrays["x"]))
        if (arrays["x"] == 13).any():
            raise ValueError("thirteen")
        return {"x": 2 * arrays["x"]}


def rows(value: float, count: int = 1) -> Arrays:
    return {"x": np.full((count, 2), value, np.float32)}


def test_batcher_joins_requests_and_returns_each_its_rows():
    doubling = Doubling()

    async def main() -> list[Arrays]:
        batcher = Batcher(max_rows=8)
        doubling.gate.clear()
        tasks = [
            asyncio.create_task(batcher.run(doubling.function, rows(value, 1 + value % 3)))
            for value in range(12)
        ]
        await asyncio.sleep(0.05)
        doubling.gate.set()
        return await asyncio.gather(*tasks)

    found = asyncio.run(main())
    for value, arrays in enumerate(found):
        assert arrays["x"].shape == (1 + value % 3, 2) and (arrays["x"] == 2 * value).all()
    # The first batch has the requests that came before the worker started. The other requests were
    # joined, with at most 8 rows in a batch.
    assert sum(doubling.calls) == 24 and len(doubling.calls) <= 5 and max(doubling.calls) <= 8


def test_batcher_runs_a_request_beyond_max_rows_alone():
    doubling = Doubling()
    found = asyncio.run(Batcher(max_rows=4).run(doubling.function, rows(3, 9)))
    assert found["x"].shape == (9, 2) and doubling.calls == [9]


def test_batcher_returns_the_result_of_after_and_isolates_its_error():
    doubling = Doubling()

    def spoil(arrays: Arrays) -> str:
        raise RuntimeError("mine alone")

    async def main() -> list[object]:
        batcher = Batcher()
        doubling.gate.clear()
        calls = [batcher.run(doubling.function, rows(1), lambda arrays: float(arrays["x"].sum()))]
        calls += [
            batcher.run(doubling.function, rows(2), spoil),
            batcher.run(doubling.function, rows(3)),
        ]
        tasks = [asyncio.create_task(call) for call in calls]
        await asyncio.sleep(0.05)
        doubling.gate.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    total, spoiled, plain = asyncio.run(main())
    assert total == 4.0 and isinstance(spoiled, RuntimeError) and (plain["x"] == 6).all()  # type: ignore[index]


def test_batcher_raises_the_error_of_a_model_and_continues():
    doubling = Doubling()

    async def main() -> None:
        batcher = Batcher()
        with pytest.raises(ValueError, match="thirteen"):
            await batcher.run(doubling.function, rows(13))
        assert ((await batcher.run(doubling.function, rows(4)))["x"] == 8).all()

    asyncio.run(main())


def test_batcher_raises_busy_beyond_max_waiting_rows():
    doubling = Doubling()

    async def main() -> None:
        batcher = Batcher(max_rows=4, max_waiting_rows=6)
        doubling.gate.clear()
        first = asyncio.create_task(batcher.run(doubling.function, rows(1, 4)))
        # A running batch no longer counts as waiting.
        await asyncio.to_thread(doubling.entered.wait, 10)
        waiting = asyncio.create_task(batcher.run(doubling.function, rows(2, 5)))
        await asyncio.sleep(0.05)
        with pytest.raises(Busy, match="5 rows are waiting") as refused:
            await batcher.run(doubling.function, rows(3, 2))
        assert refused.value.status == 429 and refused.value.headers["Retry-After"] == "1"
        doubling.gate.set()
        await asyncio.gather(first, waiting)
        assert batcher.waiting_rows == 0
        await batcher.run(doubling.function, rows(3, 6))

    asyncio.run(main())


def test_batcher_skips_cancelled_requests():
    doubling = Doubling()

    async def main() -> None:
        batcher = Batcher(max_rows=1)
        doubling.gate.clear()
        tasks = [
            asyncio.create_task(batcher.run(doubling.function, rows(value))) for value in range(3)
        ]
        await asyncio.sleep(0.05)
        tasks[1].cancel()
        doubling.gate.set()
        assert ((await tasks[0])["x"] == 0).all() and ((await tasks[2])["x"] == 4).all()

    asyncio.run(main())
    assert doubling.calls == [1, 1]


def test_batcher_runs_the_function_of_the_oldest_request_first():
    """The function whose oldest request has waited longest runs next, so that none starves."""
    one, other = Doubling(), Doubling()
    order: list[str] = []

    async def main() -> None:
        batcher = Batcher(max_rows=1)
        one.gate.clear()

        async def ask(which: Doubling, name: str) -> None:
            await batcher.run(which.function, rows(1))
            order.append(name)

        tasks = [asyncio.create_task(ask(one if name == "a" else other, name)) for name in "aabab"]
        await asyncio.sleep(0.05)
        one.gate.set()
        await asyncio.gather(*tasks)

    asyncio.run(main())
    assert order == list("aabab")
