"""Batch norm in autoencoders: its layers, greedy stages, resume, saved models and bad input."""

from pathlib import Path

import pytest
import torch
from torch.nn import functional

from genray.errors import ConfigError
from genray.gen.autoencoder.model import AEModelConfig, Autoencoder, build_autoencoder
from genray.gen.autoencoder.task import AEConfig, AETask
from genray.gen.data.config import DataConfig
from genray.gen.data.load import load_data
from genray.gen.data.types import Data
from genray.gen.images.features import model_features
from genray.gen.training.fit import Fit, FitConfig
from genray.gen.training.optimizers import OptimizerConfig
from genray.runs import modelstore
from tests.helpers.gen import measured, trained

KINDS = ("undercomplete", "denoising", "conv", "stacked", "stacked-conv")


@pytest.fixture(scope="module")
def digits() -> Data:
    return load_data(DataConfig())


def config_of(kind="undercomplete", epochs=1, batch_size=100, **model) -> AEConfig:
    widths = (4, 6) if "conv" in kind else (20, 12)
    return AEConfig(
        fit=FitConfig(epochs=epochs, batch_size=batch_size),
        optimizer=OptimizerConfig(learning_rate=3e-3),
        model=AEModelConfig(
            **{"kind": kind, "code": 5, "widths": widths, "batch_norm": True, **model}
        ),
    )


def norms_of(model: torch.nn.Module) -> dict[str, torch.nn.Module]:
    kinds = (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d)
    return {name: module for name, module in model.named_modules() if isinstance(module, kinds)}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("activation", ["relu", "maxout"])
def test_batch_norm_precedes_every_activation_between_data_and_code(kind, activation, digits):
    model = Autoencoder(config_of(kind, activation=activation).model, (1, 8, 8))
    between = {
        "blocks.0.norm_above",
        "blocks.1.norm_above",
        "blocks.1.norm_below",
        "blocks.2.norm_below",
    }
    assert norms_of(model).keys() == between, "neither the code nor the output"
    x = digits.test.first(50).all()
    model.train()
    (model(x) - x).square().mean().backward()
    assert model(x).shape == x.shape
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


@pytest.mark.parametrize("kind", ["undercomplete", "conv"])
def test_batch_norm_uses_batch_statistics_in_training_and_averages_in_evaluation(kind, digits):
    model, x = Autoencoder(config_of(kind).model, (1, 8, 8)), digits.test.first(50).all()
    block = model.blocks[0]
    with torch.no_grad():
        sums = (
            functional.conv2d(x, block.weight, padding=1)
            if kind == "conv"
            else x.flatten(1) @ block.weight.t()
        )
        rows = sums.transpose(0, 1).flatten(1)  # a channel's values
        shape = (-1,) + (1,) * (sums.ndim - 2)
        mean, variance = rows.mean(1).view(shape), rows.var(1, correction=0).view(shape)
        expected = ((sums - mean) / (variance + 1e-5).sqrt()).relu()
        found = block.train().activations(x) if kind == "conv" else block.encode(x)[0]
        assert torch.allclose(found, expected, atol=1e-4)
        alone = block.eval().encode(x[:1])[0]
        assert torch.allclose(alone, block.encode(x)[0][:1], atol=1e-6), (
            "a row's code does not depend on other rows"
        )
        assert not torch.allclose(alone, model.train().blocks[0].encode(x)[0][:1], atol=1e-2)


