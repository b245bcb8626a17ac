"""Tests how training ends by Ctrl-C, by SIGTERM and by a fault, and that it resumes."""

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from genray import cli
from genray.rl.catch import Catch
from genray.rl.env import Step
from tests.helpers.cli import TINY, genray


def start_training(run: Path, *form: str) -> subprocess.Popen:
    """Start a training run, and return its process once the run has made an update."""
    command = [
        sys.executable,
        "-m",
        "genray",
        "train",
        "dqn",
        *TINY,
        *form,
        "--steps",
        "1000000",
        "--out",
        str(run),
    ]
    # A separate process group receives the signal as a whole, as from a terminal on Ctrl-C.
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    metrics, stop = run / "metrics.jsonl", time.monotonic() + 150
    while not (metrics.exists() and '"updates": 1' in metrics.read_text()):
        if time.monotonic() > stop or process.poll() is not None:
            process.kill()  # a process that goes on would never end its output
            raise AssertionError(process.communicate())
        time.sleep(0.2)
    return process


def interrupt_and_resume(tmp_path: Path, *form: str) -> None:
    run = tmp_path / "run"
    process = start_training(run, *form)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=90)
    assert process.returncode == 130, err
    assert f"continue with: genray train dqn --resume {run}" in out
    newest = sorted((run / "checkpoints").iterdir())[-1]
    step = int(newest.name)
    # The checkpoint includes the chunks that were in transit.
    assert json.loads((newest / "state.json").read_text())["steps"] == step
    resumed = genray("train", "dqn", "--resume", str(run), *form, "--steps", str(step + 200))
    assert resumed.returncode == 0, resumed.stderr
    assert json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["step"] >= step + 200


def test_ctrl_c_saves_a_local_run_that_resumes(tmp_path):
    interrupt_and_resume(tmp_path, "--local")


class Endless(Catch):
    """An environment whose episodes never end in an evaluation. The user presses Ctrl-C at the
    third step of the evaluation. Only evaluations have six lanes.
    """

    presses = 1

    def __init__(self, num_lanes: int):
        super().__init__(num_lanes)
        self.steps = 0

    def step(self, action_E: np.ndarray) -> Step:
        step = super().step(action_E)
        if self.num_lanes != 6:
            return step
        self.steps += 1
        assert self.steps <= 3, "the evaluation continued"
        for _ in range(self.presses * (self.steps == 3)):
            os.kill(os.getpid(), signal.SIGINT)
        return step._replace(terminated_E=np.zeros(6, bool))


def evaluate_endlessly(run: Path) -> int:
    words = [
        "train",
        "dqn",
        *TINY,
        "--local",
        "--env",
        f"{__name__}:Endless",
        "--steps",
        "200",
        "--out",
        str(run),
    ]
    return cli.main(words)


def test_one_ctrl_c_stops_an_evaluation_within_an_episode_and_saves(tmp_path, capfd):
    assert evaluate_endlessly(tmp_path / "run") == 130
    out, err = capfd.readouterr()
    assert f"continue with: genray train dqn --resume {tmp_path / 'run'}" in out
    assert err.startswith("stopping at the run's next consistent state")
    assert [folder.name for folder in (tmp_path / "run" / "checkpoints").iterdir()] == ["00000208"]
    assert "6 of them cut by the stop" in out  # the scores until the stop
    # The policy is saved, although no evaluation was completed.
    assert (
        cli.main(
            ["evaluate", str(tmp_path / "run"), "--episodes", "2", "--max-episode-frames", "40"]
        )
        == 0
    )
    assert "policy of step 208: " in capfd.readouterr().out


def test_second_ctrl_c_keeps_metrics_and_checkpoint(tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(Endless, "presses", 2)
    run = tmp_path / "run"
    assert evaluate_endlessly(run) == 130
    assert f"stopped; continue with: genray train dqn --resume {run}" in capfd.readouterr().out
    assert json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["step"] == 208
    # The checkpoint was written before the evaluation.
    assert (run / "checkpoints" / "00000208" / "manifest.json").exists()


class Failing(Catch):
    """An environment that raises, or returns an invalid reward, after 60 steps."""

    reward: float | None = None

    def __init__(self, num_lanes: int):
        super().__init__(num_lanes)
        self.steps = 0

    def step(self, action_E: np.ndarray) -> Step:
        self.steps += 1
        step = super().step(action_E)
        if self.steps > 60 and self.reward is None:
            raise ValueError("out of paper")
        return (
            step
            if self.steps <= 60
            else step._replace(reward_E=np.full_like(step.reward_E, self.reward))
        )


@pytest.mark.parametrize(
    ("reward", "told"),
    [
        (None, r"its step failed: ValueError: out of paper \(\S+test_cli_stops.py:\d+\)"),
        (math.nan, "its step gave a reward of nan"),
    ],
)
def test_fault_of_an_own_environment_names_its_line_and_the_resume_command(
    reward, told, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(Failing, "reward", reward)
    run = tmp_path / "run"
    words = [
        "train",
        "dqn",
        *TINY,
        "--local",
        "--env",
        f"{__name__}:Failing",
        "--checkpoint-every",
        "160",
    ]
    assert cli.main([*words, "--steps", "4000", "--out", str(run)]) == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and re.search(told, err), err
    assert (
        f"last checkpoint: {run}/checkpoints/00000" in err
        and f"continue with: genray train dqn --resume {run}" in err
    )
    # No step after the fault was counted.
    assert json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["frames"] <= 60 * 8


@pytest.mark.ray
@pytest.mark.timeout(300)
def test_ctrl_c_saves_a_run_on_ray_that_resumes(tmp_path):
    interrupt_and_resume(tmp_path)


@pytest.mark.ray
@pytest.mark.timeout(300)
def test_sigterm_to_every_process_of_a_private_ray_saves(tmp_path):
    """systemd and Slurm send SIGTERM to all processes at once. Ray must stay until the run is
    saved.
    """
    run = tmp_path / "run"
    process = start_training(run)
    for child in psutil.Process(process.pid).children(recursive=True):
        child.terminate()
    process.terminate()
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130 and f"continue with: genray train dqn --resume {run}" in out, (
        out,
        err,
    )
    newest = sorted((run / "checkpoints").iterdir())[-1]
    assert (newest / "learner.pt").exists() and (newest / "replay-0").is_dir()
