"""Hosts for tests that need machines which can be lost."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.cluster.hosts import Hosts, missing


@pytest.fixture(scope="module")
def make_hosts() -> Iterator[Callable[[int], Hosts]]:
    """`make_hosts(3)` boots three hosts; all are gone when the module's tests end, however they
    end.
    """
    if reason := missing():
        pytest.skip(reason)
    with ExitStack() as stack:
        yield lambda count: stack.enter_context(Hosts(count))
