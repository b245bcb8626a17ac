"""Tests which policy of a run `evaluate` and `play` use, and what a resumed run cannot change."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from genray import cli
from genray.rl.policy import load_policy, open_policy
from tests.helpers.cli import TINY


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("policy") / "run"
    words = [
        "--local",
        "--steps",
        "384",
        "--evaluate-every",
        "32",
        "--chunk-rows",
        "32",
        "--keep",
        "9",
    ]
    assert cli.main(["train", "dqn", *TINY, *words, "--out", str(run)]) == 0
    return run


def one_line(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Run a command that is refused, and return its message."""
    assert cli.main([*words]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1, err
    return err


def test_evaluate_every_below_a_chunk_evaluates_weights_once(run: Path):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    steps = [line["step"] for line in lines if "evaluation_mean" in line]
    assert steps == [128, 256, 384]


def test_evaluate_uses_the_newest_policy_and_reports_its_step(
    run: Path, capsys: pytest.CaptureFixture[str]
):
    assert cli.main(["evaluate", str(run), "--episodes", "2"]) == 0
    newest = int(sorted((run / "checkpoints").iterdir())[-1].name)
    assert capsys.readouterr().out.startswith(f"policy of step {newest}: {run}")
    assert json.loads((run / "evaluations.jsonl").read_text().splitlines()[-1])["step"] == newest


def test_evaluate_and_play_step_choose_a_checkpoint(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    first, *others = sorted((run / "checkpoints").iterdir())
    assert others
    assert (
        cli.main(
            ["play", str(run), "--step", str(int(first.name)), "--out", str(tmp_path / "a.gif")]
        )
        == 0
    )
    assert capsys.readouterr().out.startswith(f"policy of step {int(first.name)}: {first}\n")
    weights = torch.load(first / "learner.pt", weights_only=True)["online"]
    chosen = open_policy(run, int(first.name)).network.state_dict()
    assert all(torch.equal(chosen[name], tensor) for name, tensor in weights.items())
    err = one_line(capsys, "evaluate", str(run), "--step", "7")
    assert "--step 7: " in err and f"there are: {int(first.name)}, " in err


def test_load_policy_uses_the_newest_checkpoint_of_a_run_without_a_model(run: Path, tmp_path: Path):
    copy = shutil.copytree(run, tmp_path / "run")
    weights = load_file(copy / "model" / "model.safetensors")
    shutil.rmtree(copy / "model")
    loaded = load_policy(copy)[0].state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in weights.items())


def test_load_policy_prefers_a_checkpoint_to_an_older_model(run: Path, tmp_path: Path):
    copy = shutil.copytree(run, tmp_path / "run")
    config = json.loads((copy / "model" / "config.json").read_text())
    (copy / "model" / "config.json").write_text(json.dumps(config | {"step": 8}))
    assert open_policy(copy).source.parent == copy / "checkpoints"
    assert open_policy(copy, 8).source == copy / "model"


@pytest.mark.parametrize(
    ("words", "option"),
    [
        ("--stack 3", "--stack 3: this run began with --stack 4"),
        (
            "--env tests.test_cli_stops:Endless",
            "--env tests.test_cli_stops:Endless: this run began with --env genray.rl.catch:Catch",
        ),
        ("--env=", '--env "": this run began with --env genray.rl.catch:Catch'),
        ("--frame-skip 3", "--frame-skip 3: "),
        ("--hidden 8", "--hidden 8: this run began with --hidden 16"),
        ("--no-dueling", "--no-dueling: this run began with --dueling"),
        ("--sticky-actions 0.25", "--sticky-actions 0.25: "),
    ],
)
def test_resume_refuses_another_task(
    words: str, option: str, run: Path, capsys: pytest.CaptureFixture[str]
):
    before = (run / "config.yaml").read_text()
    assert option in one_line(
        capsys, "train", "dqn", "--resume", str(run), "--steps", "9000", *words.split()
    )
    assert (run / "config.yaml").read_text() == before
