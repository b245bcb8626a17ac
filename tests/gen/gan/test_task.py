"""GANs: the players, the step against ten plain lines, and training that continues bit for bit."""

import copy
import functools
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from genray.errors import CheckpointError, ConfigError, RunFault
from genray.gen import presets
from genray.gen.data.types import Data
from genray.gen.gan.task import (
    Discriminator,
    GANConfig,
    GANModelConfig,
    GANTask,
    Generator,
    build_generator,
)
from genray.gen.images.classifier import ClassifierConfig, ClassifierTask
from genray.gen.training.fit import Batch, Fit, FitConfig
from genray.gen.training.optimizers import OptimizerConfig
from genray.gen.training.run import FitRun, columns
from genray.runs.live import Live
from genray.runs.modelstore import load_model, save_model
from genray.runs.rundir import RunDir
from tests.helpers import gen as helpers
from tests.helpers.gen import check_resume

spots = functools.partial(helpers.spots, low=-1.0)

CONV = {
    "network": "conv",
    "generator_widths": (8, 6),
    "discriminator_widths": (5, 7),
    "kernel": 3,
    "slope": 0.2,
    "generator_norm": "batch",
}


def small(**changes) -> GANConfig:
    fit = {
        "steps": 12,
        "batch_size": 20,
        "validate_every": 4,
        "log_every": 4,
        **changes.pop("fit", {}),
    }
    model = {
        "latent": 4,
        "generator_widths": (16,),
        "discriminator_widths": (16,),
        **changes.pop("model", {}),
    }
    return GANConfig(fit=FitConfig(**fit), model=GANModelConfig(**model), **changes)


# -- the players -----------------------------------------------------------------------------------


def test_the_dense_preset_is_the_source():
    config = presets.gan_mnist()
    config.validate()
    generator, discriminator = (
        Generator(config.model, (1, 28, 28)),
        Discriminator(config.model, (1, 28, 28)),
    )
    assert [tuple(p.shape) for p in generator.parameters()] == [
        (128, 100),
        (128,),
        (784, 128),
        (784,),
    ]
    assert [tuple(p.shape) for p in discriminator.parameters()] == [
        (128, 784),
        (128,),
        (1, 128),
        (1,),
    ]
    assert (config.model.prior, config.model.slope, config.label_smoothing) == (
        "uniform",
        0.01,
        0.1,
    )
    assert (config.optimizer.learning_rate, config.fit.batch_size, config.fit.epochs) == (
        0.002,
        100,
        100,
    )
    assert config.fit.validate_every == 0  # pictures every epoch


def test_the_dcgan_preset_is_the_source():
    config = presets.dcgan_svhn()
    config.validate()
    generator, discriminator = (
        Generator(config.model, (3, 32, 32)),
        Discriminator(config.model, (3, 32, 32)),
    )

    def kernels(network):
        return [tuple(p.shape) for p in network.parameters() if p.dim() > 1]

    assert kernels(generator) == [(8192, 100), (512, 256, 5, 5), (256, 128, 5, 5), (128, 3, 5, 5)]
    assert kernels(discriminator) == [(64, 3, 5, 5), (128, 64, 5, 5), (256, 128, 5, 5), (1, 4096)]

    def norms(network):
        return [m.num_features for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)]

    assert norms(generator) == [512, 256, 128] and norms(discriminator) == [128, 256]
    assert {m.negative_slope for m in generator.modules() if isinstance(m, torch.nn.LeakyReLU)} == {
        0.2
    }
    images = generator(torch.rand(2, 100))
    assert images.shape == (2, 3, 32, 32) and discriminator(images).shape == (2,)
    assert (config.optimizer.learning_rate, config.optimizer.beta1) == (2e-4, 0.5)
    assert (config.fit.batch_size, config.fit.epochs) == (128, 25)


def test_latents_have_their_prior():
    uniform, normal = (
        GANTask(small(model={"prior": prior})).draw(5000) for prior in ("uniform", "normal")
    )
    assert uniform.shape == normal.shape == (5000, 4)
    assert -1 <= uniform.min() < -0.99 and 0.99 < uniform.max() < 1
    assert uniform.var().item() == pytest.approx(
        1 / 3, rel=0.03
    ) and normal.var().item() == pytest.approx(1, rel=0.03)
    assert abs(uniform.mean().item()) < 0.02 and abs(normal.mean().item()) < 0.03


