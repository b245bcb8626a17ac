"""Closes the trials of each test after the test."""

import pytest

from tests.helpers import tuning as helpers


@pytest.fixture(autouse=True)
def trials_are_closed():
    yield
    while helpers.OPEN:
        helpers.OPEN.pop().close()
