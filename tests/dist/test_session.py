"""Joining a cluster: an address where nobody answers is one clear line, at once."""

import socket
import time

import pytest

from genray.dist.session import ray_session
from genray.errors import ResourceError


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
