"""Tests that signals and a closed output stop a run, with real processes and pipes."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from genray.runs.rundir import RunDir
from genray.runs.stop import StopRequests, stop_signals

GENRAY = [sys.executable, "-m", "genray"]
SMALL = (
    *("--steps", "1000000", "--min-size", "32", "--channels", "2", "2", "2", "--hidden", "8"),
    *("--evaluate-episodes", "1", "--evaluate-every", "64"),
)


@pytest.fixture(autouse=True)
def sighup_is_not_ignored() -> Iterator[None]:
    """Under `nohup make test`, the tests and the processes that they start would ignore SIGHUP."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_stop_requests_record_a_signal(number: signal.Signals):
    with StopRequests() as stop:
        stop.check()
        signal.raise_signal(number)
        with pytest.raises(KeyboardInterrupt):
            stop.check()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)


def test_stop_requests_leave_sighup_ignored_under_nohup():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert signal.SIGHUP not in stop_signals()
        with StopRequests() as stop:
            signal.raise_signal(signal.SIGHUP)
            stop.check()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_stop_requests_count_a_closed_output():
    with StopRequests(lambda: True) as stop, pytest.raises(KeyboardInterrupt):
        stop.check()


def start(words: list[str], out: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [*GENRAY, *words, "--out", str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.timeout(600)
def test_train_can_be_resumed_after_a_closed_pipe_and_after_sighup(tmp_path: Path):
    """One process is `genray train dqn … | head -1`; the other is `train ae` in a closed terminal.

    Both run at the same time, to save time.
    """
    with (
        start(["train", "dqn", "--preset", "catch", "--local", *SMALL], tmp_path / "dqn") as dqn,
        start(
            ["train", "ae", "--epochs", "1000000", "--validate-every", "10"], tmp_path / "ae"
        ) as ae,
    ):
        try:
            assert dqn.stdout is not None and ae.stdout is not None and dqn.stderr is not None
            assert dqn.stdout.readline()
            dqn.stdout.close()
            assert ae.stdout.readline()
            ae.send_signal(signal.SIGHUP)
            said = dqn.stderr.read()
            printed, errors = ae.communicate(timeout=300)
            assert (dqn.wait(300), ae.returncode) == (130, 130)
        finally:
            dqn.kill()
            ae.kill()
    assert "Traceback" not in said + errors and "Exception ignored" not in said + errors
    assert f"stopped; continue with: genray train dqn --resume {tmp_path / 'dqn'} --local" in said
    assert f"stopped; continue with: genray train ae --resume {tmp_path / 'ae'}" in printed
    for name in ("dqn", "ae"):
        with RunDir(tmp_path / name) as run:
            assert json.loads((run.latest_checkpoint() / "manifest.json").read_text())["step"] > 0