@pytest.mark.parametrize("model", [{}, CONV], ids=["dense", "conv"])
def test_a_packed_discriminator_judges_images_together(model: dict):
    config = small(model={**model, "pack": 4}).model
    judge = Discriminator(config, (3, 8, 8)).eval()
    plain = Discriminator(replace(config, pack=1), (12, 8, 8)).eval()
    plain.load_state_dict(judge.state_dict())
    x = torch.randn(8, 3, 8, 8)
    logits = judge(x)
    assert torch.equal(logits, plain(torch.stack([torch.cat(list(x[:4])), torch.cat(list(x[4:]))])))
    changed = x.clone()
    changed[5] += 1
    assert (judge(changed) != logits).tolist() == [False, True]
    torch.testing.assert_close(judge(x[:6]), judge(torch.cat([x[:6], x[:2]])))  # all are judged
    assert judge(x[:1]).shape == (1,)


def test_r1_of_a_packed_discriminator_is_the_slope_of_each_logit():
    config = small(r1=1.0, model={**CONV, "pack": 2})
    task, data = GANTask(config), spots()
    Fit(task, data, config.fit)
    x = data.train.values[:6]
    judge = task.networks["discriminator"]
    slope = torch.autograd.functional.jacobian(judge, x)  # [3 logits, 6 images, C, H, W]
    expected = slope.flatten(1).square().sum(1).mean()
    # they are tiny at the start
    torch.testing.assert_close(task._r1(x), expected, rtol=1e-4, atol=0)


# -- the step --------------------------------------------------------------------------------------


def plain_step(
    generator, discriminator, g_adam, d_adam, real: Tensor, z: Tensor
) -> tuple[Tensor, Tensor]:
    """One step as a tutorial has it: two passes of the generator, every gradient computed and
    zeroed.
    """
    with torch.no_grad():
        statistics = copy.deepcopy(dict(generator.named_buffers()))
        fake = generator(z)
        for name, buffer in generator.named_buffers():
            buffer.copy_(statistics[name])
    real_logit, fake_logit = discriminator(real), discriminator(fake)
    d_loss = F.binary_cross_entropy_with_logits(real_logit, torch.full_like(real_logit, 0.9))
    d_loss = d_loss + F.binary_cross_entropy_with_logits(fake_logit, torch.zeros_like(fake_logit))
    d_adam.zero_grad()
    d_loss.backward()
    d_adam.step()
    fooled = discriminator(generator(z))
    g_loss = F.binary_cross_entropy_with_logits(fooled, torch.ones_like(fooled))
    g_adam.zero_grad()
    g_loss.backward()
    g_adam.step()
    return d_loss.detach(), g_loss.detach()


