"""`GANTask`: its step against a plain loop, its moving average, a bit-exact resume, evaluation."""

import copy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from genray.errors import RunFault
from genray.gen.gan.task import GANTask
from genray.gen.training.fit import Batch, Fit
from genray.gen.training.optimizers import OptimizerConfig
from tests.helpers.gan import CONV, small, spots
from tests.helpers.gen import check_resume


def plain_step(
    generator, discriminator, g_adam, d_adam, real: Tensor, z: Tensor
) -> tuple[Tensor, Tensor]:
    """Run one step as in a tutorial: two passes of the generator, and gradients of both networks
    that are computed and zeroed.
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
def test_gan_task_step_equals_a_plain_loop(model: dict):
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
    # Adam turns a gradient of ±1e-9 into noise, so the outputs are compared and not the weights.
    z = torch.rand(50, 4) * 2 - 1
    torch.testing.assert_close(task.networks["generator"](z), generator(z), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(
        task.networks["discriminator"](real), discriminator(real), rtol=1e-3, atol=1e-3
    )


def test_discriminator_steps_train_the_generator_every_third_step():
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


def test_discriminator_steps_count_updates_and_not_accumulated_batches():
    config = small(discriminator_steps=2, fit={"accumulate": 2})
    task = GANTask(config)
    for _ in Fit(task, spots(), config.fit):
        pass
    assert (task.updaters["generator"].updates, task.updaters["discriminator"].updates) == (3, 6)


def test_r1_of_a_packed_discriminator_is_the_slope_of_each_logit():
    config = small(r1=1.0, model={**CONV, "pack": 2})
    task, data = GANTask(config), spots()
    Fit(task, data, config.fit)
    x = data.train.values[:6]
    discriminator = task.networks["discriminator"]
    slope = torch.autograd.functional.jacobian(discriminator, x)  # [3 logits, 6 images, C, H, W]
    expected = slope.flatten(1).square().sum(1).mean()
    # No absolute tolerance: the slopes of an untrained network are tiny.
    torch.testing.assert_close(task._r1(x), expected, rtol=1e-4, atol=0)


def test_moving_average_follows_its_formula():
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
    "minimax": {
        "loss": "minimax",
        "fit": {"patience": 2},
        "model": {"generator_dropout": 0.2, "discriminator_dropout": 0.3},
    },
    "packed": {
        "loss": "hinge",
        "model": {**CONV, "pack": 4, "discriminator_norm": "spectral"},
        "ema": 0.9,
    },
}


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("stop", [1, 5])
def test_gan_resumes_bit_exactly(name: str, stop: int, tmp_path: Path):
    config = small(**copy.deepcopy(VARIANTS[name]))
    check_resume(lambda: Fit(GANTask(config), spots(), config.fit), stop, tmp_path)


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


@pytest.mark.parametrize("loss", ["hinge", "wgan-gp", "lsgan"])
def test_gan_stops_when_a_large_learning_rate_diverges(loss: str):
    config = small(loss=loss, optimizer=OptimizerConfig(learning_rate=1e20))
    with pytest.raises(RunFault, match="--learning-rate"):
        list(Fit(GANTask(config), spots(), config.fit))
