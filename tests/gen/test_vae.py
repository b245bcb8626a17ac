"""Networks, data and training of VAEs: options, binarisation, and a bit-exact resume."""

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import nn

from genray.errors import ConfigError, RunFault
from genray.gen.training.fit import Fit, FitConfig, fixed_randomness
from genray.gen.training.optimizers import OptimizerConfig
from genray.gen.vae import (
    VAE,
    VAEConfig,
    VAEModelConfig,
    VAETask,
    binarised,
    build_vae,
)
from genray.runs.modelstore import load_model, save_model
from tests.helpers.gen import check_resume, spots


def small(**changes) -> VAEConfig:
    fit = {
        "steps": 12,
        "batch_size": 20,
        "validate_every": 4,
        "log_every": 4,
        **changes.pop("fit", {}),
    }
    model = VAEModelConfig(latent=3, widths=(16,), **changes.pop("model", {}))
    return VAEConfig(fit=FitConfig(**fit), model=model, **changes)


@pytest.mark.parametrize("activation", ["maxout", "elu"])
def test_vae_networks_have_every_activation(activation: str):
    for network in ("dense", "conv"):
        model = VAE(
            VAEModelConfig(network=network, latent=3, widths=(4, 6), activation=activation),
            (3, 8, 12),
        )
        x_BCHW = torch.rand(2, 3, 8, 12)
        assert model.encode(x_BCHW).shape == (2, 3)
        assert model(x_BCHW).shape == x_BCHW.shape


@pytest.mark.parametrize("network", ["dense", "conv"])
def test_vae_dropout_acts_in_both_networks_in_training_only(network: str):
    model = VAEModelConfig(network=network, latent=3, widths=(8, 6), dropout=0.5)
    torch.manual_seed(0)
    vae, x, z = VAE(model, (1, 8, 8)), torch.rand(4, 1, 8, 8), torch.randn(4, 3)
    assert sum(isinstance(each, nn.Dropout) for each in vae.encoder) == 2
    assert sum(isinstance(each, nn.Dropout) for each in vae.decoder) == 2
    vae.train()
    assert not torch.equal(vae.encode(x), vae.encode(x))
    assert not torch.equal(vae.decode(z), vae.decode(z))
    vae.eval()
    assert torch.equal(vae.encode(x), vae.encode(x)) and torch.equal(vae.decode(z), vae.decode(z))
    # Without dropout there is no layer, so that weights have the names of older models.
    plain = VAE(dataclasses.replace(model, dropout=0.0), (1, 8, 8))
    assert not any(isinstance(each, nn.Dropout) for each in plain.modules())


def test_vae_with_dropout_resumes_bit_exactly_and_loads_unchanged(tmp_path: Path):
    config = small(model={"dropout": 0.3})
    check_resume(lambda: Fit(VAETask(config), spots(), config.fit), 5, tmp_path)
    export = Fit(VAETask(config), spots(), config.fit).task.export()
    assert export.config["dropout"] == 0.3
    save_model(tmp_path / "model", export.kind, export.config, export.tensors, export.card)
    model, _ = load_model(tmp_path / "model", {"vae": build_vae})
    assert isinstance(model, VAE) and model.config.dropout == 0.3 and not model.training


def test_binarised_by_hand():
    x = torch.tensor([0.0, 0.3, 0.6, 1.0])
    assert binarised(x, "none") is x
    assert binarised(x, "threshold").tolist() == [0, 0, 1, 1]
    for chance in (0.0, 0.5, 0.99):  # 0 and 1 are never changed
        drawn = binarised(x, "dynamic", torch.full((4,), chance))
        assert (drawn[0], drawn[3]) == (0, 1)
    many = binarised(
        torch.full((20000,), 0.3),
        "fixed",
        torch.rand(20000, generator=torch.Generator().manual_seed(0)),
    )
    assert many.mean().item() == pytest.approx(0.3, abs=0.015)


def test_fixed_binarisation_ignores_the_seed_and_dynamic_does_not():
    data = spots()
    fixed = [Fit(VAETask(c), data, c.fit).data.train.values for c in _seeds("fixed")]
    assert torch.equal(*fixed) and set(fixed[0].unique().tolist()) == {0.0, 1.0}
    assert not torch.equal(fixed[0], data.train.values)
    (dynamic,) = {id(Fit(VAETask(c), data, c.fit).data.train.values) for c in _seeds("dynamic")}
    assert dynamic == id(data.train.values)


def _seeds(how: str) -> list[VAEConfig]:
    return [small(model={"binarise": how}, fit={"seed": seed}) for seed in (0, 1)]


