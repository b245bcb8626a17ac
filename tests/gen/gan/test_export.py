"""The saved model of a GAN: the generator alone, also when the final test fails."""

from pathlib import Path

import pytest
import torch

from genray.gen.gan.networks import Generator, build_generator
from genray.gen.gan.task import GANTask
from genray.gen.training.fit import Fit
from genray.gen.training.run import FitRun, columns
from genray.runs.live import Live
from genray.runs.modelstore import load_model, save_model
from genray.runs.rundir import RunDir
from tests.helpers.gan import CONV, small, spots


@pytest.mark.parametrize("ema", [0.0, 0.9])
@pytest.mark.parametrize(
    "model", [{}, CONV, {**CONV, "generator_dropout": 0.2}], ids=["dense", "conv", "dropout"]
)
def test_gan_export_is_the_generator_alone(model: dict, ema: float, tmp_path: Path):
    config = small(model=model, ema=ema)
    task = GANTask(config)
    for _ in Fit(task, spots(), config.fit):
        pass
    export = task.export()
    save_model(tmp_path / "model", export.kind, export.config, export.tensors, export.card)
    kept, _ = load_model(tmp_path / "model", {"gan": build_generator})
    assert isinstance(kept, Generator) and (kept.latent, kept.prior) == (4, "uniform")
    assert not any("discriminator" in name for name in export.config)
    images = kept.sample(9, seed=1)
    assert images.shape == (9, 1, 8, 8) and images.abs().max() <= 1
    assert torch.equal(images, task.generator.sample(9, seed=1))
    # `sample` uses evaluation mode, in which other images of the batch make no difference, and
    # restores the model's mode afterwards.
    kept.train()
    z = torch.randn(9, 4)
    assert torch.equal(images, kept.sample(9, seed=1)) and kept.training
    kept.eval()
    torch.testing.assert_close(kept.generate(z)[:2], kept.generate(z[:2]))


def test_fit_run_saves_the_model_when_the_final_test_fails(tmp_path, monkeypatch):
    """The final test can fail after hours of training, for example for lack of memory."""
    config = small(fit={"steps": 1})
    fit = Fit(GANTask(config), spots(), config.fit)
    monkeypatch.setattr(fit.task, "test", lambda data: 1 / 0)
    with (
        RunDir.create(tmp_path / "run") as run,
        Live("gan", fit.planned_steps(), columns(fit)) as live,
    ):
        with pytest.raises(ZeroDivisionError):
            FitRun(fit, run, live, "").run()
    load_model(run.model, {"gan": build_generator})
