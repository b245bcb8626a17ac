"""Tests data-parallel training on Ray Train: the curve of one worker, an exact resume, one-line
faults.
"""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from genray import cli

pytestmark = [
    pytest.mark.ray,
    pytest.mark.usefixtures("ray_here"),
    pytest.mark.timeout(400),
    # Ray Train's own import warns about Ray Data's own settings.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data.context"),
    pytest.mark.filterwarnings("ignore::UserWarning:ray.data.context"),
]
VAE = [
    "train",
    "vae",
    "--preset",
    "vae_digits",
    "--widths",
    "32",
    "--batch-size",
    "64",
    "--log-every",
    "5",
]


def curve(run: Path) -> dict[int, float]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line["loss"] for line in lines if "loss" in line}


def test_train_with_two_workers_gives_the_curve_of_one_and_resumes(tmp_path):
    one, two, again = tmp_path / "one", tmp_path / "two", tmp_path / "again"
    assert cli.main([*VAE, "--steps", "60", "--out", str(one)]) == 0
    kept = ["--checkpoint-every", "30", "--keep", "2"]
    assert cli.main([*VAE, *kept, "--steps", "60", "--workers", "2", "--out", str(two)]) == 0
    curves = curve(one), curve(two)
    assert curves[0].keys() == curves[1].keys() and len(curves[0]) >= 12
    for step, loss in curves[0].items():
        assert curves[1][step] == pytest.approx(loss, rel=1e-4), step
    weights = [load_file(run / "model" / "model.safetensors") for run in (one, two)]
    for name, tensor in weights[0].items():
        torch.testing.assert_close(weights[1][name], tensor, rtol=1e-2, atol=1e-4)

    # From the checkpoint of step 30, as if the process had been killed there.
    shutil.copytree(two, again)
    shutil.rmtree(again / "model")
    last = [path for path in (again / "checkpoints").iterdir() if not path.name.endswith("30")]
    for checkpoint in last:
        shutil.rmtree(checkpoint)
    assert len(last) == 1
    assert cli.main(["train", "vae", "--resume", str(again), "--workers", "2"]) == 0
    resumed = load_file(again / "model" / "model.safetensors")
    assert all(torch.equal(resumed[name], tensor) for name, tensor in weights[1].items())


def test_train_with_workers_reports_a_fault_in_one_line(tmp_path, capsys):
    words = [
        *VAE,
        "--optimizer",
        "sgd",
        "--learning-rate",
        "1e20",
        "--steps",
        "40",
        "--workers",
        "2",
    ]
    assert cli.main([*words, "--out", str(tmp_path / "run")]) == 1
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and "try a lower --learning-rate" in errors[0]


def test_train_with_workers_refuses_more_workers_than_cpus(tmp_path, capsys):
    assert (
        cli.main([*VAE, "--batch-size", "640", "--workers", "640", "--out", str(tmp_path / "run")])
        == 2
    )
    assert "--workers 640: Ray has" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
