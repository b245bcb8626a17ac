"""Tests MicroAST: modulation, mixing of styles, strips, the contrastive loss, and training."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from genray.errors import ConfigError
from genray.gen.data.types import Data
from genray.gen.families import BUILDERS
from genray.gen.images.style import micro_net
from genray.gen.images.style.adain import mean_std
from genray.gen.images.style.large_micro import restyle_in_strips, with_filters
from genray.gen.images.style.micro_net import MicroNet, modulated
from genray.gen.images.style.micro_task import MicroStyleTask, contrastive_loss
from genray.gen.images.style.network_config import StyleNetConfig
from genray.gen.images.style.network_parts import Residual
from genray.gen.training.optimizers import OptimizerConfig
from genray.runs.modelstore import load_model, save_model
from tests.gen.images.style.test_large import picture
from tests.gen.images.style.test_tasks import data as data
from tests.gen.images.style.test_tasks import small, trained

SMALL = StyleNetConfig(widths=(4, 6, 8), residual=2, kernel=3)
KINDS = [(False, False), (True, True)]
"""Values of `skips` and `separable`."""


def net_of(skips: bool = True, separable: bool = True) -> MicroNet:
    """Return a network whose filters depend on the style as much as after training."""
    torch.manual_seed(0)
    net = MicroNet(replace(SMALL, skips=skips, separable=separable), 48).eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return net


@pytest.mark.parametrize(("skips", "separable"), KINDS)
def test_micro_net_is_the_same_in_strips(monkeypatch, skips: bool, separable: bool):
    net, content = net_of(skips, separable), picture(61, 75)
    styles = [picture(40, 32, seed) for seed in (1, 2)]
    whole = net.stylize(content, styles, weights=[1, 3], alpha=0.8)
    monkeypatch.setattr(micro_net, "WHOLE", 1000)
    found = net.stylize(content, styles, weights=[1, 3], alpha=0.8)
    assert whole.shape == content.shape and whole.std() > 0.01 and not torch.equal(found, whole)
    torch.testing.assert_close(found, whole, atol=1e-4, rtol=0)
    # Training has gradients at any size.
    assert net(picture(40, 40), picture(40, 40)).requires_grad
    with torch.no_grad():
        padded = picture(64, 76)
        code = net.mixed(padded, [net.encode_style(styles[0])], [1.0], 1.0)
        small_strips = restyle_in_strips(net, padded, code, strip=1 << 9)
        expected = net(padded, styles[0])
    torch.testing.assert_close(small_strips, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("separable", [False, True])
def test_modulated_block_has_the_filters_that_the_style_scales(separable: bool):
    torch.manual_seed(0)
    block, x = Residual(4, norm=False, separable=separable), torch.rand(2, 4, 8, 8)
    filters = [torch.rand(1, 4, 1, 1) for _ in range(4)]
    with torch.no_grad():
        found = modulated(block, x, filters)
        torch.testing.assert_close(found, with_filters(block, filters)(x))
        neutral = [torch.ones(1, 4, 1, 1), torch.zeros(1, 4, 1, 1)] * 2
        torch.testing.assert_close(modulated(block, x, neutral), block(x))
        assert not torch.allclose(found, block(x), atol=0.05)


def test_micro_net_signals_are_those_of_the_style():
    net, style = net_of(), picture(40, 32, 1)
    with torch.no_grad():
        code = net.encode_style(style)
        first = net.style_encoder(style)[0]
    assert [signal.shape for signal in code.signals] == [(1, 6, 8, 1, 1)] * 2
    for found, wanted in zip(code.signals[0].unbind(1), mean_std(first)):
        torch.testing.assert_close(found, wanted)


def test_micro_net_mixes_styles_by_their_weights_and_alpha():
    net, content = net_of(), picture(32, 32)
    a, b = picture(32, 32, 1), 0.3 * picture(32, 32, 2)
    only_a = net.stylize(content, [a])
    torch.testing.assert_close(net.stylize(content, [a, b], weights=[3, 0]), only_a)
    half = net.stylize(content, [a, b])
    assert not torch.allclose(half, only_a, atol=0.01)
    code = net.mixed(content, [net.encode_style(a), net.encode_style(b)], [0.25, 0.75], 1.0)
    for mixed, one, other in zip(
        code.signals, net.encode_style(a).signals, net.encode_style(b).signals
    ):
        torch.testing.assert_close(mixed, 0.25 * one + 0.75 * other)
    torch.testing.assert_close(net.stylize(content, [a], alpha=0.0), net.unchanged(content))
    # A style that is the content itself changes nothing: its own signals and colours.
    torch.testing.assert_close(
        net.stylize(content, [content]), net.unchanged(content), atol=0.01, rtol=0
    )


def test_micro_net_refuses_bad_input():
    with pytest.raises(ConfigError, match="--residual 0"):
        MicroNet(replace(SMALL, residual=0), 48)
    net = net_of()
    with pytest.raises(ConfigError, match="name one or more style"):
        net.stylize(picture(32, 32))
    with pytest.raises(ConfigError, match="takes sides of 8 to"):
        net.stylize(torch.rand(1, 3, 7, 32), [picture(32, 32)])
    assert net.stylize(torch.rand(1, 3, 8, 9), [torch.rand(1, 3, 9, 70)]).shape == (1, 3, 8, 9)


def test_contrastive_loss_by_hand():
    """The distances to the own style are 1 and 4, those to the other style 4 and 1."""
    styles = [torch.tensor([0.0, 3.0]).view(2, 1, 1, 1, 1)]
    found = [torch.tensor([1.0, 1.0]).view(2, 1, 1, 1, 1)]
    assert contrastive_loss(found, styles).item() == pytest.approx((1 / 4 + 4 / 1) / 2)
    assert contrastive_loss(styles, styles).item() == 0
    assert contrastive_loss([found[0][:1]], [styles[0][:1]]).item() == 0


def micro(**changes: Any):
    config = small("style_micro", **changes)
    return replace(config, model=replace(config.model, skips=True, separable=True))


def test_style_micro_learns_styles_and_is_saved(data: Data, tmp_path: Path):
    config = micro(content_weight=0.02, tv=0.0)
    config = replace(config, optimizer=OptimizerConfig(learning_rate=3e-3))
    longer = replace(config.fit, steps=60, validate_every=60)
    task = trained(replace(config, fit=longer), data).task
    assert isinstance(task, MicroStyleTask)
    before = trained(config, data, steps=1).task
    assert isinstance(before, MicroStyleTask)
    with torch.no_grad():
        first, last = before.evaluate(data.test), task.evaluate(data.test)
        assert task.pictures(data)["styled"].ndim == 3
    assert last["loss"] < 0.9 * first["loss"], (first, last)
    made = task.export()
    assert made.kind == "style_any" and "MicroAST" in made.card
    assert not any("features" in name or "encoder.net" in name for name in made.tensors)
    save_model(tmp_path / "any", made.kind, made.config, made.tensors, made.card)
    model: Any = load_model(tmp_path / "any", BUILDERS)[0]
    content, style = picture(40, 32), picture(48, 48, 1)
    expected: Tensor = task.model.eval().stylize(content, [style])
    assert torch.equal(model.stylize(content, [style]), expected)


def test_contrastive_weight_changes_the_training(data: Data):
    found = [trained(micro(contrastive_weight=weight), data).task for weight in (0.0, 5.0)]
    without, with_it = (dict(task.networks.state_dict()) for task in found)
    name = "model.style_encoder.down.0.weight"
    assert not torch.equal(without[name], with_it[name])
    for task in found:
        assert isinstance(task, MicroStyleTask)
        with torch.no_grad():
            figures = task.evaluate(data.test)
        assert ("contrastive" in figures) == bool(task.config.contrastive_weight)
