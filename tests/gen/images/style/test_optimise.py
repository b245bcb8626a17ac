"""Tests style transfer: losses by hand, and results, restarts and messages of the optimisation."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from genray.errors import ConfigError, RunFault
from genray.gen.images.colours import colours_of, luminance, recoloured
from genray.gen.images.features import ConvStack, Features, clouds, untrained
from genray.gen.images.style.adain import adain, mean_std
from genray.gen.images.style.config import StyleConfig, normalise_weights
from genray.gen.images.style.estimate import estimate_seconds
from genray.gen.images.style.gram import gram, grams
from genray.gen.images.style.losses import box_penalty, content_loss, style_loss, total_variation
from genray.gen.images.style.objective import StyleObjective
from genray.gen.images.style.optimise import StyleStep, prepared, stylize
from genray.gen.images.style.sizes import resize, sizes_of


def cloud(seed: int, height: int = 32, width: int = 40) -> Tensor:
    square = clouds(max(height, width), 1, generator=torch.Generator().manual_seed(seed))
    return square[..., :height, :width].contiguous()


def stripes(side: int = 40, period: int = 6) -> Tensor:
    """Return stripes of dark red and pale yellow, mixed with a cloud."""
    dark, light = torch.tensor([0.5, 0.1, 0.1]), torch.tensor([0.95, 0.9, 0.6])
    mix = ((torch.arange(side)[:, None] + torch.arange(side)[None]) % period < period // 2).float()
    plain = (dark[:, None, None] * mix + light[:, None, None] * (1 - mix))[None]
    return (0.7 * plain + 0.3 * cloud(7, side, side)).clamp(0, 1)


def small(**changes) -> StyleConfig:
    return StyleConfig(**{"steps": 20, "scales": 1, **changes})


@pytest.fixture(scope="module")
def features() -> ConvStack:
    return untrained(0, [recoloured(cloud(1), [stripes()], [1.0]), stripes()], [stripes()])


# -- by hand ---------------------------------------------------------------------------------------


def test_gram_by_hand():
    f = torch.tensor([[[[1.0, 2.0]], [[3.0, -1.0]]]])  # two channels of two pixels
    # (1·1 + 2·2, 1·3 − 2·1; …, 3·3 + 1·1) / (2 channels · 2 pixels)
    assert torch.allclose(gram(f), torch.tensor([[[5.0, 1.0], [1.0, 10.0]]]) / 4)
    # more of the same picture is the same style
    assert torch.allclose(gram(f.repeat(1, 1, 3, 5)), gram(f))


def test_style_loss_by_hand():
    f = {"a": torch.tensor([[[[1.0, 2.0]], [[3.0, -1.0]]]]), "b": torch.ones(1, 1, 2, 2)}
    target = {"a": torch.tensor([[[2.0, 0.0], [0.0, 1.0]]]), "b": torch.tensor([[[0.5]]])}
    # a: difference (−.75, .25, .25, 1.5): squares 2.9375 of 5; b: .25 of .25
    assert style_loss(f, target).item() == pytest.approx((2.9375 / 5 + 1) / 2)
    assert style_loss(f, target, relative=False).item() == pytest.approx((2.9375 / 4 + 0.25) / 2)
    assert style_loss(f, grams(f)).item() == 0
    # Around the style's means the Gram matrix is the covariance.
    means = {"a": torch.tensor([1.5, 1.0])[None, :, None, None]}
    covariance = {"a": torch.tensor([[[0.5, -2.0], [-2.0, 8.0]]]) / 4}
    assert style_loss(f, covariance, centres=means).item() == pytest.approx(0, abs=1e-12)
    # One target serves a batch; the loss is the rows' mean.
    both = {"a": torch.cat([f["a"], torch.zeros(1, 2, 1, 2)])}
    assert style_loss(both, {"a": target["a"]}).item() == pytest.approx((2.9375 / 5 + 1) / 2)


@pytest.mark.filterwarnings("ignore:Using a target size")  # PyTorch's warning of a broadcast
def test_style_and_content_loss_refuse_shapes_that_would_broadcast():
    f = {"a": torch.rand(2, 3, 4, 4)}
    for call in (
        lambda: style_loss(f, {"a": torch.ones(3, 3)}),
        lambda: style_loss(f, {"a": torch.ones(1, 3, 1)}),
        lambda: content_loss(f, {"a": f["a"][:1]}),
        lambda: content_loss(f, {"a": f["a"][..., :1]}),
    ):
        with pytest.raises(ValueError, match="its shape does not fit its name"):
            call()


def test_content_loss_variation_and_box_by_hand():
    target = {"a": torch.tensor([[[[0.0, 2.0]], [[5.0, 5.0]]]])}  # variances 1 and 0: ½ on average
    other = {"a": torch.tensor([[[[1.0, 2.0]], [[5.0, 8.0]]]])}
    assert content_loss(other, target, relative=False).item() == pytest.approx(10 / 4)
    assert content_loss(other, target).item() == pytest.approx(10 / 4 / 0.5)
    x = torch.tensor([[[[0.0, 0.5], [1.0, 0.5]]]])
    assert total_variation(x).item() == pytest.approx((1 + 0) / 2 + (0.25 + 0.25) / 2)
    assert box_penalty(torch.tensor([[[[-0.5, 0.3, 2.0, 1.0]]]])).item() == pytest.approx(
        (0.25 + 1) / 4
    )


def test_mean_std_by_hand():
    mean, std = mean_std(torch.tensor([[[[1.0, 3.0], [5.0, 7.0]], [[2.0, 2.0], [2.0, 2.0]]]]))
    assert mean.flatten().tolist() == [4, 2]
    assert std.flatten().tolist() == pytest.approx([math.sqrt(5), 1e-5])


def test_adain_has_the_styles_statistics_to_a_ten_thousandth():
    random = torch.Generator().manual_seed(0)
    content = 3 * torch.randn(2, 16, 20, 31, generator=random) + 4
    style = torch.rand(2, 16, 9, 13, generator=random) * torch.arange(1, 17)[:, None, None]
    mean, std = mean_std(adain(content, style))
    style_mean, style_std = mean_std(style)
    assert (mean - style_mean).abs().max() < 1e-4
    assert (std.square() - style_std.square()).abs().div(style_std.square()).max() < 1e-4
    by_hand = (content[1, 3] - content[1, 3].mean()) / content[1, 3].std(correction=0)
    by_hand = by_hand * style[1, 3].std(correction=0) + style[1, 3].mean()
    assert torch.allclose(adain(content, style)[1, 3], by_hand, atol=1e-4)
    flat = torch.full((1, 1, 4, 4), 2.0, requires_grad=True)
    result = adain(flat, style[:1, :1])
    result.sum().backward()
    assert (
        torch.allclose(result, style[0, 0].mean().expand(1, 1, 4, 4))
        and torch.isfinite(flat.grad).all()
    )


def test_recoloured_has_the_styles_mean_and_covariance_of_colours():
    content, style = cloud(1), cloud(2) * torch.tensor([0.3, 0.5, 0.2])[:, None, None] + 0.3
    moved = recoloured(content, [style], [1.0])
    for a, b in zip((moved, style), (style, moved)):
        assert torch.allclose(a.mean((2, 3)), b.mean((2, 3)), atol=5e-3)
    assert torch.allclose(torch.cov(moved[0].flatten(1)), torch.cov(style[0].flatten(1)), atol=2e-3)
    assert torch.allclose(recoloured(content, [content], [1.0]), content, atol=1e-4)
    # Light stays light: the map is symmetric and positive.
    pair = torch.stack([luminance(content).flatten(), luminance(moved).flatten()])
    assert torch.corrcoef(pair)[0, 1] > 0.8
    assert torch.isfinite(recoloured(torch.zeros(1, 3, 8, 8), [style], [1.0])).all()


def test_normalised_weights_have_sum_1():
    assert normalise_weights((), 2) == (0.5, 0.5) and normalise_weights((3, 1), 2) == (0.75, 0.25)
    for bad, count in (
        ((1.0,), 2),
        ((0.0, 0.0), 2),
        ((-1.0, 2.0), 2),
        ((math.nan, 1.0), 2),
        ((math.inf, 1.0), 2),
    ):
        with pytest.raises(ConfigError, match="--weights"):
            normalise_weights(bad, count)


def test_sizes_of_run_from_small_to_large_and_end_at_the_least_size():
    assert sizes_of(107, 160, 3, 16) == [(27, 40), (54, 80), (107, 160)]
    assert sizes_of(40, 160, 3, 16) == [(20, 80), (40, 160)]
    assert sizes_of(20, 20, 3, 16) == [(20, 20)]


# -- the optimisation ------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["lbfgs", "adam"])
def test_stylize_lowers_the_loss_tenfold(features, optimizer: str):
    content, style = cloud(1), stripes()
    config = small(steps=40, optimizer=optimizer)
    prepared_content, prepared_styles = prepared(content, [style], config)
    objective = StyleObjective(prepared_content, prepared_styles, [1.0], config, features)
    with torch.no_grad():
        before, start = objective(content), objective(prepared_content)
    steps: list[StyleStep] = []
    result = stylize(content, [style], config, features, steps.append)
    with torch.no_grad():
        after = objective(result)
    assert result.shape == content.shape and result.min() >= 0 and result.max() <= 1
    assert after["loss"] < before["loss"] / 10
    # Not by its colours alone: against the recoloured content, too.
    assert after["style"] < start["style"] / 3
    # What it reports is what it has; only values beyond 0..1 are cut off behind it.
    assert steps[-1].values["style"] == pytest.approx(after["style"].item(), rel=0.2)
    assert [step.step for step in steps] == list(
        range(10, 41, 10) if optimizer == "lbfgs" else range(1, 41)
    )
    assert steps[-1].total == 40 and torch.equal(steps[-1].image(), result)
    assert steps[-1].values["loss"] <= steps[0].values["loss"]


def test_style_objective_can_equal_that_of_gatys(features):
    config = small(recolour=False, centred=False, tv=0.0, box=0.0)
    content, style = cloud(1), stripes()
    found = features(content, features.layers)
    layers = features.style_layers
    by_hand = style_loss(found, grams(features(style, layers)))
    objective = StyleObjective(content, [style], [1.0], config, features)
    values = objective(content)
    assert (
        values["loss"].item() == pytest.approx(by_hand.item(), rel=1e-5)
        and values["content"].item() == 0
    )


def test_stylize_depends_only_on_the_seed(features):
    def made(seed: int, **changes) -> Tensor:
        return stylize(cloud(1), [stripes()], small(steps=10, seed=seed, **changes), features)

    assert torch.equal(made(1), made(1))
    assert torch.equal(made(1, start="noise"), made(1, start="noise"))
    assert not torch.allclose(made(1, start="noise"), made(2, start="noise"), atol=1e-3)
    other = untrained(1, [stripes()], [stripes()])
    assert not torch.allclose(
        stylize(cloud(1), [stripes()], small(steps=10), other), made(0), atol=1e-3
    )


def test_stylize_reports_scales_from_small_to_large(features):
    sizes: list[tuple[int, int, int, int]] = []
    stylize(
        cloud(1), [stripes()], small(scales=2, steps=10), features,
        lambda step: sizes.append((step.step, step.total, *step.image().shape[-2:])),
    )  # fmt: skip
    assert sizes == [(10, 20, 16, 20), (20, 20, 32, 40)]


def test_stylize_follows_the_weights_of_styles(features):
    content, styles = cloud(1), [stripes(), 1 - stripes()]
    wide = untrained(0, [content, *styles])

    def towards_first(*weights: float) -> float:
        result = stylize(content, styles, small(weights=weights), wide)
        losses = [
            style_loss(wide(result, ["conv0"]), grams(wide(style, ["conv0"]))).item()
            for style in styles
        ]
        return losses[1] / losses[0]

    assert towards_first(1, 0) > towards_first(1, 1) > towards_first(0, 1)
    only = stylize(content, styles[:1], small(), wide)
    assert torch.allclose(stylize(content, styles, small(weights=(2, 0)), wide), only, atol=1e-3)


def test_stylize_smooths_by_tv_and_keeps_content_by_its_weight(features):
    def variation(tv: float) -> float:
        return total_variation(stylize(cloud(1), [stripes()], small(tv=tv), features)).item()

    assert variation(50.0) < 0.8 * variation(0.0)

    def kept(weight: float) -> float:
        values: list[dict[str, float]] = []
        config = small(content_weight=weight)
        stylize(cloud(1), [stripes()], config, features, lambda step: values.append(step.values))
        return values[-1]["content"]

    assert kept(10.0) < 0.5 * kept(0.01)


def test_stylize_keep_colours_keeps_the_chroma(features):
    content = cloud(1)
    result = stylize(content, [stripes()], small(keep_colours=True), features)
    inside = ((result > 0.01) & (result < 0.99)).all(1, keepdim=True)
    chroma = (result - luminance(result)) - (content - luminance(content))
    assert inside.float().mean() > 0.5 and (chroma.abs() * inside).max() < 1e-4
    assert not torch.allclose(luminance(result), luminance(content), atol=0.05)
    assert torch.allclose(colours_of(content, content), content, atol=1e-6)


def test_stylize_accepts_a_channels_last_picture(features):
    content = cloud(1).contiguous(memory_format=torch.channels_last)
    style = stripes().contiguous(memory_format=torch.channels_last)
    assert torch.isfinite(stylize(content, [style], small(steps=10), features)).all()


class Breaks(Features):
    """Features that are NaN from the `after`-th evaluation on, `times` times."""

    name, trained, about, layers, min_side = "breaks", False, {}, ("a",), 1
    style_layers = content_layers = ("a",)

    def __init__(self, after: int, times: int):
        super().__init__()
        self.evaluations, self.after, self.times = 0, after, times

    def activations(self, x_BCHW, layers):
        self.evaluations += 1
        broken = self.after <= self.evaluations < self.after + self.times
        return {"a": x_BCHW * (math.nan if broken else 1.0)}


@pytest.mark.parametrize("optimizer", ["lbfgs", "adam"])
def test_stylize_restarts_after_nan_and_ends_after_three(optimizer: str):
    config = small(optimizer=optimizer, steps=60)
    result = stylize(cloud(1), [stripes()], config, Breaks(9, 1))
    assert torch.isfinite(result).all()
    with pytest.raises(RunFault, match="not finite at step .*--content-weight"):
        stylize(cloud(1), [stripes()], config, Breaks(3, 10**6))


class Steep(Breaks):
    """Features with a finite loss whose gradient is NaN."""

    def activations(self, x_BCHW, layers):
        return {"a": x_BCHW + 0 * (x_BCHW - x_BCHW.detach()).sqrt()}


@pytest.mark.parametrize(("optimizer", "steps"), [("lbfgs", 3), ("lbfgs", 20), ("adam", 2)])
def test_stylize_reports_nan_in_a_short_run(optimizer: str, steps: int):
    with pytest.raises(RunFault, match=f"not finite at step {steps}; use smaller"):
        stylize(cloud(1), [stripes()], small(optimizer=optimizer, steps=steps), Steep(0, 0))


@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
def test_stylize_keep_colours_of_a_picture_of_one_level(level: float):
    content, config = torch.full((1, 3, 32, 40), level), small(keep_colours=True)
    prepared_content, palette = prepared(content, [stripes()], config)
    assert palette[0].std() > 0.05  # what there is to copy
    steps: list[StyleStep] = []
    result = stylize(
        content,
        [stripes()],
        config,
        untrained(0, [prepared_content, *palette], palette),
        steps.append,
    )
    assert steps and torch.isfinite(result).all()
    assert steps[-1].values["loss"] <= steps[0].values["loss"] < 100


def test_estimate_seconds_is_of_the_right_order(features):
    config = small(steps=20, scales=2)
    seconds = estimate_seconds(cloud(1, 64, 64), [stripes()], config, features)
    assert 0 < seconds < 60
    longer = estimate_seconds(cloud(1, 64, 64), [stripes()], replace(config, steps=2000), features)
    assert longer > 10 * seconds


def test_resize_averages():
    x = stripes(64, 2)
    assert resize(x, 16, 16).std((2, 3)).max() < 0.1 and resize(x, 64, 64) is x


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"size": 8}, "--size 8"),
        ({"scales": 0}, "--scales 0"),
        ({"steps": 0}, "--steps 0"),
        ({"optimizer": "sgd"}, "--optimizer sgd: use lbfgs or adam"),
        ({"learning_rate": 0.0}, "--learning-rate 0"),
        ({"content_weight": -1.0}, "--content-weight -1"),
        ({"tv": math.nan}, "--tv nan"),
        ({"box": math.inf}, "--box inf"),
        ({"style_scale": 9.0}, "--style-scale 9"),
        ({"weights": (1.0, 2.0)}, "--weights 1 2: 2 weights for 1 styles"),
        (
            {"style_layers": ("conv9",)},
            "--style-layers conv9: untrained has no such layer; did you mean conv",
        ),
        ({"content_layers": ("relu",)}, "--content-layers relu"),
        ({"start": "there"}, "--start there"),
    ],
)
def test_style_config_reports_bad_options_in_one_line(features, changes, message):
    with pytest.raises(ConfigError, match=message) as caught:
        stylize(cloud(1), [stripes()], small(**changes), features)
    assert "\n" not in str(caught.value)


def test_stylize_reports_bad_pictures_in_one_line(features):
    with pytest.raises(ConfigError, match="name one or more style pictures"):
        stylize(cloud(1), [], small(), features)
    with pytest.raises(
        ConfigError,
        match=r"content: 40x12 pixels; .* short side of ≥ 16 pixels: choose a larger --size",
    ):
        stylize(cloud(1, 12, 40), [stripes()], small(), features)
    with pytest.raises(ConfigError, match="not finite"):
        stylize(cloud(1), [stripes() * math.nan], small(), features)
    with pytest.raises(ValueError, match="float"):
        stylize(cloud(1)[0], [stripes()], small(), features)


def test_stylize_begins_at_start_with_one_scale(features: ConvStack):
    content, style = cloud(1), stripes()
    reported: list[StyleStep] = []
    styled = stylize(content, [style], small(steps=30), features)
    again = stylize(
        content, [style], small(steps=3, scales=2), features, reported.append, start=styled
    )
    assert [step.total for step in reported] == [3] and reported[0].width == content.shape[-1]
    anew = stylize(content, [style], small(steps=3), features)
    assert (again - styled).abs().mean() < 0.5 * (anew - styled).abs().mean()
    grey = stylize(content, [style], small(steps=2, keep_colours=True), features, start=styled)
    assert torch.allclose(grey - luminance(grey), content - luminance(content), atol=0.35)
    with pytest.raises(ValueError, match="a start of shape"):
        stylize(content, [style], small(), features, start=styled[..., 1:])
