"""One private Ray for all tests of the shell: two CPUs, as on the smallest machine that genray supports."""

import pytest

from genray.dist.session import ray_session


@pytest.fixture(scope="module")
def ray_here():
    with ray_session():
        yield