def test_uint8_data_is_binarised_as_uint8():
    data = spots()
    parts = {
        name: dataclasses.replace(
            getattr(data, name), values=(getattr(data, name).values * 255).to(torch.uint8)
        )
        for name in ("train", "validation", "test")
    }
    config = small(model={"binarise": "threshold"})
    values = Fit(VAETask(config), dataclasses.replace(data, **parts), config.fit).data.train.values
    assert values.dtype == torch.uint8 and set(values.unique().tolist()) == {0, 255}


def test_free_bits_bound_the_loss_and_not_the_reported_kl():
    config = small(free_bits=2.0, fit={"log_every": 1})
    for step in Fit(VAETask(config), spots(), config.fit):
        values = step.values
        assert values["loss"] == pytest.approx(
            values["reconstruction"] + 3 * 2.0, rel=1e-5
        )  # 3 latents, none above 2 nats
        assert values["kl"] < 2.0


def test_beta_multiplies_the_kl():
    config = small(beta=4.0, fit={"log_every": 1})
    for step in Fit(VAETask(config), spots(), config.fit):
        values = step.values
        assert values["loss"] == pytest.approx(
            values["reconstruction"] + 4 * values["kl"], rel=1e-5
        )
    figures = Fit(VAETask(config), spots(), config.fit).evaluate(spots().test)
    # The held-out loss is −ELBO for any β.
    assert figures["loss"] == pytest.approx(figures["reconstruction"] + figures["kl"])


@pytest.mark.parametrize("stop", [1, 4, 7])
@pytest.mark.parametrize("network", ["dense", "conv"])
def test_vae_resumes_bit_exactly(stop: int, network: str, tmp_path: Path):
    config = small(model={"network": network, "binarise": "dynamic"}, fit={"accumulate": 2})
    check_resume(lambda: Fit(VAETask(config), spots(), config.fit), stop, tmp_path)


@pytest.mark.parametrize(
    ("network", "likelihood"),
    [("dense", "gaussian"), ("conv", "gaussian"), ("conv", "gaussian-diagonal")],
)
def test_saved_vae_loads_unchanged(network: str, likelihood: str, tmp_path: Path):
    config = small(model={"network": network, "likelihood": likelihood})
    fit = Fit(VAETask(config), spots(), config.fit)
    for _ in fit:
        pass
    export = fit.task.export()
    save_model(tmp_path / "model", export.kind, export.config, export.tensors, export.card)
    model, kept = load_model(tmp_path / "model", {"vae": build_vae})
    assert isinstance(model, VAE) and (model.latent, model.prior, kept["prior"]) == (
        3,
        "normal",
        "normal",
    )
    images = model.sample(7, seed=3)
    assert images.shape == (7, 1, 8, 8)
    task = fit.task
    assert isinstance(task, VAETask)
    assert torch.equal(images, task.vae.sample(7, seed=3))
    assert torch.equal(images, model.sample(7, seed=3)) and not torch.equal(
        images, model.sample(7, seed=4)
    )
    assert torch.equal(model.encode(images), task.vae.eval().encode(images))


def test_vae_pictures_and_test_figures():
    config = small(importance_samples=5)
    fit = Fit(VAETask(config), spots(), config.fit)
    for _ in fit:
        pass
    with torch.no_grad(), fixed_randomness([1]):
        pictures = fit.task.pictures(spots())
        figures = fit.task.test(spots())
    assert {name: picture.dtype.name for name, picture in pictures.items()} == {
        "samples": "uint8",
        "reconstructions": "uint8",
    }
    assert figures["negative_iwae_5"] < figures["loss"]
    assert "20 test images, binarisation none, bernoulli decoder" in fit.task.remark


def test_vae_task_names_the_option_of_a_bad_value():
    config = small(fit={"batch_size": 81})
    with pytest.raises(ConfigError, match=r"--batch-size 81: .* 80 rows"):
        Fit(VAETask(config), spots(), config.fit)
    config = small(model={"network": "conv"})
    with pytest.raises(ConfigError, match="9x9"):
        Fit(VAETask(config), spots(side=9), config.fit)
    with pytest.raises(ConfigError, match="--binarise fixed"):
        VAETask(small(model={"likelihood": "gaussian", "binarise": "fixed"}))
    with pytest.raises(ConfigError, match="--beta -1"):
        VAETask(small(beta=-1.0))
    data = spots()
    split = dataclasses.replace(data.train, low=-1.0)
    with pytest.raises(ConfigError, match=r"-1\.\.1; a VAE needs 0\.\.1"):
        Fit(VAETask(small()), dataclasses.replace(data, train=split), small().fit)


def test_vae_stops_when_a_large_learning_rate_diverges():
    config = small(optimizer=OptimizerConfig(learning_rate=1e30))
    with pytest.raises(RunFault, match="--learning-rate"):
        list(Fit(VAETask(config), spots(), config.fit))
