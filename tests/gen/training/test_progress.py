"""Tests the samples of every epoch, and the two sheets that `Progress` draws from them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from genray.gen.data.config import DataConfig
from genray.gen.families import open_fit
from genray.gen.gan.config import GANConfig, GANModelConfig
from genray.gen.training.fit import Fit, FitConfig
from genray.gen.training.progress import (
    LATENTS,
    MOST_EPOCHS,
    Progress,
    _smooth,
    evenly_spaced,
    progress_sheet,
)
from genray.gen.training.run import FitRun, columns
from genray.runs.live import Live
from genray.runs.rundir import RunDir

GREEN = (0, 200, 0)


def three_steps_an_epoch(steps: int = 12) -> Fit:
    config = GANConfig(
        data=DataConfig(data="digits"),
        fit=FitConfig(batch_size=292, steps=steps, log_every=1, device="cpu"),
        model=GANModelConfig(latent=4, generator_widths=(8,), discriminator_widths=(8,)),
    )
    return open_fit("gan", config)


def run(fit: Fit, run_dir: RunDir) -> None:
    with run_dir, Live("gan", fit.planned_steps(), columns(fit)) as live:
        FitRun(fit, run_dir, live, "genray train gan --resume").run()


def kept(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "pictures").glob("*.png")}


def test_progress_of_a_resumed_run_equals_an_uninterrupted_one(tmp_path: Path, monkeypatch):
    whole = three_steps_an_epoch()
    run(whole, RunDir.create(tmp_path / "whole"))
    files = kept(tmp_path / "whole")
    epochs = sorted(name for name in files if name.startswith("epoch-"))
    assert epochs == [f"epoch-{step:06d}.png" for step in (0, 3, 6, 9, 12)]
    assert {"progress.png", "losses.png", "samples.png"} <= files.keys()
    # Stop in the middle of an epoch, and resume.
    after = FitRun._after

    def interrupted(self: FitRun, step: Any) -> None:
        after(self, step)
        if step.step == 7:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(FitRun, "_after", interrupted)
        run(three_steps_an_epoch(), RunDir.create(tmp_path / "stopped"))
    second, folder = three_steps_an_epoch(), RunDir(tmp_path / "stopped")
    second.load(folder.latest_checkpoint())
    run(second, folder)
    again = kept(tmp_path / "stopped")
    assert again.keys() == files.keys()
    assert [name for name in files if again[name] != files[name]] == []


def test_progress_keeps_samples_of_the_epochs_own_weights(tmp_path: Path):
    fit = three_steps_an_epoch()
    run(fit, RunDir.create(tmp_path / "run"))
    images = fit.progress_images()
    assert images is not None and images.shape == (16, 8, 8, 3)
    last = np.asarray(Image.open(tmp_path / "run/pictures/epoch-000012.png"))
    assert last.shape == (32, 32, 3)
    np.testing.assert_array_equal(last[8:16, 16:24], images[6])  # row 1, column 2
    first = np.asarray(Image.open(tmp_path / "run/pictures/epoch-000000.png"))
    assert (first != last).mean() > 0.1
    card = (tmp_path / "run/model/README.md").read_text()
    assert "1,000 samples against 500 test images, features of the classifier " in card
    # Of the losses, each step of the run is logged once.
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "generator_loss" in line] == list(range(1, 13))


def test_progress_keeps_a_bounded_number_of_epochs(tmp_path: Path):
    fit = three_steps_an_epoch(steps=3 * 2 * MOST_EPOCHS + 3)
    progress = Progress(fit, RunDir.create(tmp_path / "run"))
    due = [epoch for epoch in range(1, 2 * MOST_EPOCHS + 2) if progress.is_due(float(epoch), False)]
    assert due == list(range(3, 2 * MOST_EPOCHS + 2, 3))
    assert progress.is_due(1.5, True) and not progress.is_due(1.5, False)


def test_evenly_spaced_moments_have_the_first_and_the_last():
    assert evenly_spaced(range(5), 10) == [0, 1, 2, 3, 4]
    assert evenly_spaced(range(0, 1001, 10), 3) == [0, 500, 1000]


def test_progress_sheet_has_a_row_for_each_moment():
    image = np.broadcast_to(np.array(GREEN, np.uint8), (8, 8, 3))
    sheet = progress_sheet([(0.0, [image] * 16), (2.5, [image] * 16)])
    assert (sheet == GREEN).all(2).sum() == 2 * LATENTS * 64 * 64


def test_smooth_is_a_mean_over_a_window():
    values = np.arange(200, dtype=float) % 2
    smooth = _smooth(values)
    assert smooth[100] == pytest.approx(4 / 9) and len(smooth) == 200  # 9 values, 4 of them 1
    assert smooth[0] == pytest.approx(2 / 5)
