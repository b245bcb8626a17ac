"""Trains a learned optimizer from the command line, and uses it by name in other trainings."""

import shutil
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from genray import cli
from genray.errors import ConfigError
from genray.gen.learned_optimizer.use import KIND, load_learned
from genray.gen.presets import vae_digits
from genray.runs.modelstore import save_model
from genray.runs.rundir import RunDir
from tests.helpers.tuning import tiny_vae
from tuning.presets import named_study
from tuning.settings import changed

SMALL = [
    "--steps", "2", "--batch-size", "2", "--functions", "4", "--held-out", "2", "--horizon", "4",
    "--window", "2", "--rule-trials", "1",
]  # fmt: skip
AE = ["train", "ae", "--data", "digits", "--batch-size", "20", "--schedule", "constant"]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "rule"
    assert cli.main(["train", "optimizer", *SMALL, "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def ae(run, tmp_path_factory) -> Path:
    """An autoencoder after two steps with the learned optimizer, named by a relative path."""
    out = tmp_path_factory.mktemp("runs") / "ae"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(run.parent)
        words = ["--optimizer", f"learned:{run.name}", "--steps", "2", "--out", str(out)]
        assert cli.main([*AE, *words]) == 0
    return out


def last_state(run: Path) -> dict:
    checkpoint = RunDir.open(run).latest_checkpoint()
    return torch.load(checkpoint / "fit.pt", weights_only=True)


def test_train_optimizer_writes_a_model_with_a_card_and_a_picture(run):
    card = (run / "model" / "README.md").read_text()
    assert "# Learned optimizer" in card and "| adam |" in card
    assert "the best of 1 settings" in card
    assert "Use it in any training of genray: `--optimizer learned:RUN`" in card
    assert (run / "pictures" / "comparison.png").exists()


def test_learned_optimizer_trains_and_resumes_an_autoencoder(run, ae, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    words = ["--optimizer", f"learned:{run}", "--steps", "4", "--out", str(whole)]
    assert cli.main([*AE, *words]) == 0
    shutil.copytree(ae, parts)
    before = last_state(parts)
    assert cli.main(["train", "ae", "--resume", str(parts), "--steps", "4"]) == 0
    once, again = last_state(whole), last_state(parts)
    assert before["step"] == 2 and once["step"] == again["step"] == 4
    for key, tensor in once["networks"].items():
        assert torch.equal(tensor, again["networks"][key]), key
        assert not tensor.is_floating_point() or not torch.equal(tensor, before["networks"][key])
    state = again["updaters"]["train"]["optimizer"]["state"]
    assert state[0]["lstm"].shape[:3] == (2, 2, 20)


def test_resume_with_another_learned_optimizer_is_refused(run, ae, tmp_path, capsys):
    rule = load_learned(f"learned:{run}")
    rule.output += 0.1
    other = tmp_path / "other"
    save_model(other, KIND, {"model": asdict(rule.config)}, rule.state_dict(), "card")
    words = ["train", "ae", "--resume", str(ae), "--steps", "4"]
    assert cli.main([*words, "--optimizer", f"learned:{other}"]) == 2
    assert "the state of another learned optimizer" in capsys.readouterr().err
    assert cli.main([*words, "--optimizer", "adam"]) == 2
    assert f"resume with --optimizer learned:{run}" in capsys.readouterr().err


def test_bad_learned_optimizers_are_one_line(run, ae, tmp_path, capsys):
    for name, message in (
        ("learned:", "names no run; write learned:RUN"),
        (f"learned:{tmp_path}/none", "no learned optimizer there"),
        (f"learned:{ae}", f"{ae} has a model of kind autoencoder; write learned:RUN"),
        ("learned", "no such optimizer"),
    ):
        capsys.readouterr()
        assert cli.main([*AE, "--optimizer", name, "--out", str(tmp_path / "new")]) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"error: --optimizer {name}: ") and message in error
        assert error.count("\n") == 1 and not (tmp_path / "new").exists()
    words = [*AE, "--optimizer", f"learned:{run}", "--learning-rate", "0.1"]
    assert cli.main(words) == 2
    assert "scale the updates with --learned-scale" in capsys.readouterr().err
    assert cli.main(["sample", str(run), "--out", str(tmp_path / "a.png")]) == 2
    assert "a model of kind 'learned_optimizer'" in capsys.readouterr().err


def test_learned_optimizer_is_an_arm_of_a_sweep(run, monkeypatch):
    monkeypatch.chdir(run.parent)
    base = tiny_vae()
    study = named_study("optimizers", "vae", base).only(["adam", "learned:rule"])
    assert [arm.name for arm in study.arms] == ["adam", "learned-rule"]
    arm = study.arms[1]
    assert arm.fixed == {"optimizer.optimizer": f"learned:{run}"}
    assert arm.space.paths == ("optimizer.learned_scale",)
    study.check(base)
    with pytest.raises(ConfigError, match="no learned optimizer there"):
        named_study("optimizers", "vae", base).only(["learned:none"])
    # Studies that tune the learning rate tune the factor of a learned optimizer instead.
    other = changed(vae_digits(), {"optimizer.optimizer": f"learned:{run}"})
    for name in ("regularisers", "architecture"):
        for each in named_study(name, "vae", other).arms:
            assert "optimizer.learned_scale" in each.space.paths
            assert "optimizer.learning_rate" not in each.space.paths
