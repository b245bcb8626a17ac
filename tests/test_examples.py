"""Every program of examples/ runs, at a small size that its own options choose."""

import re
import runpy
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from genray import cli
from genray.gen.families import open_fit
from genray.gen.presets import vae_digits
from genray.gen.training.run import save_export
from genray.rl.building import build_network
from genray.rl.card import save_policy
from genray.rl.config import DQNConfig
from genray.rl.engine import network_card, probe_env
from genray.rl.env import EnvConfig
from genray.rl.networks import NetworkConfig
from tests.serve.conftest import start_web, stop_web

EXAMPLES = Path(__file__).parents[1] / "examples"
LONGEST = 60  # lines
PROGRAMS = {
    "blind_catch",
    "colour_photo",
    "local_agent",
    "masked_environment",
    "onnx_policy",
    "own_environment",
    "ray_agent",
    "rllib_agent",
    "service_client",
    "style_photo",
    "train_sprites",
    "train_vae",
    "tune_sweep",
    "vector_environment",
}

Run = Callable[..., str]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run an example as `python examples/NAME.py OPTIONS` does, in an empty directory.

    Returns what the example prints.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(EXAMPLES))

    def run(name: str, *options: object) -> str:
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, options)])
        runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
        return capsys.readouterr().out

    return run


def test_examples_are_these_and_short():
    files = sorted(EXAMPLES.glob("*.py"))
    assert {path.stem for path in files} == PROGRAMS
    table = (EXAMPLES / "README.md").read_text()
    assert all(f"[{path.name}]({path.name})" in table for path in files)
    lengths = {path.name: len(path.read_text().splitlines()) for path in files}
    assert max(lengths.values()) <= LONGEST, lengths
    for path in files:
        text = path.read_text()
        assert f"python examples/{path.name}" in text, path
        assert "What you see:" in text, path


# -- local: seconds -----------------------------------------------------------------------------


@pytest.mark.learn  # the network's first updates take seconds
def test_local_agent_example(run: Run, tmp_path: Path):
    printed = run("local_agent", "--steps", 640, "--min-size", 200)
    assert "updates" in printed and "genray.rl.catch:Catch: mean" in printed
    assert (tmp_path / "catch.gif").read_bytes().startswith(b"GIF89a")


@pytest.mark.learn  # as above
def test_own_environment_example(run: Run):
    printed = run("own_environment", "--steps", 640)
    assert "random actions: own_environment:Reach: mean" in printed
    assert "trained agent: own_environment:Reach: mean" in printed


def test_onnx_policy_example(run: Run, tmp_path: Path):
    config = DQNConfig(env=EnvConfig(env="CartPole-v1"), network=NetworkConfig(hidden=8))
    network = build_network(network_card(config, *probe_env(config.env)))  # untrained
    save_policy(tmp_path / "model", config, network, 0, None)
    assert cli.main(["export", "model", "--out", "policy.onnx"]) == 0
    printed = run("onnx_policy", "policy.onnx", "--episodes", 2)
    scores = [float(each) for each in re.findall(r"episode \d: score (\d+)", printed)]
    assert len(scores) == 2 and f"mean score {sum(scores) / 2:.1f}" in printed


@pytest.mark.learn  # as above
def test_vector_environment_example(run: Run):
    printed = run("vector_environment", "--steps", 1_600)
    assert "random actions: vector_environment:Pier: mean" in printed
    assert "trained agent: vector_environment:Pier: mean" in printed
    assert "1 left of the pier, at rest: " in printed


@pytest.mark.learn  # as above
def test_masked_environment_example(run: Run):
    printed = run("masked_environment", "--steps", 1_600)
    scores = dict(line.split(": ") for line in printed.strip().splitlines())
    assert scores.keys() == {"random legal actions", "trained agent"}
    assert all(0.5 < float(score) < 3.6 for score in scores.values())


@pytest.mark.learn  # as above
def test_blind_catch_example(run: Run):
    printed = run("blind_catch", "--steps", 1_600)
    scores = dict(line.split(": ") for line in printed.strip().splitlines())
    assert scores.keys() == {"with memory", "memory erased"}
    assert all(-1 <= float(score) <= 1 for score in scores.values())


def test_train_vae_example(run: Run, tmp_path: Path):
    printed = run("train_vae", "--steps", 20)
    assert "validation" in printed and "test loss" in printed
    assert (tmp_path / "digits.png").read_bytes().startswith(b"\x89PNG")


def test_train_sprites_example(run: Run, tmp_path: Path):
    printed = run("train_sprites", "--game", "breakout", "--screens", 120, "--steps", 3)
    assert "validation" in printed and "exact" in printed
    assert (tmp_path / "screens.png").read_bytes().startswith(b"\x89PNG")


def test_colour_photo_example(run: Run, tmp_path: Path):
    printed = run("colour_photo", "--size", 64, "--steps", 2, "--batch-size", 2)
    assert printed.count("error of held-out crops") == 2
    assert (tmp_path / "coloured.png").read_bytes().startswith(b"\x89PNG")


def test_style_photo_example(run: Run, tmp_path: Path):
    run("style_photo", "--size", 32, "--steps", 3)
    assert (tmp_path / "styled.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.service  # imports the service and OpenAI's client: seconds
# The example leaves its connections to the end of the program, as short programs do.
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_service_client_example(run: Run, tmp_path: Path):
    preset = vae_digits()
    fit = open_fit("vae", replace(preset, fit=replace(preset.fit, device="cpu")))
    save_export(tmp_path / "models" / "vae", fit, {})  # untrained
    web = start_web(tmp_path / "models")
    try:
        printed = run("service_client", "--url", web.url, "--count", 2, "--out", "made")
    finally:
        stop_web(web)
    assert printed.startswith("models: vae\n")
    files = sorted(path.name for path in (tmp_path / "made").iterdir())
    assert files == ["digit-0.png", "digit-1.png", "walk.gif"]
    assert (tmp_path / "made" / "walk.gif").read_bytes().startswith(b"GIF89a")


# -- with Ray -----------------------------------------------------------------------------------


@pytest.mark.ray
@pytest.mark.timeout(240)
def test_ray_agent_example(ray_here, run: Run, tmp_path: Path):
    printed = run("ray_agent", "--preset", "catch", "--steps", 1_200)
    assert "weight lag" in printed and "score of the filmed game:" in printed
    assert (tmp_path / "agent.gif").read_bytes().startswith(b"GIF89a")


@pytest.mark.ray
@pytest.mark.timeout(240)
def test_rllib_agent_example(ray_here, run: Run, tmp_path: Path):
    small = ("--iterations", 2, "--steps", 64, "--min-size", 40)
    printed = run("rllib_agent", "--env", "genray.rl.catch:Catch", *small)
    assert "iteration  2  score" in printed and "evaluation: mean score" in printed
    assert printed.splitlines()[-1].endswith("apex_checkpoint: iteration 2")


@pytest.mark.ray
@pytest.mark.timeout(240)
def test_tune_sweep_example(ray_here, run: Run, tmp_path: Path):
    printed = run("tune_sweep", "--trials", 2, "--steps", 20)
    assert "best settings: {" in printed and "a digit: (1, 1, 8, 8)" in printed
    (checkpoint, *_) = (tmp_path / "tune_results").glob("**/checkpoint_*")
    assert cli.main(["sample", str(checkpoint), "--num", "4", "--out", "grid.png"]) == 0
