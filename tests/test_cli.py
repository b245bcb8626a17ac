"""The command line: what it makes, and the one line that it says about a request that cannot be
carried out.
"""

import errno
import io
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import psutil
import pytest

from genray import cli
from genray.errors import ResourceError, disk_error
from genray.machine import check_socket_path
from genray.rl.catch import Catch
from genray.rl.env import Step

TINY = [
    "--preset",
    "catch",
    "--channels",
    "4",
    "4",
    "4",
    "--hidden",
    "16",
    "--capacity",
    "2000",
    "--min-size",
    "100",
]
TINY += ["--evaluate-episodes", "6", "--chunk-rows", "4"]


def genray(*words: str) -> subprocess.CompletedProcess:
    """The command in this process, which has paid for its imports."""
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
        status = cli.main(words)
    return subprocess.CompletedProcess(words, status, out.getvalue(), err.getvalue())


BAD = {
    "trian dqn": "no such command; did you mean train dqn",
    "train dqn --game breakot": "--game breakot: no such Atari game; did you mean breakout",
    "train dqn --game joust": "--game joust: a two-player game",
    "train dqn --game warlords": "--game warlords: a two-player game",
    "train dqn --alpah 0.5": "no such option: --alpah, 0.5; did you mean --alpha?",
    "train dqn --alpha much": "--alpha: could not convert string to float: 'much'",
    "train dqn --life-loss perhaps": "Expected one of ('ignore', 'terminal')",
    "train dqn --preset pong": "--preset pong: no such preset; did you mean pong_quick",
    "train dqn --capacity 10 --min-size 5": (
        "--capacity 10: less than a batch; use at least --batch-size 32"
    ),
    "train dqn --capacity 100 --min-size 50": "--capacity 100: leaves 6 rows for each of 16 lanes",
    "train dqn --steps 2000": (
        "--steps 2000: ends before the first update, because learning begins after --min-size 5000"
    ),
    "train dqn --epsilon 1": "--epsilon 1.0: a ladder needs a base inside (0, 1), e.g. 0.4",
    "train dqn --learning-rate -1e-4": "--learning-rate -0.0001: must be > 0, e.g. 1e-4",
    "train dqn --capacity 90000000000": "use at most --capacity",
    "train dqn --learners 0": "--learners 0: must be ≥ 1",
    "train dqn --local --learners 2": "--learners 2: --local has one learner; leave one of",
    "train dqn --learners 99 --device cuda": "--device cpu",
    "train dqn --learner-snapshot-s 0": "--learner-snapshot-s 0.0: must be > 0 seconds, e.g. 10",
    "train dqn --shards 9": "--shards 9: more than --collectors 2",
    "train dqn --env nowhere:Game": (
        "--env nowhere:Game: No module named 'nowhere'; write module:factory"
    ),
    "train dqn --resume nowhere": "nowhere: not a run directory (no config.yaml)",
    "train dqn --resume runs/one --out runs/two": (
        "--out runs/two: a resumed run keeps its value; leave --out out"
    ),
    "train dqn --learner-threads -1": "--learner-threads -1: must be ≥ 0",
    "train dqn --local --address auto": "--address auto: --local runs without Ray; leave one",
    "evaluate": "name a run first",
    "evaluate nowhere --seed -1": "--seed -1: must be ≥ 0, e.g. 10000",
    "play nowhere --out clip.gif --seed -1": "--seed -1: must be ≥ 0, e.g. 0",
    "evaluate nowhere": "nowhere: not a model (no config.json)",
    "play nowhere --out clip.gif": "nowhere: not a model (no config.json)",
    "play nowhere --out clip.avi": ".gif",
    "play nowhere": "missing --out",
    "play s3://bucket/run --out clip.gif": (
        "s3://bucket/run: a URL; copy its folder `model` to this machine"
    ),
}


