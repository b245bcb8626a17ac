"""Joining a cluster: an address where nobody answers, or too few GPUs, is one clear line."""

import socket
import time
from dataclasses import replace
from typing import Any

import pytest

from genray.dist.session import gpus_each, ray_session
from genray.errors import ResourceError
from genray.rl import DQNConfig
from tests.dist.helpers import tiny


@pytest.mark.parametrize("host", ["127.0.0.1", "no-such-host.invalid"])
def test_an_address_where_no_ray_answers(host: str):
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # bound, but it does not listen
        address, start = f"{host}:{nobody.getsockname()[1]}", time.monotonic()
        with pytest.raises(
            ResourceError, match=f"--address {address}: no Ray cluster answers there .* leave --address out"
        ):
            with ray_session(address):
                raise AssertionError("joined")
    assert time.monotonic() - start < 30  # Ray itself tries for two minutes


@pytest.mark.parametrize(
    ("device", "learners", "have", "each"),
    [("cpu", 4, 0, 0), ("cpu", 1, 8, 0), ("auto", 3, 0, 0), ("auto", 2, 2, 1), ("cuda", 2, 8, 1)],
)
def test_each_learner_has_a_gpu_of_its_own_where_there_are_any(device: Any, learners: int, have: int, each: int):
    assert gpus_each(on(device, learners), have) == each


@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_more_learners_than_gpus(device: Any):
    with pytest.raises(
        ResourceError, match=r"^--learners 4: each needs a GPU, and this cluster has 2; use --learners 2, or"
    ):
        gpus_each(on(device, 4), 2)


def test_cuda_without_a_gpu():
    with pytest.raises(ResourceError, match="^--device cuda: Ray sees no GPU in this cluster; use --device cpu$"):
        gpus_each(on("cuda", 1), 0)


def on(device: Any, learners: int) -> DQNConfig:
    config = tiny()
    return replace(config, run=replace(config.run, device=device), learner=replace(config.learner, learners=learners))
