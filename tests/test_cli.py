"""Tests the commands for agents: what they write, and their one-line errors."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from genray import cli
from genray.errors import ResourceError, disk_error
from genray.machine import check_socket_path
from tests.helpers.cli import TINY, genray

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
def test_main_reports_bad_input_in_one_line_and_writes_nothing(
    words, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert cli.main(words.split()) == 2
    out, err = capsys.readouterr()
    assert err.startswith("error: ") and err.count("\n") == 1
    assert BAD[words] in err
    assert not out and not list(tmp_path.iterdir())


@pytest.mark.skipif("__import__('torch').cuda.is_available()", reason="this machine has a GPU")
def test_train_dqn_refuses_cuda_without_a_gpu(tmp_path, monkeypatch, capsys):
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


def test_train_dqn_local_writes_a_run_and_resumes(tmp_path):
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
    assert "in 11 steps" in clip.stdout

    taken = genray("train", "dqn", *TINY, "--local", "--out", str(run))
    assert taken.returncode == 2 and f"continue with --resume {run}" in taken.stderr
    fewer = genray("train", "dqn", "--resume", str(run), "--local", "--steps", "1000")
    assert fewer.returncode == 2 and "--steps 1000: the run has already made 1,4" in fewer.stderr
    newest = sorted((run / "checkpoints").iterdir())[-1] / "learner.pt"
    newest.write_bytes(newest.read_bytes()[:-100])
    damaged = genray("train", "dqn", "--resume", str(run), "--local")
    assert damaged.returncode == 2 and "learner.pt is damaged" in damaged.stderr


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
    """The import path of the installed `genray` begins with the directory of the script."""
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
