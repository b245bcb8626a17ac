"""Tests that finished runs are kept, and that nothing else is."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.bench.atari.jobs import Job, result_of, run_jobs
from tests.bench.common import REPOSITORY, BenchError


def module(folder: Path, name: str, body: str) -> None:
    (folder / f"{name}.py").write_text(f"import os, sys, time\n{body}\n")


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of modules that a job's `python -m` finds."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    module(tmp_path, "good", "print('{\"value\": ' + sys.argv[1] + '}')")
    module(tmp_path, "bad", "print('half a line'); sys.exit('error: it broke')")
    module(tmp_path, "slow", "open(sys.argv[1], 'w').write(str(os.getpid())); time.sleep(60)")
    module(tmp_path, "core", "print('{\"cpus\": ' + str(list(os.sched_getaffinity(0))) + '}')")
    return tmp_path


def run(jobs: list[Job], folder: Path, **options: float) -> list[str]:
    settings: dict[str, Any] = {"parallel": 2, "timeout_s": 30.0} | options
    return run_jobs(jobs, folder, machine="a machine", say=lambda line: None, **settings)


def test_a_finished_run_is_stored_and_not_run_again(programs: Path):
    jobs = [Job(f"job-{n}", ["good", str(n)], {"seed": n}) for n in range(3)]
    assert run(jobs, programs / "out") == []
    found = [result_of(job, programs / "out") for job in jobs]
    assert [record["result"] for record in found if record] == [{"value": n} for n in range(3)]
    (programs / "out" / "job-1.json").unlink()
    module(programs, "good", "print('{\"value\": 7}')")
    assert run(jobs, programs / "out") == []
    again = [result_of(job, programs / "out") for job in jobs]
    assert [record["result"]["value"] for record in again if record] == [0, 7, 2]
    assert sorted(path.suffix for path in (programs / "out").iterdir()) == [".json"] * 3


def test_a_failed_run_stores_no_result_and_keeps_its_log(programs: Path):
    jobs = [Job("bad", ["bad"], {}), Job("good", ["good", "1"], {})]
    (failure,) = run(jobs, programs / "out")
    assert "exit status 1" in failure and "error: it broke" in failure
    assert result_of(jobs[0], programs / "out") is None
    assert result_of(jobs[1], programs / "out") is not None
    assert "half a line" in (programs / "out" / "bad.log").read_text()


def test_a_result_with_other_settings_is_refused(programs: Path):
    assert run([Job("job", ["good", "1"], {"seconds": 600.0})], programs / "out") == []
    with pytest.raises(BenchError, match="another seconds"):
        run([Job("job", ["good", "1"], {"seconds": 60.0})], programs / "out")


def test_each_run_has_one_core(programs: Path):
    job = Job("core", ["core"], {})
    assert run([job], programs / "out") == []
    record = result_of(job, programs / "out")
    assert record and len(record["result"]["cpus"]) == 1


def test_a_run_that_hangs_is_ended(programs: Path):
    (failure,) = run([Job("slow", ["slow", str(programs / "pid")], {})], programs, timeout_s=2.0)
    assert failure.startswith("slow: exit status -15")


def test_runs_end_when_the_benchmark_is_killed(programs: Path):
    """Linux ends the runs, so that the next start of the table does not compete with them."""
    code = (
        "from pathlib import Path\nfrom tests.bench.atari.jobs import Job, run_jobs\n"
        f"job = Job('slow', ['slow', {str(programs / 'pid')!r}], {{}})\n"
        f"run_jobs([job], Path({str(programs / 'out')!r}), machine='', parallel=1, timeout_s=60)"
    )
    environment = os.environ | {"PYTHONPATH": f"{REPOSITORY}:{programs}"}
    benchmark = subprocess.Popen([sys.executable, "-c", code], env=environment, cwd=REPOSITORY)
    try:
        pid = int(wait_for(lambda: (programs / "pid").exists() and (programs / "pid").read_text()))
    finally:
        benchmark.send_signal(signal.SIGKILL)
        benchmark.wait()
    wait_for(lambda: not is_running(pid))
    assert not list((programs / "out").glob("*.json"))


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_for(condition, seconds: float = 20.0):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.05)
    raise AssertionError(f"not true within {seconds} s")


def test_the_stored_record_has_settings_and_machine(programs: Path):
    assert run([Job("job", ["good", "1"], {"seed": 0})], programs / "out") == []
    record = json.loads((programs / "out" / "job.json").read_text())
    assert record["machine"] == "a machine" and record["settings"] == {"seed": 0}