@pytest.mark.parametrize("kind", ["stacked", "stacked-conv"])
def test_greedy_stage_keeps_the_batch_norm_averages_of_other_layers(kind, digits):
    config = config_of(kind, epochs=2, corruption="masking", finetune_labels=100)
    task = AETask(config)
    fit = Fit(task, digits, config.fit)
    before = {name: t.clone() for name, t in task.model.state_dict().items()}
    stages = {}
    for step in fit:
        if step.last_of_stage:
            now = {name: t.clone() for name, t in task.model.state_dict().items()}
            stages[step.stage] = {name for name in now if not torch.equal(now[name], before[name])}
            if step.stage == "whole":
                pretrained = {name: t for name, t in now.items() if name.startswith("blocks.")}
            # The head trains on a fixed encoder, whose averages are fixed too.
            if step.stage == "head":
                for name, t in task.model.classifier["blocks"].state_dict().items():
                    assert torch.equal(t, pretrained[f"blocks.{name}"]), name
            before = now
    for number in range(3):
        changed = stages[f"layer-{number + 1}"]
        assert changed and all(name.startswith(f"blocks.{number}.") for name in changed)
    assert "blocks.0.norm_above.running_mean" in stages["layer-1"] & stages["whole"]
    assert "classifier.blocks.0.norm_above.running_mean" in stages["classifier"]


@pytest.mark.parametrize("stop", [5, 12, 14, 40])
@pytest.mark.parametrize("kind", ["stacked", "conv"])
def test_autoencoder_with_batch_norm_resumes_bit_exactly(kind, stop, digits, tmp_path):
    config = config_of(kind, epochs=1 if kind == "stacked" else 4, corruption="gaussian")
    whole = trained(config, digits)
    first = Fit(AETask(config), digits, config.fit)
    for step in first:
        if step.step == stop:
            break
    first.save(tmp_path)
    torch.manual_seed(stop)
    second = Fit(AETask(config), digits, config.fit)
    second.load(tmp_path)
    for _ in second:
        pass
    expected, found = whole.task.networks.state_dict(), second.task.networks.state_dict()
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert measured(second) == measured(whole)


@pytest.mark.parametrize("kind", KINDS)
def test_saved_autoencoder_loads_with_its_batch_norm_averages(kind, digits, tmp_path: Path):
    fit = trained(config_of(kind, finetune_labels=100 if kind.startswith("stacked") else 0), digits)
    fit.task.networks.eval()
    export = fit.task.export()
    modelstore.save_model(
        tmp_path / "model", export.kind, export.config, export.tensors, export.card
    )
    model, _ = modelstore.load_model(tmp_path / "model", {"autoencoder": build_autoencoder})
    x = digits.test.first(9).all()
    assert not model.training
    assert torch.equal(model.encode(x), fit.task.model.encode(x))
    assert torch.equal(model(x), fit.task.model(x))
    if kind.startswith("stacked"):
        assert torch.equal(model.classify(x), fit.task.model.classify(x))
    if "conv" in kind:  # the model also works as a feature extractor
        seen = model_features(tmp_path / "model")(x.expand(-1, 3, -1, -1), ["conv0"])["conv0"]
        assert torch.allclose(
            functional.max_pool2d(seen, 2), model.blocks[0].encode(x)[0], atol=1e-5
        )


def test_batch_norm_helps_three_sigmoid_layers(digits):
    """Three sigmoid layers with small weights pass almost no signal at first without norms."""
    slow = {"activation": "sigmoid", "widths": (30, 30, 30), "epochs": 15}
    with_it, without = (
        measured(trained(config_of(batch_norm=on, **slow), digits))["mse"] for on in (True, False)
    )
    assert with_it < 0.8 * without, (with_it, without)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ({"widths": ()}, "--batch-norm: there is no layer between"),
        ({"lbfgs": True}, "--batch-norm: --lbfgs"),
        ({"contractive": 0.1}, "--contractive: with --batch-norm"),
    ],
)
def test_batch_norm_refuses_options_that_exclude_it(model, words):
    with pytest.raises(ConfigError, match=words) as caught:
        config_of(**model).validate()
    assert "\n" not in str(caught.value)


def test_batch_norm_refuses_a_batch_of_one_row():
    with pytest.raises(ConfigError, match="--batch-size 1: batch norm needs 2 rows"):
        AETask(config_of(batch_size=1))
