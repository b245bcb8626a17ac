"""Tests the commands of world models, on a short recording of Pong."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import av
import pytest

from genray import cli
from genray.distributed.dream_env import resolve_dream
from genray.gen.world.about import action_names, game_title
from genray.rl import presets
from genray.rl.engine import initial_network, network_card, probe_env
from genray.rl.env import EnvConfig
from genray.rl.evaluate import Evaluation
from genray.rl.train import save_policy

SMALL = ["--steps", "3", "--batch-size", "16", "--width", "16", "--layers", "1", "--heads", "2"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with episodes of Pong and a world model of it."""
    folder = tmp_path_factory.mktemp("world")
    episodes = folder / "episodes-pong.safetensors"
    words = ["data", "episodes", "--game", "pong", "--frames", "400", "--out", str(episodes)]
    assert cli.main(words) == 0
    words = ["train", "world", "--data", f"episodes:{episodes}", *SMALL]
    assert cli.main([*words, "--out", str(folder / "run")]) == 0
    return folder


def policy_of(folder: Path, game: str, frame_skip: int = 4) -> Path:
    """Save an untrained policy of a game."""
    config = presets.preset("dqn", game)
    config = replace(config, env=replace(config.env, frame_skip=frame_skip))
    network = initial_network(network_card(config, *probe_env(config.env)), seed=0)
    nothing = Evaluation(game, [0.0], [1], 0.001, 0.0, 30, 18_000)
    save_policy(folder / game, config, network, 0, nothing)
    return folder / game


def test_play_dream_films_reality_beside_a_dream(folder: Path, tmp_path: Path, capsys):
    out = tmp_path / "clip.mp4"
    words = ["play", str(folder / "run"), "--dream", "--max-steps", "6", "--out", str(out)]
    assert cli.main(words) == 0
    with av.open(str(out)) as clip:
        shapes = [frame.to_ndarray(format="rgb24").shape for frame in clip.decode(video=0)]
    # Two screens of 160 pixels and a margin of 4, enlarged twice, below a line of text.
    assert len(shapes) == 7 and shapes[0] == (448, 648, 3)
    assert capsys.readouterr().out.splitlines()[-1] == str(out)
    # The policy of another game is refused before anything is written.
    other = policy_of(tmp_path, "breakout")
    words = ["play", str(folder / "run"), "--dream", "--policy", str(other)]
    assert cli.main([*words, "--out", str(tmp_path / "no.mp4")]) == 2
    error = capsys.readouterr().err
    assert "plays breakout, and the model dreams pong" in error and error.count("\n") == 1
    assert not (tmp_path / "no.mp4").exists()
    slow = policy_of(tmp_path, "pong", frame_skip=8)
    words = ["play", str(folder / "run"), "--dream", "--policy", str(slow)]
    assert cli.main([*words, "--out", str(tmp_path / "no.mp4")]) == 2
    assert "with --frame-skip 8, and the model has 4" in capsys.readouterr().err
    words = ["play", str(other), "--policy", str(other), "--out", str(tmp_path / "no.mp4")]
    assert cli.main(words) == 2 and "only with --dream" in capsys.readouterr().err


def test_train_dqn_in_a_dream_and_evaluate_in_the_real_game(folder: Path, tmp_path: Path, capsys):
    run = tmp_path / "agent"
    words = ["train", "dqn", "--preset", "catch", "--local", "--env", f"dream:{folder / 'run'}"]
    words += ["--env-config", '{"max_steps": 4}', "--steps", "30", "--envs-per-collector", "2"]
    words += ["--min-size", "8", "--batch-size", "4", "--evaluate-episodes", "1"]
    assert cli.main([*words, "--capacity", "64", "--out", str(run)]) == 0
    assert "DreamedGame" in (run / "config.yaml").read_text()
    words = ["evaluate", str(run), "--game", "pong", "--episodes", "1"]
    assert cli.main([*words, "--max-episode-frames", "60"]) == 0
    assert "pong" in capsys.readouterr().out
    assert cli.main(["evaluate", str(run), "--game", "breakout", "--episodes", "1"]) == 2
    assert "breakout: has 4 actions, and the policy 6" in capsys.readouterr().err


