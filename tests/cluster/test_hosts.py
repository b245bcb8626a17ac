"""Tests that hosts are separate, end without a message, and leave nothing behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cluster.hosts import BASE, ROOT, Hosts

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def pair(make_hosts) -> Hosts:
    return make_hosts(2)


def test_each_has_its_own_folders_processes_and_address(pair):
    first, second = pair
    for host in pair:
        host.run(
            "bash",
            "-c",
            "echo mine > /root/file; echo mine > /dev/shm/file; echo mine > /tmp/ray/file",
        )
    first.run("bash", "-c", "rm /root/file /dev/shm/file /tmp/ray/file")
    assert (
        second.run("cat", "/root/file", "/dev/shm/file", "/tmp/ray/file").stdout.split()
        == ["mine"] * 3
    )
    assert first.run("hostname", "-I").stdout.strip() == first.address != second.address
    assert not any("sleep 77" in words for _, words in first.processes())
    sleeper = second.start("sleep", "77", log=Path(os.devnull))
    assert any("sleep 77" in words for _, words in second.processes())
    assert not any("sleep 77" in words for _, words in first.processes())
    sleeper.kill()
    sleeper.wait()


def test_a_key_opens_its_sshd_and_the_shell_finds_this_python(pair):
    options = [
        "-o",
        "StrictHostKeyChecking=no",
        "-o",
        "UserKnownHostsFile=/dev/null",
        "-o",
        "LogLevel=ERROR",
    ]
    words = [
        "ssh",
        "-i",
        str(pair.key),
        *options,
        f"root@{pair[1].address}",
        "hostname; command -v python",
    ]
    done = subprocess.run(words, capture_output=True, text=True, timeout=20)
    assert done.stdout.split() == [pair[1].name, str(Path(sys.executable).parent / "python")], (
        done.stderr
    )


def test_a_pulled_cable_is_silence_and_heals(pair):
    first, second = pair
    assert first.reaches(second.name)
    second.cut()
    start = time.monotonic()
    assert not first.reaches(second.name)
    assert time.monotonic() - start > 0.9, "refused, not silent"
    assert second.reaches("127.0.0.1"), "its own processes go on"
    second.heal()
    assert any(first.reaches(second.name) for _ in range(5))


def test_power_off_is_silence_and_takes_memory_and_processes_with_it(pair):
    first, second = pair
    sleeper = second.start("sleep", "77", log=Path(os.devnull))
    second.run("bash", "-c", "echo gone > /dev/shm/gone; echo kept > /root/kept")
    second.power_off()
    assert sleeper.wait(timeout=5) != 0
    start = time.monotonic()
    assert not first.reaches(second.address)
    assert time.monotonic() - start > 0.9, "refused, not silent"
    second.boot(clean=False)
    assert any(first.reaches(second.address) for _ in range(5)), "same address as before"
    assert second.run("cat", "/root/kept").stdout.strip() == "kept"
    assert second.run("ls", "/dev/shm").stdout.split() == []


def test_nothing_stays_when_the_run_that_made_them_is_killed():
    """The hosts end at once with the process that made them. Their names and files are removed when
    the next set is made.
    """
    script = "import time\nfrom tests.cluster.hosts import Hosts\nwith Hosts(1) as h:\n"
    script += "    print(h.prefix, h.folder, h[0]._init, flush=True)\n    time.sleep(60)"
    words = [sys.executable, "-c", script]
    made = subprocess.Popen(
        words,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert made.stdout
    prefix, folder, init = made.stdout.readline().split()
    made.send_signal(signal.SIGKILL)
    made.communicate()
    stop = time.monotonic() + 5
    while Path(f"/proc/{init}").exists():
        assert time.monotonic() < stop, "a host outlived the process that made it"
        time.sleep(0.05)
    assert Path(folder).exists()
    with Hosts(1) as again:
        assert Path(f"/run/netns/{prefix}0").exists() == (again.prefix == prefix)
        assert again.prefix == prefix or not Path(folder).exists()
    links = subprocess.run(["ip", "-br", "link"], capture_output=True, text=True).stdout
    assert f"{prefix}0v" not in links and not Path(f"/run/netns/{prefix}0").exists()
    assert BASE.exists()
