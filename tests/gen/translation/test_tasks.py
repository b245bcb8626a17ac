"""Tasks of pix2pix and CycleGAN: steps against plain loops, resuming, evaluation, refusals."""

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from genray.errors import ConfigError
from genray.gen.builders import BUILDERS
from genray.gen.data.types import Data
from genray.gen.evaluation.metrics import Extractor
from genray.gen.images.classifier import ClassifierConfig, ClassifierTask, train_extractor
from genray.gen.training.config import FitConfig
from genray.gen.training.fit import Batch, Fit
from genray.gen.training.optimizers import OptimizerConfig
from genray.gen.training.run import save_export
from genray.gen.translation import evaluation
from genray.gen.translation.model import Translator
from genray.gen.translation.task_cyclegan import CycleGANTask
from genray.gen.translation.task_pix2pix import Pix2PixTask
from genray.runs.modelstore import load_model
from tests.helpers.gen import check_resume, measured
from tests.helpers.translation import UNET, cyclegan, pix2pix, scenes

PLAIN = {"optimizer": OptimizerConfig(learning_rate=1e-3, beta1=0.5), "ema": 0.0}
STILL = replace(UNET, dropout=0.0)


def adam(*networks: torch.nn.Module) -> torch.optim.Adam:
    parameters = [each for network in networks for each in network.parameters()]
    return torch.optim.Adam(parameters, 1e-3, (0.5, 0.999))


def few_steps(data: Data, device: torch.device) -> Extractor:
    """Train a classifier with 10 steps, which are enough for red and blue images."""
    return train_extractor(data, device, steps=10)


def ones(logits: torch.Tensor) -> torch.Tensor:
    return torch.ones_like(logits)


def test_pix2pix_step_equals_a_plain_loop():
    config, data = pix2pix(model=STILL, l1_weight=7.0, **PLAIN), scenes(pairs=True)
    task = Pix2PixTask(config)
    Fit(task, data, config.fit)
    g, d = (copy.deepcopy(task.networks[name]) for name in ("generator", "discriminator"))
    g_adam, d_adam = adam(g), adam(d)
    bce = F.binary_cross_entropy_with_logits
    for number in range(3):
        rows = torch.arange(4 * number, 4 * number + 4)
        x = data.train.take(rows)[0]
        values = task.step(Batch(x, None, rows))
        a, b = x[:, :1], x[:, 1:]
        fake = g(a)
        real_logits, fake_logits = d(torch.cat([a, b], 1)), d(torch.cat([a, fake.detach()], 1))
        d_loss = (bce(real_logits, ones(real_logits)) + bce(fake_logits, 0 * fake_logits)) / 2
        d_adam.zero_grad()
        d_loss.backward()
        d_adam.step()
        logits = d(torch.cat([a, fake], 1))
        g_loss = bce(logits, ones(logits)) + 7 * (fake - b).abs().mean()
        g_adam.zero_grad()
        g_loss.backward()
        g_adam.step()
        assert values["discriminator_loss"].item() == pytest.approx(d_loss.item(), rel=1e-3)
        assert values["l1"].item() == pytest.approx((fake - b).abs().mean().item() / 2, rel=1e-3)
    torch.testing.assert_close(task.networks["generator"](a), g(a), rtol=1e-3, atol=1e-3)


