"""Tests training of style models: losses, resuming, files of the command, bad input."""

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

from genray import cli
from genray.errors import ConfigError
from genray.gen.data.config import DataConfig
from genray.gen.data.gcompris.credits import Credit, format_credits
from genray.gen.data.types import Data, Split
from genray.gen.families import BUILDERS, FAMILIES
from genray.gen.images.classifier import build_classifier
from genray.gen.images.patterns import pattern
from genray.gen.images.style.any_style_task import AnyStyleTask, moments_loss
from genray.gen.images.style.base import StyleTask, StyleTrainConfig
from genray.gen.images.style.network_config import StyleNetConfig
from genray.gen.images.style.one_style_task import FastStyleTask, style_task
from genray.gen.images.style.sources import open_style
from genray.gen.training.fit import Fit, FitConfig
from genray.gen.training.optimizers import OptimizerConfig
from genray.media import write_png
from genray.runs.modelstore import load_model, save_model

SIDE = 16


@pytest.fixture(scope="module")
def data() -> Data:
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.integers(0, 256, (20, 3, 4, 4), np.uint8)).repeat_interleave(4, 2)
    images = images.repeat_interleave(4, 3)
    return Data("squares", Split(images[:12]), Split(images[12:15]), Split(images[15:]))


def small(method: str = "style_fast", **changes) -> StyleTrainConfig:
    fit = {
        "steps": 4,
        "batch_size": 2,
        "validate_every": 4,
        "log_every": 1,
        **changes.pop("fit", {}),
    }
    return StyleTrainConfig(
        method=method,  # type: ignore[arg-type]
        data=DataConfig(data="photos", size=SIDE),
        fit=FitConfig(**fit),
        optimizer=OptimizerConfig(learning_rate=1e-3),
        model=StyleNetConfig(widths=(4, 6, 8), residual=1, kernel=3),
        **{"features": "untrained", "num_styles": 4, "style": "pattern:3", **changes},
    )


def trained(config: StyleTrainConfig, data: Data, steps: int = 10**9) -> Fit:
    fit = Fit(style_task(config), data, config.fit)
    for step in fit:
        if step.step == steps:
            break
    return fit


@pytest.mark.parametrize(
    ("method", "skips"),
    [("style_fast", False), ("style_any", False), ("style_any", True), ("style_micro", True)],
)
def test_style_task_resumes_bit_for_bit(tmp_path: Path, data: Data, method: str, skips: bool):
    config = small(method)
    config = replace(config, model=replace(config.model, skips=skips))
    whole, part = trained(config, data), trained(config, data, steps=2)
    part.save(tmp_path)
    again = Fit(style_task(config), data, config.fit)
    again.load(tmp_path)
    for _ in again:
        pass
    assert again.step == whole.step == 4
    for name, tensor in whole.task.networks.state_dict().items():
        assert torch.equal(tensor, again.task.networks.state_dict()[name]), name


@pytest.mark.parametrize("method", ["style_fast", "style_any", "style_micro"])
def test_style_task_trains_only_the_network(data: Data, method: str):
    fresh = Fit(style_task(small(method)), data, small(method).fit)
    before = {name: tensor.clone() for name, tensor in fresh.task.networks.state_dict().items()}
    for _ in fresh:
        pass
    after = fresh.task.networks.state_dict()
    learnt = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    part = "model.decoder." if method == "style_any" else "model."
    assert learnt and all(name.startswith(part) for name in learnt)


def test_fast_style_task_loss_is_the_sum_of_its_parts(data: Data):
    task = trained(small(content_weight=0.7, tv=3.0), data, steps=1).task
    assert isinstance(task, FastStyleTask)
    x, y = torch.rand(2, 2, 3, SIDE, SIDE)
    parts = {name: float(value) for name, value in task.losses(x, y).items()}
    assert parts["loss"] == pytest.approx(
        parts["style"] + 0.7 * parts["content"] + 3 * parts["tv"], rel=1e-5
    )
    assert float(task.losses(x, x)["content"]) == 0
    assert float(task.losses(x[:1], task.style)["style"]) == pytest.approx(0, abs=1e-6)


