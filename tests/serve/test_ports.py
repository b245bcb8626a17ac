"""Tests the reservation of ports, and what ends the processes of a service that was killed."""

import os
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from genray.errors import ConfigError, ResourceError
from serve import ports
from serve.cleanup import Cleanup
from serve.ports import FIRST, LAST, free_port, reserved_address, reserved_ports


def test_reserved_ports_of_services_are_disjoint_and_returned():
    with ExitStack() as held:
        each = [held.enter_context(reserved_ports(1 + 20 * number)) for number in range(3)]
        ranges = [range(one.fallback, one.end_replica) for one in each]
        assert len({port for one in ranges for port in one}) == sum(map(len, ranges))
        assert all(one.start >= FIRST and one.stop - 1 <= LAST for one in ranges)
        assert all(
            one.end_replica - one.first_replica >= 8 * replicas
            for one, replicas in zip(each, (1, 21, 41))
        )
    with reserved_ports(1200) as all_of_http:  # almost all
        assert all_of_http.first_grpc_replica == all_of_http.end_replica
    with reserved_ports(3, grpc=True) as both:
        assert both.first_grpc_replica - both.first_replica >= 8 * 3
        assert both.end_replica - both.first_grpc_replica == 8 * 3


def test_reserved_ports_skip_a_port_in_use(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ports, "LAST", FIRST + ports.BLOCK - 1)  # one block
    with socket.socket() as other:
        other.bind(("127.0.0.1", FIRST + 3))
        other.listen()
        with pytest.raises(ResourceError, match="--replicas 1: other services"), reserved_ports(1):
            pass
    with reserved_ports(1) as mine:
        assert mine.fallback == FIRST


def test_reserved_address_is_refused_to_a_second_service():
    port = free_port()
    with (
        reserved_address("port", "127.0.0.1", port),
        pytest.raises(ResourceError, match=f"--port {port}: cannot listen on 127.0.0.1:{port}"),
        reserved_address("port", "127.0.0.1", port),
    ):
        pass
    with reserved_address("port", "127.0.0.1", port):
        pass


CRASH = """
import os, subprocess, sys
from pathlib import Path
from serve.cleanup import Cleanup
with Cleanup("a-test", Path(sys.argv[1])) as cleanup:
    first = subprocess.Popen(["sleep", "60"], env={})
    cleanup.note_children()
    second = subprocess.Popen(["setsid", "sleep", "60"])
    print(first.pid, second.pid, flush=True)
    os.kill(os.getpid(), 9)
"""


def test_cleanup_ends_the_processes_of_a_killed_service(tmp_path: Path):
    folder = tmp_path / "files"
    folder.mkdir()
    ran = subprocess.run(
        [sys.executable, "-c", CRASH, str(folder)], capture_output=True, text=True, timeout=60
    )
    children = [int(word) for word in ran.stdout.split()]
    assert len(children) == 2, ran.stderr
    stop = time.monotonic() + 30
    while folder.exists() or any(_lives(child) for child in children):
        assert time.monotonic() < stop, "left over"
        time.sleep(0.05)


def test_cleanup_does_nothing_after_an_orderly_end(tmp_path: Path):
    with Cleanup("another-test", tmp_path) as cleanup:
        child = subprocess.Popen(["sleep", "60"])
        cleanup.note_children()
    assert tmp_path.exists() and _lives(child.pid)
    child.kill()
    child.wait()


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except OSError:
        return False
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def test_grpc_ports_beyond_loopback_are_noticed():
    from serve.grpc_options import check_loopback

    with reserved_ports(1, grpc=True) as mine, socket.socket() as server:
        server.bind(("127.0.0.1", mine.first_grpc_replica))
        server.listen()
        check_loopback(mine)
        with socket.socket() as other:
            other.bind(("0.0.0.0", mine.fallback_grpc))
            other.listen()
            with pytest.raises(ConfigError, match=f"opens the internal port {mine.fallback_grpc}"):
                check_loopback(mine)
