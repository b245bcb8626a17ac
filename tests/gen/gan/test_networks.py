"""GAN networks: their layers in the presets, packed discriminators, spectral norm, the prior."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from genray.gen import presets
from genray.gen.gan.networks import Discriminator, Generator
from genray.gen.gan.task import GANTask
from genray.gen.training.fit import Fit
from tests.helpers.gan import CONV, small, spots


def test_gan_mnist_has_the_layers_and_options_of_its_source():
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


def test_dcgan_svhn_has_the_layers_and_options_of_its_source():
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


def test_gan_task_draws_latents_from_the_prior():
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
def test_packed_discriminator_classifies_images_together(model: dict):
    config = small(model={**model, "pack": 4}).model
    discriminator = Discriminator(config, (3, 8, 8)).eval()
    plain = Discriminator(replace(config, pack=1), (12, 8, 8)).eval()
    plain.load_state_dict(discriminator.state_dict())
    x = torch.randn(8, 3, 8, 8)
    logits = discriminator(x)
    assert torch.equal(logits, plain(torch.stack([torch.cat(list(x[:4])), torch.cat(list(x[4:]))])))
    changed = x.clone()
    changed[5] += 1
    assert (discriminator(changed) != logits).tolist() == [False, True]
    torch.testing.assert_close(
        discriminator(x[:6]), discriminator(torch.cat([x[:6], x[:2]]))
    )  # no image is left out
    assert discriminator(x[:1]).shape == (1,)


def test_spectral_norm_makes_the_norm_of_every_layer_1():
    config = small(model={**CONV, "discriminator_norm": "spectral"}, fit={"steps": 60})
    task = GANTask(config)
    for _ in Fit(task, spots(), config.fit):
        pass
    weights = [m.weight for m in task.networks["discriminator"].layers if hasattr(m, "weight")]  # type: ignore[union-attr]
    assert len(weights) == 3
    for weight in weights:
        assert torch.linalg.matrix_norm(weight.flatten(1), 2).item() == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("model", [{}, CONV], ids=["dense", "conv"])
def test_gan_dropout_acts_in_its_network_in_training_only(model: dict):
    config = small(model={**model, "generator_dropout": 0.4, "discriminator_dropout": 0.6}).model
    torch.manual_seed(0)
    z, x = torch.randn(6, 4), torch.rand(6, 1, 8, 8)
    for network, value, share in (
        (Generator(config, (1, 8, 8)), z, 0.4),
        (Discriminator(config, (1, 8, 8)), x, 0.6),
    ):
        dropouts = [each for each in network.modules() if isinstance(each, nn.Dropout)]
        assert len(dropouts) == len(config.generator_widths) and dropouts[0].p == share
        assert not torch.equal(network(value), network(value))
        network.eval()
        assert torch.equal(network(value), network(value))
    plain = replace(config, generator_dropout=0.0, discriminator_dropout=0.0)
    for each in (Generator(plain, (1, 8, 8)), Discriminator(plain, (1, 8, 8))):
        assert not any(isinstance(layer, nn.Dropout) for layer in each.modules())
