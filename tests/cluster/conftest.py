"""Provides hosts for tests that lose machines."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.cluster.hosts import Hosts, missing


@pytest.fixture(scope="module")
def make_hosts() -> Iterator[Callable[[int], Hosts]]:
    """Return a function: `make_hosts(3)` boots three hosts. All are removed when the module's tests
    end.
    """
    if reason := missing():
        pytest.skip(reason)
    with ExitStack() as stack:
        yield lambda count: stack.enter_context(Hosts(count))