@pytest.mark.parametrize("words", BAD)
def test_bad_input_is_one_line_and_writes_nothing(words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(words.split()) == 2
    out, err = capsys.readouterr()
    assert err.startswith("error: ") and err.count("\n") == 1
    assert BAD[words] in err
    assert not out and not list(tmp_path.iterdir())


@pytest.mark.skipif("__import__('torch').cuda.is_available()", reason="this machine has a GPU")
def test_cuda_without_a_gpu(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["train", "dqn", "--device", "cuda"]) == 2
    assert "--device cuda: no usable GPU here; use --device cpu" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_help_names_every_command():
    done = subprocess.run(
        [sys.executable, "-m", "genray", "--help"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0
    assert all(name in done.stdout for name in cli.COMMANDS)


def test_local_run_leaves_everything_and_resumes(tmp_path):
    run = tmp_path / "run"
    done = genray(
        "train",
        "dqn",
        *TINY,
        "--local",
        "--steps",
        "1000",
        "--checkpoint-every",
        "400",
        "--out",
        str(run),
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().splitlines()[-1] == str(run)
    assert (run / "config.yaml").exists() and (run / "model" / "model.safetensors").exists()
    assert list((run / "tensorboard").glob("events*"))
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert {"step", "seconds", "agent_steps_per_s", "samples_per_insert", "epsilon"} <= lines[
        0
    ].keys()
    assert "evaluation_mean" in lines[-1]

    again = genray("train", "dqn", "--resume", str(run), "--local", "--steps", "1400")
    assert again.returncode == 0, again.stderr
    assert f"resuming from {run}" in again.stdout
    steps = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(steps) and steps[-1] >= 1_400

    scores = genray("evaluate", str(run), "--episodes", "5", "--epsilon", "0")
    assert (
        scores.returncode == 0
        and len(json.loads((run / "evaluations.jsonl").read_text())["scores"]) == 5
    )
    clip = genray("play", str(run), "--out", str(tmp_path / "clip.gif"))
    assert clip.returncode == 0 and (tmp_path / "clip.gif").stat().st_size > 500
    assert "in 11 steps" in clip.stdout  # and one frame more

    taken = genray("train", "dqn", *TINY, "--local", "--out", str(run))
    assert taken.returncode == 2 and f"continue with --resume {run}" in taken.stderr
    fewer = genray("train", "dqn", "--resume", str(run), "--local", "--steps", "1000")
    assert fewer.returncode == 2 and "--steps 1000: this run has made 1,4" in fewer.stderr
    newest = sorted((run / "checkpoints").iterdir())[-1] / "learner.pt"
    newest.write_bytes(newest.read_bytes()[:-100])
    damaged = genray("train", "dqn", "--resume", str(run), "--local")
    assert damaged.returncode == 2 and "learner.pt is damaged" in damaged.stderr


def start_training(run: Path, *form: str) -> subprocess.Popen:
    """A run that has made an update."""
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
    # A process group of its own, interrupted as a whole: what a terminal does on Ctrl-C.
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    metrics, stop = run / "metrics.jsonl", time.monotonic() + 90
    while not (metrics.exists() and '"updates": 1' in metrics.read_text()):
        assert time.monotonic() < stop and process.poll() is None, process.communicate()
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
    # what was on its way included
    assert json.loads((newest / "state.json").read_text())["steps"] == step
    resumed = genray("train", "dqn", "--resume", str(run), *form, "--steps", str(step + 200))
    assert resumed.returncode == 0, resumed.stderr
    assert json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["step"] >= step + 200


def test_ctrl_c_saves_and_resumes_local(tmp_path):
    interrupt_and_resume(tmp_path, "--local")


class Endless(Catch):
    """In an evaluation, which alone has six lanes, episodes never end, and the user presses
    Ctrl-C at the third step.
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
        assert self.steps <= 3, "played on"
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
    assert err.startswith("stopping as soon as the run's state is whole")
    assert [folder.name for folder in (tmp_path / "run" / "checkpoints").iterdir()] == ["00000208"]
    assert "6 of them cut by the stop" in out  # what was measured until then
    # The policy is there, though none was ever evaluated.
    assert (
        cli.main(
            ["evaluate", str(tmp_path / "run"), "--episodes", "2", "--max-episode-frames", "40"]
        )
        == 0
    )
    assert "policy of step 208: " in capfd.readouterr().out


def test_a_second_ctrl_c_keeps_what_was_measured(tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(Endless, "presses", 2)
    run = tmp_path / "run"
    assert evaluate_endlessly(run) == 130
    assert f"stopped; continue with: genray train dqn --resume {run}" in capfd.readouterr().out
    assert json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["step"] == 208
    # written before the evaluation
    assert (run / "checkpoints" / "00000208" / "manifest.json").exists()


class Failing(Catch):
    """Sound for 60 steps, as long as nobody looks at it twice."""

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
        (None, r"its step failed: ValueError: out of paper \(\S+test_cli.py:\d+\)"),
        (math.nan, "its step gave a reward of nan"),
    ],
)
def test_a_fault_of_an_own_environment_names_its_line_and_how_to_continue(
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
    # it skips none
    assert json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["frames"] <= 60 * 8


@pytest.mark.ray
@pytest.mark.timeout(300)
def test_ctrl_c_saves_and_resumes_on_ray(tmp_path):
    interrupt_and_resume(tmp_path)


@pytest.mark.ray
@pytest.mark.timeout(300)
def test_sigterm_to_every_process_of_a_private_ray_saves(tmp_path):
    """What systemd and Slurm send to all at once, and timeout to the group: Ray must not be gone
    before the run is saved.
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


@pytest.mark.parametrize(
    ("code", "told"),
    [
        (errno.ENOSPC, "No space left on device; free some space, or choose another --out"),
        (errno.EACCES, "Permission denied; choose an --out that can be written"),
        (errno.ENXIO, "No such device or address; choose another --out if the cause is this disk"),
    ],
)
def test_disk_error_calls_only_a_full_disk_full(code: int, told: str):
    assert str(disk_error("runs/a", OSError(code, os.strerror(code)))) == f"runs/a: {told}"


def test_check_socket_path_names_the_directory_that_is_too_long(monkeypatch, tmp_path):
    check_socket_path()
    monkeypatch.setenv("RAY_TMPDIR", "/tmp/" + "x" * 116)
    with pytest.raises(
        ResourceError, match=r"TMPDIR /tmp/x+: too long by \d+ bytes.*RAY_TMPDIR=/tmp"
    ):
        check_socket_path()


def test_console_command_finds_an_environment_in_the_working_directory(tmp_path):
    """The installed `genray`, whose import path begins with its own directory."""
    (tmp_path / "myenv.py").write_text(
        "from genray.rl.catch import Catch as MyEnv\n", encoding="utf-8"
    )
    run = tmp_path / "run"
    words = [
        "train",
        "dqn",
        *TINY,
        "--local",
        "--env",
        "myenv:MyEnv",
        "--steps",
        "160",
        "--out",
        str(run),
    ]
    console = Path(sys.executable).with_name("genray")
    done = subprocess.run(
        [console, *words], cwd=tmp_path, capture_output=True, text=True, timeout=110
    )
    assert done.returncode == 0, done.stderr
    assert (run / "model" / "config.json").exists()