def test_cyclegan_step_equals_a_plain_loop():
    config = cyclegan(cycle_weight=5.0, identity_weight=0.5, pool=0, **PLAIN)
    task, data = CycleGANTask(config), scenes()
    fit = Fit(task, data, config.fit)
    names = ("a_to_b", "b_to_a", "discriminator_a", "discriminator_b")
    ab, ba, d_a, d_b = (copy.deepcopy(task.networks[name]) for name in names)
    g_adam, d_adam = adam(ab, ba), adam(d_a, d_b)
    assert len(fit.train) == 6 and (fit.train.values[:, 0].float().mean() > 150)  # the red images
    for number in range(3):
        rows = torch.arange(2 * number, 2 * number + 2)
        a = fit.train.take(rows)[0]
        torch.manual_seed(number)
        values = task.step(Batch(a, None, rows))
        torch.manual_seed(number)
        b = task._train_b.take((torch.rand(2, 1)[:, 0] * 6).long())[0]
        fake_b, fake_a = ab(a), ba(b)
        cycle = (ba(fake_b) - a).abs().mean() + (ab(fake_a) - b).abs().mean()
        identity = (ba(a) - a).abs().mean() + (ab(b) - b).abs().mean()
        fooled = (d_a(fake_a) - 1).square().mean() + (d_b(fake_b) - 1).square().mean()
        g_adam.zero_grad()
        (fooled + 5 * cycle + 2.5 * identity).backward()
        g_adam.step()
        d_loss = sum(
            ((d(real) - 1).square().mean() + d(fake.detach()).square().mean()) / 2
            for d, real, fake in ((d_a, a, fake_a), (d_b, b, fake_b))
        )
        d_adam.zero_grad()
        d_loss.backward()
        d_adam.step()
        for name, value in (("cycle", cycle / 4), ("identity", identity / 4)):
            assert values[name].item() == pytest.approx(value.item(), rel=1e-3), name
        assert values["discriminator_loss"].item() == pytest.approx(d_loss.item() / 2, rel=1e-3)
    torch.testing.assert_close(task.networks["a_to_b"](a), ab(a), rtol=1e-3, atol=1e-3)


def test_pix2pix_resumes_bit_exactly(tmp_path: Path):
    config = pix2pix(fit={"patience": 2, "accumulate": 2})
    start = lambda: Fit(Pix2PixTask(config), scenes(pairs=True), config.fit)  # noqa: E731
    check_resume(start, 3, tmp_path)


def test_cyclegan_resumes_bit_exactly_with_its_pools(tmp_path: Path):
    config = cyclegan(fit={"steps": 8})
    start = lambda: Fit(CycleGANTask(config), scenes(), config.fit)  # noqa: E731
    check_resume(start, 5, tmp_path)


def test_pix2pix_evaluation_and_pictures(monkeypatch: pytest.MonkeyPatch):
    config, data = pix2pix(fit={"steps": 1, "validate_every": 1}), scenes(pairs=True)
    fit = Fit(Pix2PixTask(config), data, config.fit)
    generator = fit.task.best("generator")
    # A generator that returns the target is perfect, and another one has the error by hand.
    targets = fit.task.halves(data.test.all())[1]
    monkeypatch.setattr(generator, "forward", lambda x: targets[: len(x)])
    monkeypatch.setattr("genray.gen.translation.evaluation.CHUNK", 6)
    monkeypatch.setattr("genray.gen.translation.task_pix2pix.make_recogniser", few_steps)
    figures = measured(fit)
    assert figures["loss"] == figures["l1"] == 0
    assert figures["pca_frechet"] == pytest.approx(0, abs=1e-6)
    assert figures["colour_frechet"] == pytest.approx(0, abs=1e-3)
    assert figures["recognised"] == figures["recognised_real"] == 1
    monkeypatch.setattr(generator, "forward", lambda x: targets[: len(x)].flip(0))
    wrong = (targets.flip(0) - targets).abs().mean().item() / 2
    assert fit.evaluate(data.test)["l1"] == pytest.approx(wrong, rel=1e-5)
    sheet = fit.pictures()["translated"]
    rows = [sheet[66 * row : 66 * row + 64, 66 : 66 + 64] for row in range(3)]
    assert sheet.shape == (3 * 66 - 2, 6 * 66 - 2, 3)
    assert (rows[0] == rows[0][..., :1]).all() and (rows[2] != rows[2][..., :1]).any()  # grey
    assert fit.progress_images().shape == (16, 16, 16, 3)


