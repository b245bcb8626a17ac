"""Tests that an unusable cluster gives one line and exit status 2, and that nothing is left.

Clocks are not tested here, because hosts on one kernel share the clock.
tests/commands/test_cluster_commands.py tests their arithmetic.
"""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.hosts import ROOT, Host
from tests.cluster.ray_cluster import RayCluster, shared_folder

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

ALL_ROLES = {"genray_learner": 1, "genray_replay": 2, "genray_collector": 2}
RUN = ("train", "dqn", "--preset", "catch", "--address", "auto", "--shards", "2")


@pytest.fixture(scope="module")
def cluster(make_hosts) -> Iterator[RayCluster]:
    """Start a head and one worker with every role; hosts[2] can join."""
    cluster = RayCluster(make_hosts(3), {1: ALL_ROLES, 2: {"genray_replay": 1}}, dashboard=True)
    cluster.start(2)
    yield cluster


@pytest.fixture
def late(cluster) -> Iterator[Host]:
    """Return a machine that has not joined, and reset it afterwards."""
    yield cluster.hosts[2]
    cluster.hosts[2].power_off()
    cluster.hosts[2].boot()


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """Return the one line with which a refused request ends."""
    assert done.returncode == 2, (done.returncode, done.stdout, done.stderr)
    # Ray's C++ part may have written a warning of its own before.
    lines = [
        line for line in done.stderr.splitlines() if line.strip() and not line.startswith("[20")
    ]
    assert len(lines) == 1 and lines[0].startswith("error: "), done.stderr
    return lines[0]


def replace_file(host: Host, file: Path, old: str, new: str) -> None:
    """Let one host alone see other content of a file that all hosts share."""
    text = file.read_text()
    assert old in text
    changed = host.files / "root" / file.name
    changed.write_text(text.replace(old, new, 1))
    host.run("mount", "--bind", f"/root/{file.name}", str(file))


def test_missing_roles(cluster, tmp_path):
    out = tmp_path / "run"
    line = refused(cluster.genray(*RUN, "--collectors", "6", "--wait-s", "2", "--out", str(out)))
    assert (
        "the cluster lacks genray_collector (6 needed, 2 offered) after 2 s" in line
        and "--collectors" in line
    )
    assert not out.exists()


def test_storage_that_only_the_head_can_see(cluster):
    line = refused(cluster.genray(*RUN, "--out", "/root/run"))
    assert (
        f"{cluster.hosts[1].address} cannot see /root/run; choose an --out that every machine sees"
        in line
    )
    assert cluster.head.run("ls", "/root").stdout.split() == [], "nothing is left behind"


def test_a_wrong_token(cluster, tmp_path):
    out = tmp_path / "run"
    line = refused(cluster.genray(*RUN, "--out", str(out), env={"RAY_AUTH_TOKEN": "wrong-" * 8}))
    assert "token" in line and "~/.ray/auth_token" in line, line
    assert not out.exists()
    words = ("submit", "--", "train", "dqn", "--out", str(out))
    line = refused(cluster.genray(*words, env={"RAY_AUTH_TOKEN": "wrong-" * 8}))
    assert "refuses this machine's token" in line


def test_another_ray_on_a_machine(cluster, late):
    """Ray itself refuses the machine, and names both versions."""
    import ray

    replace_file(
        late, Path(ray.__file__).parent / "_version.py", f'"{ray.__version__}"', '"2.59.0"'
    )
    done = late.run("ray", "start", f"--address={cluster.address}", env=cluster.env, check=False)
    assert done.returncode != 0
    said = done.stdout + done.stderr
    assert "ersion mismatch" in said and "2.59.0" in said and ray.__version__ in said


def test_another_genray_on_a_machine(cluster, late, tmp_path):
    replace_file(late, ROOT / "genray/__init__.py", '"""', '"""Changed here. ')
    cluster.start_workers(2)
    line = refused(cluster.genray(*RUN, "--out", str(tmp_path / "run")))
    assert (
        f"machine {late.address} runs genray" in line
        and "install the same on every machine" in line
    )


def test_another_ray_at_the_driver(cluster, tmp_path):
    import ray

    version = Path(ray.__file__).parent / "_version.py"
    replace_file(cluster.head, version, f'"{ray.__version__}"', '"2.59.0"')
    try:
        line = refused(cluster.genray(*RUN, "--out", str(tmp_path / "run")))
    finally:
        cluster.head.run("umount", str(version))
    assert (
        "2.59.0" in line and ray.__version__ in line and "install the same on every machine" in line
    ), line


def test_a_machine_outside_the_cluster(cluster, late, tmp_path):
    words = [
        sys.executable,
        "-m",
        "genray",
        *RUN[:-4],
        "--address",
        cluster.address,
        "--out",
        str(tmp_path / "run"),
    ]
    line = refused(late.run(*words, env=cluster.env, check=False))
    assert "run it on a machine of the cluster, or with genray submit" in line, line


def test_the_same_cluster_takes_a_run_that_fits(cluster, tmp_path):
    """The cluster accepts a valid run, so the refusals have the causes that they name. The run is
    behind a URL that every host sees.
    """
    folder = shared_folder(tmp_path / "shared")
    words = (
        "--steps",
        "600",
        "--evaluate-episodes",
        "2",
        "--min-size",
        "200",
        "--out",
        f"file://{folder}/run",
    )
    done = cluster.genray(*RUN, *words, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    names = {file.name for file in (folder / "run").glob("checkpoints/*/*")}
    assert {"manifest.json", "learner.pt", "state.json", "replay-0", "replay-1"} <= names
    shutil.rmtree(folder)
