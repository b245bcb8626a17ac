"""The classifier learns what is there to learn, comes back from disk the same, and judges without disturbing anybody."""

from pathlib import Path

import pytest
import torch

from genray.errors import ConfigError, RunFault
from genray.gen.data import Data, Split
from genray.gen.fit import Fit, FitConfig
from genray.gen.images.classifier import (
    Classifier,
    ClassifierConfig,
    ClassifierModelConfig,
    ClassifierTask,
    build_classifier,
    load_extractor,
    train_extractor,
)
from genray.gen.optimizers import OptimizerConfig
from genray.modelstore import load_model, save_model


def quadrants(rows: int = 400, side: int = 7, low: float = 0.0, high: float = 1.0, classes: int = 4) -> Data:
    """Noise with a bright spot; the label is the quadrant it lies in."""
    generator = torch.Generator().manual_seed(0)
    label = torch.randint(classes, (rows,), generator=generator)
    images = 0.3 * torch.rand(rows, 1, side, side, generator=generator)
    half = side // 2
    at = torch.randint(half, (rows, 2), generator=generator)
    row, column = at[:, 0] + (half + 1) * (label // 2), at[:, 1] + (half + 1) * (label % 2)
    images[torch.arange(rows), 0, row, column] = 1.0
    images = images * (high - low) + low
    parts = [Split(images[a:b], label[a:b], low, high) for a, b in ((0, 300), (300, 350), (350, 400))]
    return Data("quadrants", *parts, tuple("abcd"))


def small(**changes) -> ClassifierConfig:
    fit = FitConfig(**{"steps": 80, "batch_size": 50, "validate_every": 20, "log_every": 10, **changes.pop("fit", {})})
    optimizer = changes.pop("optimizer", OptimizerConfig(learning_rate=3e-3))
    model = ClassifierModelConfig(**{"channels": (8, 16), "features": 16, **changes.pop("model", {})})
    return ClassifierConfig(fit=fit, optimizer=optimizer, model=model, **changes)


@pytest.mark.parametrize("activation", ["relu", "maxout"])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_it_learns_and_comes_back_from_disk(activation: str, batch_norm: bool, tmp_path: Path):
    config = small(model={"activation": activation, "batch_norm": batch_norm})
    data = quadrants()
    task = ClassifierTask(config)
    fit = Fit(task, data, config.fit)
    before = fit.judge(data.test)
    for _ in fit:
        pass
    figures = fit.judge(data.test)
    assert before["accuracy"] < 0.5 and figures["accuracy"] > 0.9 and figures["loss"] < 0.5 * before["loss"]
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


def test_the_value_range_makes_no_difference():
    config = small(fit={"steps": 10})
    figures = []
    for low, high in ((0.0, 1.0), (-1.0, 1.0)):
        fit = Fit(ClassifierTask(config), quadrants(low=low, high=high), config.fit)
        for _ in fit:
            pass
        figures.append(fit.judge(quadrants(low=low, high=high).test)["loss"])
    assert figures[0] == pytest.approx(figures[1], rel=1e-3)


@pytest.mark.parametrize("stop", [3, 20])
def test_an_interrupted_run_continues_bit_for_bit(stop: int, tmp_path: Path):
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
    assert all(torch.equal(expected[name], tensor) for name, tensor in second.task.networks.state_dict().items())


def test_training_a_judge_leaves_randomness_and_gradients_as_they_were():
    state = torch.get_rng_state()
    with torch.no_grad():
        first = train_extractor(quadrants(), steps=30)
        assert not torch.is_grad_enabled()
    assert torch.equal(state, torch.get_rng_state())
    torch.manual_seed(5)
    second = train_extractor(quadrants(), steps=30)
    assert first.name == second.name  # a function of the data alone
    assert (first.probabilities(quadrants().test.all()).argmax(1) == quadrants().test.label).float().mean() > 0.4


def test_bad_input_is_one_line():
    with pytest.raises(ConfigError, match="one class"):
        Fit(ClassifierTask(small()), quadrants(classes=1), small().fit)
    data = quadrants()
    bare = Data("bare", *(Split(split.values) for split in (data.train, data.validation, data.test)))
    with pytest.raises(ConfigError, match="labels"):
        Fit(ClassifierTask(small()), bare, small().fit)
    config = small(fit={"batch_size": 301})
    with pytest.raises(ConfigError, match=r"--batch-size 301: .* 300 rows"):
        Fit(ClassifierTask(config), data, config.fit)
    with pytest.raises(ConfigError, match="--kernel 4"):
        ClassifierTask(small(model={"kernel": 4}))
    text = Data(
        "text", *(Split(split.values.flatten(1), split.label) for split in (data.train, data.validation, data.test))
    )
    with pytest.raises(ConfigError, match="images"):
        Fit(ClassifierTask(small()), text, small().fit)


def test_a_rate_that_diverges_stops_the_run():
    config = small(optimizer=OptimizerConfig(learning_rate=1e30))
    with pytest.raises(RunFault, match="--learning-rate"):
        list(Fit(ClassifierTask(config), quadrants(), config.fit))