def test_export_writes_a_page_to_play(folder: Path, tmp_path: Path, capsys):
    out = tmp_path / "game.html"
    words = ["export", str(folder / "run"), "--format", "html"]
    assert cli.main([*words, "--out", str(out)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(out)
    text = out.read_text()
    assert "<h1>Pong, inside a network</h1>" in text and "{title}" not in text
    assert '"actions":["NOOP","FIRE","RIGHT","LEFT","RIGHTFIRE","LEFTFIRE"]' in text
    assert "import " not in text.partition('<script type="module">')[2]
    policy, other = policy_of(tmp_path, "pong"), policy_of(tmp_path, "krull")
    for line, error in {
        f"{folder / 'run'} --format html --policy {other} --out {out}": "the model dreams pong",
        f"{folder / 'run'} --format html --step 3 --out {out}": "--step: only for policies",
        f"{policy} --policy {other} --out {tmp_path / 'p.onnx'}": "only with --format html",
        f"{folder / 'run'} --format html --out {tmp_path / 'game.txt'}": "must end in .html",
        f"{folder / 'run'} --format html --part encoder --out {out}": "not with --format html",
        f"{folder / 'run'} --out {tmp_path / 'game.onnx'}": "use --format html",
        f"{policy} --format html --out {tmp_path / 'no.html'}": "kind 'dqn' is no game to play",
    }.items():
        assert cli.main(["export", *line.split()]) == 2
        said = capsys.readouterr().err
        assert error in said and said.strip().count("\n") == 0, line
    assert out.read_text() == text and {path.name for path in tmp_path.iterdir()} == {
        "game.html", "pong", "krull"
    }  # fmt: skip
    assert '"agent":null' in text
    assert cli.main([*words, "--out", str(out), "--policy", str(policy)]) == 0
    assert '"agent":{"grey":' in out.read_text()


def test_a_model_that_says_nothing_of_its_game_is_exported(folder: Path, tmp_path: Path, capsys):
    """Its actions have their numbers as names."""
    assert game_title({"data": {"recipe": {"env": "my.games:Tower"}}}) == "Tower"
    assert action_names({"data": {"recipe": {"actions": ["NOOP"]}}}, 2) == ["0", "1"]
    model = tmp_path / "model"
    shutil.copytree(folder / "run" / "model", model)
    config = json.loads((model / "config.json").read_text())
    del config["data"]["recipe"]
    (model / "config.json").write_text(json.dumps(config))
    out = tmp_path / "game.html"
    assert cli.main(["export", str(model), "--format", "html", "--out", str(out)]) == 0
    assert '"title":"The Game","actions":["0","1","2","3","4","5"]' in out.read_text()
    words = ["export", str(model), "--format", "html", "--out", str(out)]
    assert cli.main([*words, "--policy", str(policy_of(tmp_path, "pong"))]) == 2
    assert "does not say which game it dreams" in capsys.readouterr().err


def test_own_environments_are_dreamed_in_their_size_and_filmed(tmp_path: Path):
    """Blind Catch has frames of 40x40 pixels, which an agent also sees in the dream."""
    episodes, run, out = tmp_path / "blind.safetensors", tmp_path / "run", tmp_path / "clip.mp4"
    name = "genray.rl.catch:BlindCatch"
    words = ["data", "episodes", "--env", name, "--frames", "400", "--out", str(episodes)]
    assert cli.main(words) == 0
    words = ["train", "world", "--data", f"episodes:{episodes}", *SMALL, "--out", str(run)]
    assert cli.main(words) == 0
    dream = probe_env(resolve_dream(EnvConfig(env=f"dream:{run}")))
    assert dream == probe_env(EnvConfig(env=name)) and dream.frame_shape == (40, 40)
    words = ["play", str(run), "--dream", "--max-steps", "6", "--out", str(out)]
    assert cli.main(words) == 0
    with av.open(str(out)) as clip:
        frame = next(clip.decode(video=0)).to_ndarray(format="rgb24")
    assert frame.shape == (108, 168, 3)


def test_data_without_actions_and_runs_without_policies_are_refused(
    folder: Path, tmp_path: Path, capsys
):
    for words, message in (
        (["--data", "screens:pong"], "screens without actions"),
        (["--data", "atari:no_such_game"], "no such Atari game"),
        (["--from-run", str(folder / "run")], "name a model of kind dqn"),
    ):
        assert cli.main(["train", "world", *words, "--out", str(tmp_path / "run")]) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
        assert not (tmp_path / "run").exists()
    assert cli.main(["train", "dqn", "--local", "--env", f"dream:{tmp_path}"]) == 2
    assert "not a model" in capsys.readouterr().err
