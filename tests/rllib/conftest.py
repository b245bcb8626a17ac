"""Provides one private Ray of two CPUs for all files of this directory."""

import os
from collections.abc import Iterator

import pytest
import ray

from genray.ray_processes import few_processes


@pytest.fixture(scope="package")
def two_cpus() -> Iterator[None]:
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    with few_processes():
        ray.init(
            address="local",  # another process of the tests may run a Ray, too
            num_cpus=2,
            include_dashboard=False,
            object_store_memory=300 * 2**20,
            log_to_driver=False,
            logging_level="ERROR",
        )
    yield
    ray.shutdown()