@pytest.mark.parametrize(
    "model", [{}, {**CONV, "discriminator_norm": "batch"}], ids=["dense", "conv"]
)
def test_steps_are_those_of_a_plain_loop(model: dict):
    optimizer = OptimizerConfig(learning_rate=2e-3, beta1=0.5)
    config = small(
        model=model, label_smoothing=0.1, optimizer=optimizer, discriminator_learning_rate=1e-3
    )
    data = spots()
    task = GANTask(config)
    Fit(task, data, config.fit)
    generator, discriminator = (
        copy.deepcopy(task.networks[name]) for name in ("generator", "discriminator")
    )
    g_adam = torch.optim.Adam(generator.parameters(), 2e-3, (0.5, 0.999))
    d_adam = torch.optim.Adam(discriminator.parameters(), 1e-3, (0.5, 0.999))
    for number in range(4):
        rows = torch.arange(number * 20, number * 20 + 20)
        real = data.train.values[rows]
        torch.manual_seed(number)
        values = task.step(Batch(real, None, rows))
        torch.manual_seed(number)
        d_loss, g_loss = plain_step(
            generator, discriminator, g_adam, d_adam, real, torch.rand(20, 4) * 2 - 1
        )
        torch.testing.assert_close(values["discriminator_loss"], d_loss, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(values["generator_loss"], g_loss, rtol=1e-4, atol=1e-5)
    # What Adam makes of a gradient of ±1e-9 is noise, so not the weights but what they do is
    # compared.
    z = torch.rand(50, 4) * 2 - 1
    torch.testing.assert_close(task.networks["generator"](z), generator(z), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(
        task.networks["discriminator"](real), discriminator(real), rtol=1e-3, atol=1e-3
    )


def test_several_discriminator_steps_for_one_of_the_generator():
    config = small(discriminator_steps=3, fit={"log_every": 1})
    task = GANTask(config)
    fit = Fit(task, spots(), config.fit)
    moved, losses, before = (
        [],
        [],
        torch.cat([p.flatten().clone() for p in task.generator.parameters()]),
    )
    for step in fit:
        now = torch.cat([p.flatten().clone() for p in task.generator.parameters()])
        moved.append(not torch.equal(now, before))
        losses.append(step.values["generator_loss"])
        before = now
    assert moved == [False, False, True] * 4 and [loss != 0 for loss in losses] == moved
    assert (task.updaters["generator"].updates, task.updaters["discriminator"].updates) == (4, 12)


def test_accumulated_steps_keep_the_players_rhythm():
    config = small(discriminator_steps=2, fit={"accumulate": 2})
    task = GANTask(config)
    for _ in Fit(task, spots(), config.fit):
        pass
    assert (task.updaters["generator"].updates, task.updaters["discriminator"].updates) == (3, 6)


def test_the_average_follows_the_generator_as_the_formula_says():
    config = small(ema=0.9, model={**CONV})
    task = GANTask(config)
    fit = Fit(task, spots(), config.fit)
    expected = {
        name: tensor.clone() for name, tensor in task.networks["generator"].state_dict().items()
    }
    for number, _ in enumerate(fit, 1):
        decay = min(0.9, (1 + number) / (10 + number))
        for name, tensor in task.networks["generator"].state_dict().items():
            if tensor.is_floating_point():
                expected[name] = decay * expected[name] + (1 - decay) * tensor
    for name, tensor in task.networks["average"].state_dict().items():
        if tensor.is_floating_point():
            torch.testing.assert_close(tensor, expected[name], msg=name)
    assert any("running_mean" in name for name in expected)
    assert task.generator is task.networks["average"]


VARIANTS = {
    "dense": {"ema": 0.9},
    "conv": {"ema": 0.9, "model": {**CONV, "discriminator_norm": "batch", "prior": "normal"}},
    "wgan-gp": {"loss": "wgan-gp", "discriminator_steps": 3, "ema": 0.9, "model": CONV},
    "r1": {
        "r1": 2.0,
        "r1_every": 2,
        "diffaugment": ("color", "translation", "cutout"),
        "model": CONV,
    },
    "hinge": {
        "loss": "hinge",
        "model": {**CONV, "discriminator_norm": "spectral"},
        "fit": {"accumulate": 2},
    },
    "lsgan": {"loss": "lsgan", "label_smoothing": 0.1, "discriminator_learning_rate": 2e-3},
    "minimax": {"loss": "minimax", "fit": {"patience": 2}},
    "packed": {
        "loss": "hinge",
        "model": {**CONV, "pack": 4, "discriminator_norm": "spectral"},
        "ema": 0.9,
    },
}


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("stop", [1, 5])
def test_an_interrupted_run_continues_bit_for_bit(name: str, stop: int, tmp_path: Path):
    config = small(**copy.deepcopy(VARIANTS[name]))
    check_resume(lambda: Fit(GANTask(config), spots(), config.fit), stop, tmp_path)


def test_spectral_norm_bounds_every_layer():
    config = small(model={**CONV, "discriminator_norm": "spectral"}, fit={"steps": 60})
    task = GANTask(config)
    for _ in Fit(task, spots(), config.fit):
        pass
    weights = [m.weight for m in task.networks["discriminator"].layers if hasattr(m, "weight")]  # type: ignore[union-attr]
    assert len(weights) == 3
    for weight in weights:
        assert torch.linalg.matrix_norm(weight.flatten(1), 2).item() == pytest.approx(1.0, abs=0.05)


# -- what is left ----------------------------------------------------------------------------------


@pytest.mark.parametrize("ema", [0.0, 0.9])
@pytest.mark.parametrize("model", [{}, CONV], ids=["dense", "conv"])
def test_the_kept_model_is_the_generator_alone(model: dict, ema: float, tmp_path: Path):
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
    # In evaluation mode: what else is in the batch makes no difference, and the model is left as it
    # was.
    kept.train()
    z = torch.randn(9, 4)
    assert torch.equal(images, kept.sample(9, seed=1)) and kept.training
    kept.eval()
    torch.testing.assert_close(kept.generate(z)[:2], kept.generate(z[:2]))


def test_gan_task_evaluate_reports_accuracies_and_a_distance():
    config = small()
    fit = Fit(GANTask(config), spots(), config.fit)
    figures = fit.evaluate(spots().validation)
    assert figures.keys() == {"loss", "pca_frechet", "real_accuracy", "fake_accuracy"}
    assert figures == fit.evaluate(spots().validation)
    for step in fit:
        if step.values:
            assert 0 <= step.values["real_accuracy"] <= 1 and 0 <= step.values["fake_accuracy"] <= 1
    assert fit.evaluate(spots().validation)["loss"] != figures["loss"]


def test_bad_input_is_one_line(tmp_path: Path):
    config = small(fit={"batch_size": 200})
    with pytest.raises(ConfigError, match="--batch-size 200: .* 80 rows"):
        Fit(GANTask(config), spots(), config.fit)
    with pytest.raises(ConfigError, match="10x10"):
        Fit(GANTask(small(model=CONV)), spots(side=10), config.fit)
    with pytest.raises(ConfigError, match="--label-smoothing 0.1: hinge"):
        GANTask(small(loss="hinge", label_smoothing=0.1))
    with pytest.raises(ConfigError, match="--discriminator-norm batch: wgan-gp"):
        GANTask(small(loss="wgan-gp", model={**CONV, "discriminator_norm": "batch"}))
    with pytest.raises(ConfigError, match="--pack 4: wgan-gp"):
        GANTask(small(loss="wgan-gp", model={**CONV, "pack": 4}))
    config = small(model={"pack": 3})
    with pytest.raises(ConfigError, match="--pack 3: .* 20 rows of a batch; use --batch-size 21"):
        Fit(GANTask(config), spots(), config.fit)
    with pytest.raises(CheckpointError, match="not a model"):
        GANTask(small(extractor=str(tmp_path)))


@pytest.mark.parametrize("loss", ["hinge", "wgan-gp", "lsgan"])
def test_a_rate_that_diverges_stops_the_run(loss: str):
    config = small(loss=loss, optimizer=OptimizerConfig(learning_rate=1e20))
    with pytest.raises(RunFault, match="--learning-rate"):
        list(Fit(GANTask(config), spots(), config.fit))


# -- few images ------------------------------------------------------------------------------------


def few(train: int, validation: int, test: int, classes: int) -> Data:
    """Spots with as many rows in each part, in two classes by name, of which the rows have
    `classes`.
    """
    data = spots()
    counts = {"train": train, "validation": validation, "test": test}
    parts = {name: getattr(data, name).first(count) for name, count in counts.items()}
    labelled = {
        name: replace(part, label=torch.arange(len(part)) % classes) for name, part in parts.items()
    }
    return replace(data, **labelled, classes=("a", "b"))


@pytest.mark.parametrize("counts", [(20, 1, 5), (20, 0, 1)])
def test_too_few_images_for_the_judge_are_refused_before_the_first_step(counts):
    config = small()
    with pytest.raises(ConfigError, match="--data spots: .*Fréchet distance"):
        Fit(GANTask(config), few(*counts, classes=2), config.fit)


def test_an_extractor_of_another_shape_is_refused_before_the_first_step(tmp_path):
    config = ClassifierConfig(fit=FitConfig(steps=1, batch_size=20))
    task = ClassifierTask(config)
    labelled = few(20, 0, 5, classes=2)
    Fit(
        task,
        replace(
            labelled, train=replace(labelled.train, values=labelled.train.values[:, :, :4, :4])
        ),
        config.fit,
    )
    export = task.export()
    save_model(tmp_path / "judge", export.kind, export.config, export.tensors, export.card)
    with pytest.raises(
        ConfigError, match=r"--extractor .*judge: the classifier takes images of shape \(1, 4, 4\)"
    ):
        Fit(GANTask(small(extractor=str(tmp_path / "judge"))), labelled, small().fit)


@pytest.mark.parametrize("classes", [1, 2])
def test_few_images_are_measured_as_far_as_they_go(classes: int):
    config = small(fit={"steps": 1})
    fit = Fit(GANTask(config), few(20, 0, 3, classes), config.fit)
    list(fit)
    figures = fit.test()
    assert (
        ("fcd" in figures) == (classes == 2)
        and "pca_frechet" in figures
        and "precision" not in figures
    )


def test_a_model_outlives_a_measurement_that_fails(tmp_path, monkeypatch):
    """Anything may happen there after hours of training, e.g. too little memory."""
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


@pytest.mark.parametrize(
    ("model", "batch_size", "least"),
    [
        ({"generator_norm": "batch"}, 1, 2),
        ({"discriminator_norm": "batch", "discriminator_widths": (16, 8), "pack": 4}, 4, 8),
        ({**CONV, "generator_widths": (8, 6, 4)}, 1, 2),  # of 1x1 pixels
        ({**CONV, "discriminator_norm": "batch"}, 1, 0),
        ({"discriminator_norm": "batch"}, 1, 0),  # its only hidden layer has none
    ],
)
def test_a_batch_norm_has_more_than_one_value(model, batch_size: int, least: int):
    config = small(model=model, fit={"batch_size": batch_size, "steps": 1})
    if not least:
        list(Fit(GANTask(config), spots(), config.fit))
        return
    with pytest.raises(
        ConfigError, match=f"--batch-size {batch_size}: .*-norm batch .*use {least} or more"
    ):
        Fit(GANTask(config), spots(), config.fit)