def test_cyclegan_evaluation_and_pictures(monkeypatch: pytest.MonkeyPatch):
    config, data = cyclegan(fit={"steps": 1, "validate_every": 1}), scenes()
    fit = Fit(CycleGANTask(config), data, config.fit)
    task = fit.task
    monkeypatch.setattr("genray.gen.translation.task_cyclegan.make_recogniser", few_steps)
    # Swapping red and blue is a perfect translation; a constant is none, and has a cycle error.
    for name in ("a_to_b", "b_to_a"):
        monkeypatch.setattr(task.best(name), "forward", lambda x: x.flip(1))
    figures = measured(fit)
    assert figures["cycle"] == 0
    assert [figures[f"recognised_{each}"] for each in ("a", "b", "real")] == [1, 1, 1]
    perfect = figures["loss"]
    monkeypatch.setattr(task.best("a_to_b"), "forward", lambda x: x)
    figures = measured(fit)
    assert figures["recognised_b"] == 0 and figures["recognised_a"] == 1
    assert figures["frechet_b"] > 5 * perfect and figures["cycle_a"] > 0.1
    assert fit.pictures()["translated"].shape == (6 * 66 - 2, 6 * 66 - 2, 3)
    assert fit.progress_images().shape == (16, 16, 16, 3)


@pytest.mark.parametrize("name", ["pix2pix", "cyclegan"])
def test_saved_translator_equals_the_trained_one(name: str, tmp_path: Path):
    config = pix2pix() if name == "pix2pix" else cyclegan()
    task = (Pix2PixTask if name == "pix2pix" else CycleGANTask)(config)
    fit = Fit(task, scenes(pairs=name == "pix2pix"), config.fit)
    for _ in fit:
        pass
    save_export(tmp_path / "model", fit, {})
    model, about = load_model(tmp_path / "model", BUILDERS)
    assert isinstance(model, Translator) and about["about"]["method"] == name
    x = torch.randn(3, *model.shape)
    task.networks.eval()
    first = "generator" if name == "pix2pix" else "a_to_b"
    assert torch.equal(model.translate(x), task.best(first)(x))
    assert not torch.equal(model.translate(x), task.networks[first](x))  # the average is saved
    if name == "cyclegan":
        assert torch.equal(model.translate_back(x), task.best("b_to_a")(x))
    else:
        with pytest.raises(ConfigError, match="--direction b_to_a: .* a_to_b only"):
            model.translate_back(x)


def test_l1_alone_trains_without_a_discriminator():
    config = pix2pix(adversarial_weight=0.0)
    task = Pix2PixTask(config)
    steps = list(Fit(task, scenes(pairs=True), config.fit))
    assert set(task.updaters) == {"generator"} and "discriminator" not in task.networks
    assert "adversarial_loss" not in steps[-1].values and steps[-1].values["l1"] > 0


def test_translation_refuses_images_and_classifiers_that_do_not_fit(tmp_path: Path):
    with pytest.raises(
        ConfigError, match="20x20; a unet of 4 widths .* multiples of 16.*--size 16"
    ):
        config = pix2pix()
        Fit(Pix2PixTask(config), scenes(pairs=True, side=20), config.fit)
    deep = replace(UNET, discriminator_layers=3)
    with pytest.raises(ConfigError, match="16x16.*at least 24 pixels; use --size 32"):
        config = pix2pix(model=deep)
        Fit(Pix2PixTask(config), scenes(pairs=True), config.fit)
    with pytest.raises(ConfigError, match="needs two domains"):
        config = cyclegan()
        Fit(CycleGANTask(config), scenes(labelled=False), config.fit)
    # A classifier of images of other channels.
    options = ClassifierConfig(fit=FitConfig(steps=1, batch_size=4))
    task = ClassifierTask(options)
    fit = Fit(task, evaluation.with_channels(scenes(), slice(0, 1)), options.fit)
    save_export(tmp_path / "model", fit, {})
    config = cyclegan(extractor=str(tmp_path / "model"))
    with pytest.raises(ConfigError, match=r"--extractor .*\(1, 16, 16\).*\(3, 16, 16\)"):
        Fit(CycleGANTask(config), scenes(), config.fit)
