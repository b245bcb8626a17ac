"""Tests the published study: its tasks, its cost, and its page for rows with known statistics."""

import csv
import io
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from genray.config import save_yaml
from tests.tuning.report.report_rows import row, study_rows
from tuning.plan import Sweep
from tuning.presets import named_study
from tuning.report.comparison import Comparison
from tuning.study import study
from tuning.study.results import Part, publish
from tuning.sweep import base_config


def png() -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(file, "png")
    return file.getvalue()


def test_study_tasks_have_the_documented_arms_trials_and_seeds():
    """The study has eleven optimizers on a VAE and a GAN, and regularisers. All arms have equal
    trials, and five seeds or more.
    """
    assert [task.name for task in study.TASKS] == ["vae", "gan", "regularisers"]
    for task in study.TASKS:
        assert (
            task.config.seeds >= 5 and task.config.trials >= 16 and task.config.scheduler == "none"
        )
        # The points of Optuna depend on results, which differ between machines.
        assert task.config.search != "optuna"
        base_config(task.config).validate()
    assert [len(task.arm_names()) for task in study.TASKS[:2]] == [11, 11] and study.TASKS[
        0
    ].trials() == 11 * 26
    assert study.TASKS[2].arm_names() == [
        "none", "l1", "l2", "dropout", "batch-norm", "early-stopping", "augmentation",
    ]  # fmt: skip
    assert base_config(study.TASKS[2].config).model.finetune_labels == 100
    assert sum(task.trials() * task.seconds for task in study.TASKS) <= 3600


def test_study_cost_prints_the_cost_and_starts_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert study.main(["--cost", "--out", str(tmp_path / "study")]) == 0
    said = capsys.readouterr().out
    assert "vae: 286 trials of 286 left" in said and "CPU minutes in all" in said
    assert list(tmp_path.iterdir()) == []


def test_study_refuses_a_folder_with_another_sweep(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    folder = tmp_path / "vae"
    folder.mkdir()
    save_yaml(replace(study.TASKS[0].config, trials=17), folder / "sweep.yaml")
    before = (folder / "sweep.yaml").read_bytes()
    assert study.main(["--only", "vae", "--out", str(tmp_path)]) == 2
    assert "vae is a sweep with other settings; choose a new folder" in capsys.readouterr().err
    assert [path.name for path in folder.iterdir()] == ["sweep.yaml"]
    assert (folder / "sweep.yaml").read_bytes() == before
    assert study.main(["--parallel", "-1"]) == 2


def test_study_refuses_a_sweep_with_other_arms(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    task = study.TASKS[0]
    whole = named_study("optimizers", "vae", base_config(task.config))
    folder = tmp_path / "vae"
    folder.mkdir()
    Sweep(
        folder,
        task.config,
        whole.only(["sgd", "adam"]),
        base_config(task.config),
        "validation_loss",
        "min",
    ).save()
    assert study.main(["--only", "vae", "--out", str(tmp_path)]) == 2
    assert (
        "vae compares sgd, adam, the arms of an earlier version; choose a new folder"
        in capsys.readouterr().err
    )
    assert list((folder / "trials").iterdir()) == []


def test_publish_writes_page_pictures_and_tables(tmp_path: Path):
    arms = ("sgd", "adam", "rmsprop")
    tests = {
        each.trial: {"loss": each.best}
        for each in study_rows(trials=5, arms=arms)
        if each.phase != "search" and each.best
    }
    several = [
        Comparison(study_rows(trials=5, arms=arms, random_seed=seed), tests) for seed in (0, 1)
    ]
    changes = {"study": "regularisers", "metric": "validation_accuracy", "mode": "max"}
    rows = [
        row(arm, phase, seed, 0.8 + 0.01 * seed + 0.02 * (arm == "l2"), number, **changes)
        for number, (arm, phase, seed) in enumerate(
            (arm, phase, seed)
            for arm in ("none", "l2")
            for phase in ("default", "tuned")
            for seed in range(5)
        )
    ]
    parts = [
        Part("vae", "A VAE", "About it.", several[0], {"search": "random"}),
        Part("gan", "A GAN", "About it.", several[1], {}, [("adam, tuned", png())]),
        Part("regularisers", "Few labels", "About it.", Comparison(rows), {}),
    ]
    page = publish(tmp_path / "results", parts, "A study", ["Made by a test."])
    text = page.read_text()
    names = {path.name for path in page.parent.iterdir()}
    for linked in re.findall(r"\]\(([^)]+)\)", text):
        assert linked in names, linked
    assert {name for name in names if name.endswith((".png", ".csv"))} == set(
        re.findall(r"\]\(([^)]+)\)", text)
    )
    assert sum(path.stat().st_size for path in page.parent.iterdir()) < 10**6
    assert "## What this does not show" in text and "http" not in text and str(tmp_path) not in text
    best = next(line for line in text.splitlines() if line.startswith("| adam | tuned"))
    assert best.count("|") == 11
    assert "| l2 | 0.02 (0.02 to 0.02) | 5 of 5 |" in text
    assert "Performance profile: regularisers" not in text
    # Two sweeps have five seeds each; the regularisers do not belong to the optimizers' profile.
    assert "Over 10 problems (vae and gan" in text
    with (page.parent / "vae-trials.csv").open() as stream:
        trials = list(csv.DictReader(stream))
    assert len(trials) == 3 * 15 and trials[0]["settings"].startswith("optimizer.optimizer=sgd ")


@pytest.mark.ray
@pytest.mark.timeout(600)
def test_study_quick_runs_and_resumes(ray_here, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    words = ["--quick", "--only", "gan", "--out", str(tmp_path / "study"), "--parallel", "2"]
    assert study.main(words) == 0
    text = (tmp_path / "study" / "results" / "README.md").read_text()
    assert "A quick run" in text and "| adam | tuned |" in text and "150 steps of 64 rows" in text
    page = (tmp_path / "study" / "gan" / "report" / "index.html").read_text()
    assert page.count("data:image/png;base64,") == 3  # samples of each arm's best run
    assert "on the test split" in text
    rows = sorted((tmp_path / "study" / "gan" / "trials").glob("*/trial.json"))
    before = [path.stat().st_mtime_ns for path in rows]
    assert len(rows) == 3 * (2 + 3 + 2)
    capsys.readouterr()
    assert study.main(words) == 0
    assert "gan: 0 trials of 21 left" in capsys.readouterr().out
    assert [path.stat().st_mtime_ns for path in rows] == before