def test_moments_loss_by_hand():
    """The style has means 1 and 3 and deviations 1 and 2; the picture has means 0 and 3 and
    deviations 1 and 0. The loss is (1 + 4) / (10 + 5).
    """
    wanted = torch.tensor([[0.0, 2.0], [1.0, 5.0]])[None, :, None]
    found = torch.tensor([[-1.0, 1.0], [3.0, 3.0]])[None, :, None]
    assert moments_loss({"a": found}, {"a": wanted}, ["a"]).item() == pytest.approx(
        5 / 15, rel=1e-4
    )
    assert moments_loss({"a": wanted}, {"a": wanted}, ["a"]).item() == 0


@pytest.mark.parametrize("statistics", ["moments", "gram"])
def test_any_style_task_test_uses_the_test_styles(data: Data, statistics: str):
    fit = trained(small("style_any", statistics=statistics), data, steps=1)
    task = fit.task
    assert isinstance(task, AnyStyleTask)
    figures = fit.test()
    assert figures.keys() >= {"loss", "style", "content", "identity", "style_of_unstyled"}
    task.styles = replace(task.styles, validation=task.styles.validation.flip(0))
    assert fit.test() == figures, "the last word is on the test styles"
    task.styles = replace(task.styles, test=task.styles.test.flip(0))
    assert fit.test() != figures


def test_train_style_writes_a_model_and_pictures(tmp_path: Path, capsys: pytest.CaptureFixture):
    write_png(tmp_path / "wave.png", pattern(5, 40))
    run = tmp_path / "run"
    words = (
        f"train style --style {tmp_path / 'wave.png'} --data photos --size 16 --steps 2 "
        "--batch-size 2 --features untrained "
        f"--widths 4 6 --residual 1 --device cpu --validate-every 2 --out {run}"
    )
    assert cli.main(words.split()) == 0
    assert (run / "pictures" / "styled.png").exists()
    model, config = load_model(run / "model", BUILDERS)
    assert config["kind"] == "style_fast" and config["about"]["style"] == "wave.png"
    assert config["about"]["note"].startswith("untrained features")
    assert "vultilion" in (run / "model" / "README.md").read_text()
    assert cast(Any, model).stylize(torch.rand(1, 3, 30, 21)).shape == (1, 3, 30, 21)


@pytest.mark.parametrize("features", ["lite0", "model"])
def test_style_any_encodes_with_any_network(features: str, tmp_path: Path):
    """The encoder is a part of the saved model: neither the package nor the path is needed."""
    images = torch.randint(0, 256, (12, 3, 24, 24), dtype=torch.uint8)
    data = Data("noise", Split(images[:6]), Split(images[6:9]), Split(images[9:]))
    if features == "model":
        saved: dict[str, Any] = {"channels": [4, 6], "convolutions": 1, "features": 8}
        saved |= {"shape": [3, 16, 16], "num_classes": 4, "low": 0.0, "high": 1.0}
        classifier = build_classifier(saved)
        save_model(tmp_path / "own", "classifier", saved, classifier.state_dict(), "card")
        features = f"model:{tmp_path / 'own'}"
    config = small("style_any", features=features)
    config = replace(config, model=replace(config.model, widths=(4, 6)))
    task = trained(config, data, steps=1).task
    made = task.export()
    save_model(tmp_path / "any", made.kind, made.config, made.tensors, made.card)
    model, described = load_model(tmp_path / "any", BUILDERS)
    assert described["encoder_layer"] == ("exp1" if features == "lite0" else "conv1")
    content, style = torch.rand(1, 3, 30, 21), torch.rand(1, 3, 32, 32)
    expected = cast(Any, task).model.eval().stylize(content, [style])
    assert torch.equal(cast(Any, model).stylize(content, [style]), expected)


