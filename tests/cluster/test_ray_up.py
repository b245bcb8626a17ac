"""Tests `ray up` with the shipped cluster-local.yaml, and a job that survives the loss of a
machine.
"""

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.hosts import Hosts
from tests.cluster.ray_up import KEY, Laptop

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def cluster(make_hosts) -> Iterator[tuple[Hosts, Laptop]]:
    """Start a head, three workers (learner, replay, collectors), and the machine that started
    them.
    """
    hosts = make_hosts(5)
    laptop = Laptop(hosts[4], hosts)
    laptop.ray("up", "-y", laptop.file)
    yield hosts, laptop


def await_in_status(laptop: Laptop, *words: str, timeout_s: float = 200) -> str:
    stop = time.monotonic() + timeout_s
    while True:
        shown = laptop.on_head("genray status", check=False).stdout
        if all(word in shown for word in words):
            return shown
        assert time.monotonic() < stop, shown
        time.sleep(5)  # a command takes several seconds of this machine's CPUs


def steps_in(run: Path) -> int:
    file = run / "metrics.jsonl"
    lines = file.read_text().splitlines() if file.exists() else []
    return json.loads(lines[-1])["step"] if lines else 0


def test_up_job_power_off_and_down(cluster, tmp_path):
    hosts, laptop = cluster
    await_in_status(laptop, "4 machines up", "collector", "learner", "replay")
    assert (hosts[1].files / "root/genray/genray/cli.py").exists(), (
        "the checkout travels to every machine"
    )
    assert not (hosts[1].files / "root/genray/.git").exists()

    out, results = tmp_path / "catch", []
    words = (
        "train dqn --preset catch --steps 2000 --evaluate-episodes 16 --evaluate-every 0 --out "
        f"{out}"
    )
    job = threading.Thread(
        target=lambda: results.append(
            laptop.on_head(f"genray submit -- {words}", timeout=600, check=False)
        )
    )
    job.start()
    stop = time.monotonic() + 240
    while steps_in(out) < 600:
        assert job.is_alive() and time.monotonic() < stop, (
            results[0].stdout + results[0].stderr if results else "too slow"
        )
        time.sleep(0.2)
    hosts[3].power_off()  # the machine of both collectors
    time.sleep(3)
    hosts[3].boot(clean=False)
    job.join(timeout=300)
    assert results, "the job did not end"
    done = results[0]
    assert done.returncode == 0, done.stdout
    assert "died" in done.stdout and "it restarts" in done.stdout, done.stdout
    assert steps_in(out) >= 2_000
    assert (out / "model/model.safetensors").exists()

    shown = await_in_status(laptop, "4 machines up", f"run {out}: step 2,0")
    assert "restarts" in shown and f"lost: {hosts[3].address}" in shown and "back since" in shown

    laptop.ray("down", "-y", laptop.file)
    for host in hosts[1:4]:  # as the file's comments say
        ssh = [
            "ssh",
            "-i",
            KEY,
            "-o",
            "StrictHostKeyChecking=no",
            f"root@{host.address}",
            'bash -ic "ray stop"',
        ]
        laptop.host.run(*ssh)
    for host in hosts[:4]:
        left = [words for _, words in host.processes() if "ray" in words and "sshd" not in words]
        assert not left, (host.name, left)
