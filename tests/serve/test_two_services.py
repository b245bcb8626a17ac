"""Tests two services on one machine: what they listen on, how they end, and that they never meet.

The first one listens on all addresses. The second one listens on one address of this machine, and
it is started in a directory with files that have the names of modules. Another host is a network
namespace, which needs root.
"""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from serve.ports import FIRST, LAST, reserved_address
from tests.cluster.hosts import missing
from tests.serve.real import Served, command_of, start_process, wait_until_ready

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

HERE, THERE = "10.79.41.1", "10.79.41.2"
NAMES = ("serve", "tuning", "genray", "types", "haproxy")


@pytest.fixture(scope="module")
def network() -> Iterator[tuple[str, list[str]]]:
    """Return an address of this machine, and the words in front of a command that make it run on
    another host (none without root).
    """
    if missing():
        yield "127.0.0.2", []
        return
    space, link = f"genray-{os.getpid()}", f"gr{os.getpid()}"
    _ip("netns", "add", space)
    try:
        _ip("link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", space)
        _ip("addr", "add", f"{HERE}/24", "dev", link)
        _ip("link", "set", link, "up")
        _ip("-n", space, "addr", "add", f"{THERE}/24", "dev", "eth0")
        _ip("-n", space, "link", "set", "eth0", "up")
        yield HERE, ["ip", "netns", "exec", space]
    finally:
        _ip("netns", "del", space)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


@pytest.fixture(scope="module")
def services(
    trained: Path, network: tuple[str, list[str]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Served, Served]]:
    folder = tmp_path_factory.mktemp("two")
    for models in ("one/road-runner", "one/digits-gan", "two/digits-ae"):
        shutil.copytree(trained / Path(models).name, folder / models)
    for name in NAMES:
        (folder / f"{name}.py").write_text("raise RuntimeError('a file of the user')\n")
    processes = [
        start_process(folder / "one", "--port", "0", "--host", "0.0.0.0", "--open"),
        start_process(folder / "two", "--port", "0", "--host", network[0], "--open", cwd=folder),
    ]
    families: list[psutil.Process] = []
    try:
        one, two = (wait_until_ready(each, folder) for each in processes)
        families = [*one.family(), *two.family()]
        yield one, two
    finally:
        for each in processes:
            each.kill()
            each.wait()
            assert each.stdout
            each.stdout.close()
    _, left = psutil.wait_procs(families, timeout=20)
    assert not left, f"still running: {[command_of(each) for each in left]}"


def _ports(service: Served) -> set[tuple[str, int]]:
    """Return (address, port) of every socket that is no internal one of Ray."""
    found = {(host, port) for _, host, port in service.sockets()}
    return {(host, port) for host, port in found if port == service.port or FIRST <= port <= LAST}


def _asks(network: tuple[str, list[str]], host: str, port: int) -> bool:
    """Whether another host, or this one without root, can connect."""
    code = f"import socket; socket.create_connection(('{host}', {port}), 3)"
    return subprocess.run([*network[1], "python3", "-c", code], capture_output=True).returncode == 0


def test_serve_host_opens_the_address_asked_for_and_nothing_else(
    services: tuple[Served, Served], network: tuple[str, list[str]]
):
    for service, host in zip(services, ("0.0.0.0", network[0])):
        # The metrics of Ray's own processes listen on every address.
        served = {
            (address, port)
            for command, address, port in service.sockets()
            if "haproxy" in command or FIRST <= port <= LAST
            if "Dashboard" not in command and "python" not in command
        }
        assert (host, service.port) in served
        assert {address for address, port in served if port != service.port} == {"127.0.0.1"}
        assert len(served) >= 5  # the service, two pages of HAProxy, the fallback, a replica
    for service in services:
        assert httpx.get(f"http://{network[0]}:{service.port}/healthz").status_code == 200
        if network[1]:
            assert _asks(network, HERE, service.port)
        inner = [port for host, port in _ports(service) if host == "127.0.0.1"]
        assert inner and not any(_asks(network, network[0], port) for port in inner)
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{services[1].port}/healthz")


def test_serve_limits_the_time_of_a_head_on_every_open_port(
    services: tuple[Served, Served], network: tuple[str, list[str]]
):
    slow = [socket.create_connection((network[0], each.port), 20) for each in services]
    begin = time.monotonic()
    for each in slow:
        each.sendall(b"GET /healthz HTTP/1.1\r\nHost: ")
    for each in slow:
        assert b" 408 " in each.recv(100)
        each.close()
    assert time.monotonic() - begin < 15


def test_two_services_never_answer_for_each_other(services: tuple[Served, Served]):
    one, two = services
    assert {port for _, port in _ports(one)}.isdisjoint({port for _, port in _ports(two)})
    (victim,) = one.replicas()
    victim.kill()
    found: list[set[str]] = [set(), set()]
    stop = time.monotonic() + 90
    while time.monotonic() < stop and not (one.replicas() and found[0]):
        for each, service in zip(found, services):
            try:
                answer = httpx.get(f"{service.url}/v1/models", timeout=5)
            except httpx.HTTPError:
                continue
            if answer.status_code == 200:
                each |= {model["id"] for model in answer.json()["data"]}
        time.sleep(0.1)
    assert found == [{"road-runner", "digits-gan"}, {"digits-ae"}]


def test_serve_that_is_killed_leaves_nothing(services: tuple[Served, Served]):
    _, two = services
    family, host = two.family(), two.url.rpartition(":")[0].removeprefix("http://")
    (folder,) = {
        Path(command.split()[3]).parents[1]
        for command, _, port in two.sockets()
        if port == two.port and "haproxy -db" in command
    }
    two.process.kill()
    _, left = psutil.wait_procs(family, timeout=15)
    assert not left, f"still running: {[command_of(each) for each in left]}"
    assert not folder.exists()
    with reserved_address("port", host, two.port):  # a restart would work
        pass


def test_sigterm_lets_the_service_finish_a_request(services: tuple[Served, Served]):
    one, _ = services
    family = one.family()
    _until_answered(one)
    with httpx.stream(
        "GET", f"{one.url}/api/play/road-runner?steps=60&fps=20", timeout=60
    ) as answer:
        lines = answer.iter_lines()
        next(lines)
        one.process.terminate()
        assert len(list(lines)) == 60
    assert one.end(signal.SIGTERM, family) == 0


def _until_answered(service: Served) -> None:
    stop = time.monotonic() + 60
    while time.monotonic() < stop:
        try:
            if httpx.get(f"{service.url}/healthz", timeout=5).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.2)
