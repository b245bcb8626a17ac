"""Tests the classifier: losses, learning, resuming, saved models, and use as an extractor."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from genray.errors import ConfigError, RunFault
from genray.gen.data.types import Data, Split
from genray.gen.families import FAMILIES
from genray.gen.images.classifier import (
    Classifier,
    ClassifierConfig,
    ClassifierModelConfig,
    ClassifierTask,
    build_classifier,
    classification_loss,
    load_extractor,
    train_extractor,
)
from genray.gen.images.features.trained_model import model_features
from genray.gen.training.fit import Fit, FitConfig
from genray.gen.training.optimizers import OptimizerConfig
from genray.runs.modelstore import load_model, save_model


def quadrants(
    rows: int = 400, side: int = 7, low: float = 0.0, high: float = 1.0, classes: int = 4
) -> Data:
    """Return noise with a bright spot in one quadrant, which is the label."""
    generator = torch.Generator().manual_seed(0)
    label = torch.randint(classes, (rows,), generator=generator)
    images = 0.3 * torch.rand(rows, 1, side, side, generator=generator)
    half = side // 2
    at = torch.randint(half, (rows, 2), generator=generator)
    row, column = at[:, 0] + (half + 1) * (label // 2), at[:, 1] + (half + 1) * (label % 2)
    images[torch.arange(rows), 0, row, column] = 1.0
    images = images * (high - low) + low
    parts = [
        Split(images[a:b], label[a:b], low, high) for a, b in ((0, 300), (300, 350), (350, 400))
    ]
    return Data("quadrants", *parts, tuple("abcd"))


def small(**changes) -> ClassifierConfig:
    fit = FitConfig(
        **{
            "steps": 80,
            "batch_size": 50,
            "validate_every": 20,
            "log_every": 10,
            **changes.pop("fit", {}),
        }
    )
    optimizer = changes.pop("optimizer", OptimizerConfig(learning_rate=3e-3))
    model = ClassifierModelConfig(
        **{"channels": (8, 16), "features": 16, **changes.pop("model", {})}
    )
    return ClassifierConfig(fit=fit, optimizer=optimizer, model=model, **changes)


@pytest.mark.parametrize("activation", ["relu", "maxout"])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_classifier_learns_and_is_saved_and_loaded(
    activation: str, batch_norm: bool, tmp_path: Path
):
    config = small(model={"activation": activation, "batch_norm": batch_norm})
    data = quadrants()
    task = ClassifierTask(config)
    fit = Fit(task, data, config.fit)
    before = fit.evaluate(data.test)
    for _ in fit:
        pass
    figures = fit.evaluate(data.test)
    assert (
        before["accuracy"] < 0.5
        and figures["accuracy"] > 0.9
        and figures["loss"] < 0.5 * before["loss"]
    )
    export = task.export()
    folder = save_model(tmp_path / "model", export.kind, export.config, export.tensors, export.card)
    model, kept = load_model(folder, {"classifier": build_classifier})
    assert isinstance(model, Classifier) and kept["num_classes"] == 4
    task.networks.eval()
    images = data.test.all()
    assert torch.equal(model(images), task.classifier(images))
    extractor = load_extractor(str(folder))
    assert torch.equal(extractor.features(images), model.features(images))
    assert extractor.name == load_extractor(str(folder)).name


def test_classifier_does_not_depend_on_the_value_range():
    config = small(fit={"steps": 10})
    figures = []
    for low, high in ((0.0, 1.0), (-1.0, 1.0)):
        fit = Fit(ClassifierTask(config), quadrants(low=low, high=high), config.fit)
        for _ in fit:
            pass
        figures.append(fit.evaluate(quadrants(low=low, high=high).test)["loss"])
    assert figures[0] == pytest.approx(figures[1], rel=1e-3)


@pytest.mark.parametrize("stop", [3, 20])
def test_classifier_task_resumes_bit_for_bit(stop: int, tmp_path: Path):
    config = small(fit={"steps": 30}, model={"batch_norm": True})
    whole = Fit(ClassifierTask(config), quadrants(), config.fit)
    steps = list(whole)
    first = Fit(ClassifierTask(config), quadrants(), config.fit)
    for step in first:
        if step.step == stop:
            break
    first.save(tmp_path)
    torch.manual_seed(999)  # dropout draws from here
    second = Fit(ClassifierTask(config), quadrants(), config.fit)
    second.load(tmp_path)
    assert list(second)[-1].values == steps[-1].values
    expected = whole.task.networks.state_dict()
    assert all(
        torch.equal(expected[name], tensor)
        for name, tensor in second.task.networks.state_dict().items()
    )


def test_train_extractor_leaves_random_state_and_gradients_unchanged():
    state = torch.get_rng_state()
    with torch.no_grad():
        first = train_extractor(quadrants(), steps=30)
        assert not torch.is_grad_enabled()
    assert torch.equal(state, torch.get_rng_state())
    torch.manual_seed(5)
    second = train_extractor(quadrants(), steps=30)
    assert first.name == second.name  # a function of the data alone
    assert (
        first.probabilities(quadrants().test.all()).argmax(1) == quadrants().test.label
    ).float().mean() > 0.4


def test_classifier_config_and_task_report_bad_input_in_one_line():
    with pytest.raises(ConfigError, match="one class"):
        Fit(ClassifierTask(small()), quadrants(classes=1), small().fit)
    data = quadrants()
    bare = Data(
        "bare", *(Split(split.values) for split in (data.train, data.validation, data.test))
    )
    with pytest.raises(ConfigError, match="labels"):
        Fit(ClassifierTask(small()), bare, small().fit)
    config = small(fit={"batch_size": 301})
    with pytest.raises(ConfigError, match=r"--batch-size 301: .* 300 rows"):
        Fit(ClassifierTask(config), data, config.fit)
    with pytest.raises(ConfigError, match="--kernel 4"):
        ClassifierTask(small(model={"kernel": 4}))
    text = Data(
        "text",
        *(
            Split(split.values.flatten(1), split.label)
            for split in (data.train, data.validation, data.test)
        ),
    )
    with pytest.raises(ConfigError, match="images"):
        Fit(ClassifierTask(small()), text, small().fit)


def test_classifier_task_ends_when_the_loss_diverges():
    config = small(optimizer=OptimizerConfig(learning_rate=1e30))
    with pytest.raises(RunFault, match="--learning-rate"):
        list(Fit(ClassifierTask(config), quadrants(), config.fit))


# -- losses ----------------------------------------------------------------------------------------


def test_classification_loss_by_hand():
    """The logits are 0 and ln 3, so the softmax is ¼ and ¾."""
    logits, label = torch.tensor([[1.0, 3.0]]).log(), torch.tensor([0])
    # ln 4
    assert classification_loss("cross_entropy", logits, label).item() == pytest.approx(1.3862944)
    assert classification_loss("squared_error", logits, label).item() == pytest.approx(2 * 0.75**2)
    # Smoothed by 0.2 over two classes: 0.9 and 0.1.
    smooth = classification_loss("squared_error", logits, label, 0.2).item()
    assert smooth == pytest.approx((0.25 - 0.9) ** 2 + (0.75 - 0.1) ** 2)


def test_classification_loss_gradient_of_squared_error_vanishes_where_surely_wrong():
    random = torch.Generator().manual_seed(0)
    logits_BK = torch.randn(5, 4, generator=random, dtype=torch.float64).requires_grad_()
    label_B = torch.tensor([0, 1, 2, 3, 0])
    (gradient_BK,) = torch.autograd.grad(
        classification_loss("squared_error", logits_BK, label_B).sum(), logits_BK
    )
    p_BK = logits_BK.detach().softmax(1)
    error_BK = p_BK - torch.nn.functional.one_hot(label_B, 4)
    by_hand = 2 * torch.stack(
        [(torch.diag(p) - torch.outer(p, p)) @ error for p, error in zip(p_BK, error_BK)]
    )
    assert torch.allclose(gradient_BK, by_hand)
    surely_wrong = torch.tensor([[-20.0, 20.0]], requires_grad=True)
    sizes = [
        torch.autograd.grad(
            classification_loss(loss, surely_wrong, torch.tensor([0])).sum(), surely_wrong
        )[0]
        .abs()
        .max()
        for loss in ("cross_entropy", "squared_error")
    ]
    assert sizes[0] > 0.999 and sizes[1] < 1e-6


def test_classifier_task_with_squared_error_learns_and_reports_both_losses():
    config = small(loss="squared_error", fit={"steps": 120})
    fit = Fit(ClassifierTask(config), quadrants(), config.fit)
    before = fit.evaluate(quadrants().test)
    for _ in fit:
        pass
    after = fit.evaluate(quadrants().test)
    assert after["accuracy"] > 0.9 and after["loss"] < 0.4 * before["loss"] <= 2
    assert after["cross_entropy"] < before["cross_entropy"]


# -- layers by name --------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", ["relu", "maxout"])
def test_layer_outputs_equal_what_the_network_computes(activation: str):
    model_config = ClassifierModelConfig(
        channels=(4, 6), convolutions=2, features=8, batch_norm=True, activation=activation
    )
    model = Classifier(model_config, (3, 12, 12), 5, 0.0, 1.0).eval()
    assert model.layer_names == ("conv0", "conv1", "conv2", "conv3")
    x = torch.rand(2, 3, 12, 12, requires_grad=True)
    found = model.layer_outputs(x, ["conv3", "conv0"])
    assert {name: tuple(y.shape[1:]) for name, y in found.items()} == {
        "conv3": (6, 6, 6),
        "conv0": (4, 12, 12),
    }
    # From the deepest layer on, by hand: pool, flatten, features, logits.
    pooled = torch.nn.functional.max_pool2d(found["conv3"], 2)
    features = model.layers[-2:]
    assert torch.allclose(model.head(features(pooled.flatten(1))), model(x), atol=1e-6)
    (gradient,) = torch.autograd.grad(found["conv3"].sum(), x)
    assert gradient.abs().sum() > 0
    # Any size: the convolutions do not care.
    assert model.layer_outputs(torch.rand(1, 3, 40, 31), ["conv2"])["conv2"].shape == (1, 6, 20, 16)
    with pytest.raises(ConfigError, match="layer conv9: no such layer; did you mean conv"):
        model.layer_outputs(x, ["conv9"])


def test_build_classifier_loads_models_of_older_versions(tmp_path: Path):
    """A config.json without newer fields describes one convolution in each block."""
    model = Classifier(
        ClassifierModelConfig(channels=(4, 6), features=8), (1, 8, 8), 3, 0.0, 1.0
    ).eval()
    config = {
        "channels": [4, 6],
        "kernel": 3,
        "features": 8,
        "activation": "relu",
        "batch_norm": False,
        "dropout": 0.2,
        "shape": [1, 8, 8],
        "num_classes": 3,
        "low": 0.0,
        "high": 1.0,
    }
    folder = save_model(tmp_path / "model", "classifier", config, dict(model.state_dict()), "card")
    assert "convolutions" not in json.loads((folder / "config.json").read_text())
    loaded, _ = load_model(folder, {"classifier": build_classifier})
    x = torch.rand(2, 1, 8, 8)
    assert torch.equal(loaded(x), model(x))
    assert set(model.state_dict()) == {
        f"layers.{n}.{part}" for n in (0, 3, 7) for part in ("weight", "bias")
    } | {
        "head.weight",
        "head.bias",
    }


@pytest.mark.parametrize(
    "preset, shape, convolutions",
    [
        ("classifier_digits", (1, 8, 8), 2),
        ("classifier_dense_mnist", (1, 28, 28), 0),
        ("classifier_atari", (3, 64, 64), 8),
        ("classifier_cifar10", (3, 32, 32), 6),
    ],
)
def test_classifier_presets_are_valid_and_deep(preset: str, shape: tuple, convolutions: int):
    config = FAMILIES["classifier"].preset(preset)
    config.validate()
    model = Classifier(config.model, shape, 10, 0.0, 1.0)
    logits = model(torch.rand(2, *model.shape))
    assert logits.shape == (2, 10)
    assert len(model.layer_names) == convolutions


def test_dense_classifier_preset_has_500_sigmoid_units_twice_and_drops_8_of_10():
    config = FAMILIES["classifier"].preset("classifier_dense_mnist")
    assert (config.fit.batch_size, config.fit.epochs, config.data.data) == (100, 20, "mnist")
    model = Classifier(config.model, (1, 28, 28), 10, 0.0, 1.0)
    linear = [layer for layer in model.modules() if isinstance(layer, nn.Linear)]
    sizes = [(layer.in_features, layer.out_features) for layer in linear]
    assert sizes == [(784, 500), (500, 500), (500, 10)]
    assert sum(isinstance(layer, nn.Sigmoid) for layer in model.modules()) == 2
    # Keras 1's Dropout(0.8) drops 0.8 of the units, after both hidden layers.
    shares = []
    for layer in model.modules():
        if isinstance(layer, nn.Dropout):
            layer.register_forward_hook(
                lambda _, __, out: shares.append((out == 0).float().mean().item())
            )
    torch.manual_seed(0)
    model.train()(torch.rand(200, 1, 28, 28))
    assert shares == pytest.approx([0.8, 0.8], abs=0.01)


@pytest.mark.parametrize("batch_norm", [False, True])
def test_dense_classifier_learns_and_is_saved_and_loaded(batch_norm: bool, tmp_path: Path):
    config = small(
        model={"network": "dense", "widths": (64, 32), "batch_norm": batch_norm, "dropout": 0.1},
        optimizer=OptimizerConfig(learning_rate=1e-2),
    )
    data, task = quadrants(), ClassifierTask(config)
    fit = Fit(task, data, config.fit)
    for _ in fit:
        pass
    # A dense layer has to learn each place of the spot on its own, from 300 rows.
    assert fit.evaluate(data.test)["accuracy"] > 0.7
    export = task.export()
    assert "hidden layers of 64 and 32 units" in export.card
    folder = save_model(tmp_path / "model", export.kind, export.config, export.tensors, export.card)
    model, _ = load_model(folder, {"classifier": build_classifier})
    task.networks.eval()
    images = data.test.all()
    assert isinstance(model, Classifier) and torch.equal(model(images), task.classifier(images))
    assert model.features(images).shape == (len(images), 32)
    with pytest.raises(ConfigError, match="a dense classifier has no convolutions"):
        model.layer_outputs(images, ["conv0"])
    with pytest.raises(ConfigError, match="has no convolutions of grey or RGB images"):
        model_features(folder)


def test_classifier_block_has_several_convolutions():
    with pytest.raises(ConfigError, match="--convolutions 0"):
        ClassifierTask(small(model={"convolutions": 0}))


@pytest.mark.parametrize("loss", ["cross_entropy", "squared_error"])
@pytest.mark.parametrize("shape", [(3, 1), (1,), ()])
def test_classification_loss_refuses_labels_that_would_broadcast(loss: str, shape: tuple):
    with pytest.raises(ValueError, match="label_B: its shape does not fit its name"):
        classification_loss(loss, torch.zeros(3, 4), torch.zeros(shape, dtype=torch.int64))
