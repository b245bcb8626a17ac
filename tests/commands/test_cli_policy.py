"""Tests which policy of a run `evaluate` and `play` use, what `export` writes of it, and what a
resumed run cannot change.
"""

import json
import re
import shutil
from pathlib import Path

import av
import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from genray import cli
from genray.rl.card import hub_name
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


# -- genray export ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The exported folder of a run that was evaluated once more after its training."""
    out = tmp_path_factory.mktemp("hub") / "policy"
    assert cli.main(["evaluate", str(run), "--episodes", "2", "--epsilon", "0.25"]) == 0
    words = ["--format", "huggingface", "--film-steps", "5", "--out", str(out)]
    assert cli.main(["export", str(run), *words]) == 0
    return out


def test_export_huggingface_writes_a_folder_that_genray_reads_back(run: Path, folder: Path):
    names = {"README.md", "config.json", "model.safetensors", "curve.png", "replay.mp4"}
    assert {path.name for path in folder.iterdir()} == names | {"training.yaml"}
    assert (folder / "model.safetensors").read_bytes() == (
        run / "model" / "model.safetensors"
    ).read_bytes()
    assert (folder / "training.yaml").read_bytes() == (run / "config.yaml").read_bytes()
    assert (folder / "curve.png").read_bytes().startswith(b"\x89PNG")
    with av.open(str(folder / "replay.mp4")) as film:
        assert sum(1 for _ in film.decode(video=0)) == 6  # the first frame and 5 steps
    policy, original = open_policy(folder), open_policy(run)
    assert policy.env == original.env and policy.step == original.step
    assert cli.main(["evaluate", str(folder), "--episodes", "1"]) == 0
    (folder / "evaluations.jsonl").unlink()


def test_export_huggingface_card_has_the_scores_of_this_policy(run: Path, folder: Path):
    _, front, text = (folder / "README.md").read_text().split("---\n", 2)
    data = yaml.safe_load(front)
    assert data["library_name"] == "genray" and data["pipeline_tag"] == "reinforcement-learning"
    (result,) = data["model-index"][0]["results"]
    assert result["dataset"] == {"name": "genray.rl.catch:Catch", "type": "genray.rl.catch-Catch"}
    assert result["task"]["type"] == "reinforcement-learning"
    newest = json.loads((run / "evaluations.jsonl").read_text().splitlines()[-1])
    assert newest["epsilon"] == 0.25
    score = f"{np.mean(newest['scores']):.2f} +/- {np.std(newest['scores']):.2f}"
    assert result["metrics"] == [
        {"type": "mean_reward", "name": "mean_reward", "value": score, "verified": False}
    ]
    # One row for each evaluation of this step: by `genray evaluate`, and while training.
    rows = [line for line in text.splitlines() if line.startswith("| ")][1:]
    assert rows[0].split(" | ")[4] == "0.25" and rows[-1].split(" | ")[2] == "6"
    assert "](curve.png)" in text and "](replay.mp4)" in text


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("CartPole-v1", "CartPole-v1"),
        ("ALE/Pong-v5", "ALE/Pong-v5"),
        ("my_games.board:Go/9x9-v0", "my_games-board-Go/9x9-v0"),
        ("a/b/ü", "a/b--"),
    ],
)
def test_hub_name_is_one_that_the_hub_accepts(title: str, name: str):
    assert hub_name(title) == name
    # The pattern of the Hub's own error message for dataset.type.
    assert re.fullmatch(r"(?:[\w-]+/)?[\w\-.]+", name, re.ASCII)


def test_export_huggingface_of_an_unevaluated_checkpoint_says_so(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    first = sorted((run / "checkpoints").iterdir())[0]
    out = tmp_path / "policy"
    with (run / "evaluations.jsonl").open("a") as log:
        log.write('{"step": 1')  # a process that was killed while it wrote
    words = ["--format", "huggingface", "--step", str(int(first.name)), "--film-steps", "0"]
    assert cli.main(["export", str(run), *words, "--out", str(out)]) == 0
    assert "note: the card has no score; genray evaluate " in capsys.readouterr().out
    card = (out / "README.md").read_text()
    assert "model-index" not in card and "It has not been evaluated at this step." in card
    assert not (out / "replay.mp4").exists() and open_policy(out).step == int(first.name)
    # A second export replaces the first one.
    assert cli.main(["export", str(run), *words, "--out", str(out)]) == 0


def test_export_onnx_of_a_policy_gives_its_q_values(run: Path, tmp_path: Path):
    import onnxruntime

    path = tmp_path / "policy.onnx"
    assert cli.main(["export", str(run), "--out", str(path)]) == 0
    network = open_policy(run).network
    frames = torch.randint(0, 256, (5, 4, 84, 84), dtype=torch.uint8)
    (q_BA,) = onnxruntime.InferenceSession(str(path)).run(None, {"frames": frames.numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(q_BA, network(frames).numpy(), atol=1e-5)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--out a.pt", "a.pt: must end in .onnx"),
        ("--out a.onnx --part encoder", "--part encoder: a model of kind 'dqn' has no such part"),
        ("--out a.onnx --step 7", "--step 7: "),
        ("--out . --format huggingface", ": exists and is not an exported policy"),
        ("--out a --format huggingface --film-steps -1", "--film-steps -1: must be ≥ 0"),
    ],
)
def test_export_of_a_policy_refuses(
    words: str, message: str, run: Path, tmp_path: Path, monkeypatch, capsys
):
    (tmp_path / "notes.txt").write_text("not to be replaced")
    monkeypatch.chdir(tmp_path)
    assert message in one_line(capsys, "export", str(run), *words.split())
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