def test_train_style_records_the_features_of_auto(
    tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture
):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))  # without VGG-19
    words = (
        "train style --data photos --size 24 --steps 2 --batch-size 2 --widths 4 6 --residual 1 "
        f"--device cpu --validate-every 2 --out {tmp_path / 'run'}"
    )
    assert cli.main(words.split()) == 0
    saved = tmp_path / "run" / "config.yaml"
    assert "features: lite0" in saved.read_text()
    # A run of an older version recorded auto, which was untrained without VGG-19's file.
    older = words.replace("/run", "/older").split()
    assert cli.main([*older, "--features", "untrained"]) == 0
    saved = tmp_path / "older" / "config.yaml"
    saved.write_text(saved.read_text().replace("features: untrained", "features: auto"))
    resume = ["train", "style", "--resume", str(tmp_path / "older"), "--steps", "4"]
    assert cli.main(resume) == 0
    assert "features: untrained" in saved.read_text()


def test_open_styles_reads_a_folder(tmp_path: Path, data: Data):
    for seed in range(6):
        write_png(tmp_path / f"{seed}.png", pattern(seed, 24))
    credits = {"3.png": Credit("Waves", "Ann", "CC0", changes="cut")}
    (tmp_path / "CREDITS.md").write_text(format_credits("Words.", credits))
    config = small("style_any", styles=f"folder:{tmp_path}")
    task = Fit(style_task(config), data, config.fit).task
    assert isinstance(task, AnyStyleTask)
    assert [
        len(part) for part in (task.styles.train, task.styles.validation, task.styles.test)
    ] == [4, 1, 1]
    export = task.export()
    assert export.kind == "style_any" and "6 pictures" in export.card
    assert "\n- Waves; Ann; CC0\n" in export.card
    assert export.config["about"]["style_credits"] == ["Waves; Ann; CC0"]
    assert open_style(str(tmp_path / "3.png"), 24)[1] == "3.png (Waves; Ann; CC0)"
    assert open_style(str(tmp_path / "4.png"), 24)[1] == "4.png"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"style": "nowhere.jpg"}, "nowhere.jpg: no such file"),
        ({"style": "pattern:one"}, "pattern:SEED"),
        ({"features": "resnet"}, "--features resnet"),
        ({"style_layers": ("conv77",)}, "conv77"),
        ({"tv": -1.0}, "--tv -1"),
        ({"style_size": 4}, "--style-size 4"),
        ({"method": "style_any", "styles": "folder:nowhere"}, "no such folder"),
        ({"method": "style_any", "num_styles": 1}, "--num-styles 1"),
    ],
)
def test_style_train_config_reports_bad_options_in_one_line(
    data: Data, changes: dict, message: str
):
    with pytest.raises(ConfigError, match=message) as caught:
        config = small(**changes)
        Fit(style_task(config), data, config.fit)
    assert "\n" not in str(caught.value)


def test_style_task_refuses_grey_and_small_pictures():
    config = small()
    for shape, message in (((1, 16, 16), "give RGB"), ((3, 18, 18), "--size 16|--size 20")):
        split = Split(torch.rand(6, *shape))
        with pytest.raises(ConfigError, match=message):
            Fit(style_task(config), Data("d", split, split, split), config.fit)


@pytest.mark.parametrize(
    ("changes", "size", "message"),
    [
        ({}, 16, "--size 16: lite0 needs pictures of at least 17 pixels"),
        ({"style_size": 16}, 32, "--style-size 16; lite0 needs 17 or more"),
        ({"style_layers": ("conv1_1",)}, 32, "--style-layers conv1_1: lite0 has no such layer"),
        ({"content_layers": ("blok4",)}, 32, "--content-layers blok4: .* did you mean block4"),
        ({"method": "style_any", "style_size": 16}, 32, "--style-size 16: lite0 needs pictures"),
    ],
)
def test_style_task_names_what_lite0_needs(changes: dict, size: int, message: str):
    split = Split(torch.rand(6, 3, size, size))
    config = small(features="lite0", **changes)
    with pytest.raises(ConfigError, match=message) as caught:
        Fit(style_task(config), Data("d", split, split, split), config.fit)
    assert "\n" not in str(caught.value)


def test_style_presets_are_valid():
    for name, preset in FAMILIES["style"].presets.items():
        config = preset()
        config.validate()
        assert config.method == next(
            (f"style_{kind}" for kind in ("any", "micro") if kind in name), "style_fast"
        )
        assert issubclass(type(style_task(config)), StyleTask)
