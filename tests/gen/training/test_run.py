"""Tests what a `FitRun` does when its pictures cannot be drawn or written."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from genray.errors import RunFault
from genray.gen.data.config import DataConfig
from genray.gen.families import open_fit
from genray.gen.training.fit import Fit, FitConfig
from genray.gen.training.run import FitRun, columns
from genray.gen.vae import VAEConfig, VAEModelConfig
from genray.runs.live import Live
from genray.runs.rundir import RunDir


def tiny_fit() -> Fit:
    config = VAEConfig(
        data=DataConfig(data="digits"),
        fit=FitConfig(batch_size=64, steps=4, validate_every=2, checkpoint_every=2, device="cpu"),
        model=VAEModelConfig(widths=(8,), latent=2),
    )
    return open_fit("vae", config)


def run(fit: Fit, folder: Path) -> dict[str, float]:
    run_dir = RunDir.create(folder)
    with run_dir, Live("vae", fit.planned_steps(), columns(fit)) as live:
        return FitRun(fit, run_dir, live, "genray train vae --resume").run()


def test_fit_run_continues_when_pictures_cannot_be_drawn(tmp_path: Path, monkeypatch):
    fit = tiny_fit()
    drawn: list[int] = []

    def pictures() -> dict[str, Any]:
        drawn.append(fit.step)
        if fit.step == 2:
            raise ValueError("no colours")
        return {}

    monkeypatch.setattr(fit, "pictures", pictures)
    run(fit, tmp_path / "run")
    assert drawn[:3] == [0, 2, 4] and fit.step == 4
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "pictures_failed" in line] == [2]


def test_fit_run_can_be_resumed_when_pictures_cannot_be_written(tmp_path: Path, monkeypatch):
    fit = tiny_fit()
    folder = tmp_path / "run"
    after = FitRun._after

    def after_a_fault(self: FitRun, step: Any) -> None:
        if step.step == 1:
            shutil.rmtree(folder / "pictures")
            (folder / "pictures").write_text("a file in the place of the directory")
        after(self, step)

    monkeypatch.setattr(FitRun, "_after", after_a_fault)
    with pytest.raises(RunFault, match=r"cannot be written .*continue with: genray train vae"):
        run(fit, folder)
