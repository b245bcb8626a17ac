"""What generators learn from real digits, evaluated by a classifier on other digits."""

import functools
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from genray.gen import presets
from genray.gen.data.config import DataConfig
from genray.gen.data.load import load_data
from genray.gen.data.types import Data
from genray.gen.evaluation.metrics import Extractor
from genray.gen.gan.task import GANTask
from genray.gen.images.classifier import ClassifierTask, train_extractor
from genray.gen.training.fit import Fit
from genray.gen.vae import VAETask
from tests.helpers.gen import pca_gaussian_samples

pytestmark = [pytest.mark.learn, pytest.mark.timeout(600)]

SAMPLES = 1000


@functools.cache
def digits(low: float = 0.0) -> Data:
    return load_data(DataConfig(data="digits"), low=low, high=1.0)


@functools.cache
def extractor() -> Extractor:
    return train_extractor(digits())


def fcd(samples: Tensor, low: float) -> float:
    """Return the FCD of 1,000 samples to the 500 test digits.

    Every model gets 1,000 samples, because the distance depends on their number.
    """
    assert len(samples) == SAMPLES
    images = (samples - low) / (1.0 - low)
    return extractor().distance(digits().test.all(), images).value


@functools.cache
def trained_vae() -> tuple[VAETask, dict[str, float], dict[str, float]]:
    """Return the task, and its test figures before and after the training of the preset."""
    config = presets.vae_digits()
    task = VAETask(config)
    fit = Fit(task, digits(), config.fit)
    before = fit.evaluate(digits().test)
    for _ in fit:
        pass
    return task, before, fit.evaluate(digits().test)


def test_extractor_classifies_digits():
    guess = extractor().probabilities(digits().test.all()).argmax(1)
    assert (guess == digits().test.label).float().mean() >= 0.97
    assert extractor().modes(digits().test.all()) == 10


def test_classifier_digits_preset_classifies_held_out_digits():
    config = presets.classifier_digits()
    fit = Fit(ClassifierTask(config), digits(), config.fit)
    for _ in fit:
        pass
    assert fit.evaluate(digits().test)["accuracy"] >= 0.97


def test_vae_bound_falls_on_held_out_digits():
    task, before, after = trained_vae()
    # Predicting ½ for 64 grey pixels costs 64 ln 2 = 44.4 nats; no model can reach less than the
    # pixels' entropy, 13.5.
    assert before["loss"] > 40 and after["loss"] < 25
    assert after["kl"] > 2 and after["mse"] < 0.03  # the model uses its code
    with torch.no_grad():
        bound = -task.vae.eval().importance_bound(digits().test.all(), 20).mean().item()
    print(
        f"held-out −ELBO {before['loss']:.1f} → {after['loss']:.1f} nats, IWAE-20 {bound:.1f}, "
        "grey pixels"
    )
    assert bound < after["loss"]


def test_vae_samples_beat_a_gaussian_in_pca_space():
    task, _, _ = trained_vae()
    samples = task.vae.sample(SAMPLES)
    of_gaussian = min(
        fcd(pca_gaussian_samples(digits().train.all(), SAMPLES, 0.0, 1.0, components), 0.0)
        for components in (10, 32)
    )
    of_vae = fcd(samples, 0.0)
    print(
        f"FCD ({extractor().name}, {SAMPLES} samples to 500): VAE {of_vae:.1f}, "
        f"Gaussian in PCA space {of_gaussian:.1f}"
    )
    assert of_vae < 0.8 * of_gaussian
    assert extractor().modes(samples) >= 9


def test_gan_samples_beat_the_vaes_and_have_all_digits():
    config = presets.gan_digits()
    task = GANTask(config)
    fit = Fit(task, digits(-1.0), config.fit)
    before = fcd(task.generator.sample(SAMPLES), -1.0)
    for _ in fit:
        pass
    samples = task.generator.sample(SAMPLES)
    after, of_vae = fcd(samples, -1.0), fcd(trained_vae()[0].vae.sample(SAMPLES), 0.0)
    modes = extractor().modes(samples, -1.0, 1.0)
    print(
        f"FCD ({extractor().name}, {SAMPLES} samples to 500): GAN {before:.1f} → {after:.1f}, VAE "
        f"{of_vae:.1f}; {modes} modes"
    )
    assert after < before / 5
    assert after < of_vae
    assert modes >= 9


def test_gan_on_mnist5k_has_the_digits():
    """A fifth of the preset's 1,500 steps, on digits of 28x28 pixels."""
    config = presets.gan_mnist5k()
    unit, signed = (load_data(DataConfig(data="mnist5k"), low=low, high=1.0) for low in (0.0, -1.0))
    judge, real = train_extractor(unit, steps=100), unit.test.all()
    task = GANTask(config)
    fit = Fit(task, signed, replace(config.fit, steps=300, validate_every=10**9))
    before = judge.distance(real, (task.generator.sample(SAMPLES) + 1) / 2).value
    for _ in fit:
        pass
    samples = (task.generator.sample(SAMPLES) + 1) / 2
    after = judge.distance(real, samples).value
    # After so few steps many samples lie between two digits, so the likeliest digit is counted.
    counts = judge.probabilities(samples).argmax(1).bincount(minlength=10)
    print(
        f"FCD ({judge.name}, {SAMPLES} samples to {len(real)}): GAN on mnist5k {before:.1f} → "
        f"{after:.1f}; samples of each digit: {counts.tolist()}"
    )
    assert after < before / 5
    assert counts.min() >= SAMPLES / 100
