"""Style transfer by optimising the pixels of a picture.

The result should have the content's features and the style's *statistics* of features.
[Gatys 2016, https://doi.org/10.1109/CVPR.2016.265]
Shapes: B batch, C channels, H height, W width. Pictures are float32 in 0..1.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from genray.errors import RunFault, require
from genray.gen.images.colours import colours_of, luminance, recoloured
from genray.gen.images.features import Features
from genray.gen.images.style.losses import (
    adain,
    box_penalty,
    content_loss,
    grams,
    style_loss,
    total_variation,
)
from genray.paths import FeaturesName

LEAST = 16
"""Shortest side of the smallest scale, in pixels."""


@dataclass(frozen=True, kw_only=True)
class StyleConfig:
    """Configuration of style transfer by optimisation."""

    size: int = 160
    """Longest side of the result, in pixels."""
    scales: int = 3
    """Number of sizes to optimise at, each half the next; small sizes create the large strokes."""
    steps: int = 100
    """Steps of the optimizer at each scale."""
    optimizer: Literal["lbfgs", "adam"] = "lbfgs"
    learning_rate: float = 0.03
    """Learning rate of Adam."""
    weights: tuple[float, ...] = ()
    """Weights of the styles, in their order (default: equal). Only proportions matter."""
    content_weight: float = 0.15
    """Weight of the content loss, relative to the style loss; larger keeps more of the content."""
    tv: float = 4.0
    """Weight of the total variation; larger gives a smoother picture."""
    box: float = 100.0
    """Weight of the penalty on values outside 0..1."""
    style_scale: float = 1.0
    """Size of the style picture relative to the result; larger gives larger strokes."""
    style_layers: tuple[str, ...] = ()
    """Layers of the style loss; empty: the features' default."""
    content_layers: tuple[str, ...] = ()
    """Layers of the content loss; empty: the features' default."""
    recolour: bool = True
    """First give the content the style's mean and covariance of colours, which makes the
    optimisation easier and keeps light areas light.
    """
    centred: bool = True
    """Compare Gram matrices of activations minus the style's means, so that texture has more
    weight relative to colour.
    """
    start: Literal["content", "noise"] = "content"
    keep_colours: bool = False
    """Combine the luminance of the result with the colours of the content."""
    features: FeaturesName = "auto"
    """Feature extractor: auto (vgg19 if its file is cached, else untrained), untrained, vgg19, or
    model:PATH of a classifier.
    """
    seed: int = 0

    def validate(self, styles: int | None = None) -> None:
        """Raise ConfigError for invalid options; `styles`: the number of styles."""
        require(
            16 <= self.size <= 2048, f"--size {self.size}: must lie in 16..2048 pixels, e.g. 160"
        )
        require(1 <= self.scales <= 6, f"--scales {self.scales}: must lie in 1..6, e.g. 3")
        require(self.steps >= 1, f"--steps {self.steps}: must be ≥ 1, e.g. 100")
        require(
            self.optimizer in ("lbfgs", "adam"), f"--optimizer {self.optimizer}: use lbfgs or adam"
        )
        require(self.start in ("content", "noise"), f"--start {self.start}: use content or noise")
        for name in ("learning_rate", "content_weight", "tv", "box", "style_scale"):
            value, option = getattr(self, name), "--" + name.replace("_", "-")
            least = "> 0" if name in ("learning_rate", "style_scale") else "≥ 0"
            positive = value > 0 or (least == "≥ 0" and value == 0)
            require(
                positive and math.isfinite(value), f"{option} {value:g}: must be {least} and finite"
            )
        require(
            0.1 <= self.style_scale <= 4,
            f"--style-scale {self.style_scale:g}: must lie in 0.1..4, e.g. 1",
        )
        if styles is not None:
            normalised(self.weights, styles)


def normalised(weights: Sequence[float], styles: int) -> tuple[float, ...]:
    """Scale the styles' weights to sum 1; no weights: equal weights.

    Raises ConfigError for a wrong number of weights, negative weights, or a sum of 0.
    """
    shown = " ".join(f"{weight:g}" for weight in weights)
    require(styles >= 1, "style: name one picture at least")
    require(
        len(weights) in (0, styles),
        f"--weights {shown}: {len(weights)} weights for {styles} styles; give one for each",
    )
    weights = weights or (1.0,) * styles
    usable = (
        all(math.isfinite(weight) and weight >= 0 for weight in weights)
        and 0 < sum(weights) < math.inf
    )
    require(
        usable, f"--weights {shown}: must be ≥ 0 and not all 0, e.g. {' '.join(['1'] * styles)}"
    )
    return tuple(weight / sum(weights) for weight in weights)


@dataclass(frozen=True)
class StyleStep:
    """Progress of `stylize` after one step."""

    step: int
    total: int
    height: int
    width: int
    values: dict[str, float]
    """Contains "loss", and its parts before weighting: "style", "content", "tv"."""
    image: Callable[[], Tensor]
    """Returns the current picture, [1, 3, H, W] in 0..1."""


class StyleObjective:
    """Computes the loss of a picture for one content and several weighted styles, at one size."""

    def __init__(
        self,
        content_1CHW: Tensor,
        styles: Sequence[Tensor],
        weights: Sequence[float],
        config: StyleConfig,
        features: Features,
    ):
        self._config, self._features = config, features
        self._style_layers = config.style_layers or features.style_layers
        content_layers = config.content_layers or features.content_layers
        features.check_layers(self._style_layers, "--style-layers")
        features.check_layers(content_layers, "--content-layers")
        self._layers = tuple(dict.fromkeys((*self._style_layers, *content_layers)))
        self._weights = tuple(weights)
        with torch.no_grad():
            self._content = features(content_1CHW, content_layers)
            found = [features(style, self._style_layers) for style in styles]
            self._centres = [
                {
                    layer: f.mean((2, 3), keepdim=True) if config.centred else f.new_zeros(1)
                    for layer, f in each.items()
                }
                for each in found
            ]
            self._targets = [
                grams({layer: f - centre[layer] for layer, f in each.items()})
                for each, centre in zip(found, self._centres)
            ]

    def __call__(self, x_1CHW: Tensor) -> dict[str, Tensor]:
        """Return the scalars "loss", "style", "content" and "tv"."""
        found = self._features(x_1CHW, self._layers)
        style = sum(
            (
                weight * style_loss(found, target, centres=centres)
                for weight, target, centres in zip(self._weights, self._targets, self._centres)
            ),
            start=x_1CHW.new_zeros(()),
        )
        content, tv = content_loss(found, self._content), total_variation(x_1CHW)
        config = self._config
        loss = (
            style
            + config.content_weight * content
            + config.tv * tv
            + config.box * box_penalty(x_1CHW)
        )
        return {"loss": loss, "style": style, "content": content, "tv": tv}


def sizes_of(height: int, width: int, scales: int, least: int) -> list[tuple[int, int]]:
    """Return (height, width) of each scale, smallest first.

    Scales whose shorter side would be below `least` are left out.
    """
    found = [(height, width)]
    while len(found) < scales and min(found[0]) // 2 >= least:
        found.insert(0, (round(found[0][0] / 2), round(found[0][1] / 2)))
    return found


def resize(x_BCHW: Tensor, height: int, width: int) -> Tensor:
    """Resize pictures bicubically, with antialiasing."""
    if x_BCHW.shape[-2:] == (height, width):
        return x_BCHW
    return F.interpolate(
        x_BCHW, (height, width), mode="bicubic", antialias=True, align_corners=False
    )


def stylize(
    content_1CHW: Tensor,
    styles: Sequence[Tensor],
    config: StyleConfig,
    features: Features,
    progress: Callable[[StyleStep], None] = lambda step: None,
    *,
    start: Tensor | None = None,
) -> Tensor:
    """Return the content in the given styles, float32 [1, 3, H, W] in 0..1, of the content's size.

    `styles`: pictures [1, 3, H, W] of any size; each is scaled to `style_scale` times the result's
    longest side. `progress`: called after each step.
    `start`: a styled picture of the content's size as initial value, for example the previous
    frame. As it has large strokes already, only the largest scale is optimised, and `config.start`
    and `config.scales` are ignored.

    The picture with the lowest loss at each scale is kept. The same inputs, seed and number of
    threads give the same picture. Raises ConfigError for invalid options or pictures, ValueError
    for a `start` of another size, RunFault when the loss does not stay finite.
    """
    config.validate(len(styles))
    for picture in (content_1CHW, *styles):
        _check(picture)
    weights = normalised(config.weights, len(styles))
    height, width = content_1CHW.shape[-2:]
    least = max(features.min_side, LEAST)
    require(
        min(height, width) >= features.min_side,
        f"content: {width}x{height} pixels; {features.name} needs a short side of ≥ "
        f"{features.min_side}: a larger --size",
    )
    original_1CHW = content_1CHW
    content_1CHW, styles = prepared(content_1CHW, styles, config)
    if start is not None:
        _check(start)
        if start.shape != content_1CHW.shape:
            raise ValueError(
                f"a start of shape {tuple(start.shape)} for a content of "
                f"{tuple(content_1CHW.shape)}"
            )
        config = replace(config, scales=1)
    sizes = sizes_of(height, width, config.scales, least)
    if start is None:
        x_1CHW = _start(content_1CHW, *sizes[0], config)
    else:
        x_1CHW = luminance(start).expand_as(start) if config.keep_colours else start
    for number, (height, width) in enumerate(sizes):
        small = [
            _at_scale(style, max(height, width) * config.style_scale, features.min_side)
            for style in styles
        ]
        objective = StyleObjective(
            resize(content_1CHW, height, width), small, weights, config, features
        )
        x_1CHW = _minimise(
            objective,
            resize(x_1CHW, height, width),
            config,
            progress,
            number * config.steps,
            len(sizes) * config.steps,
        )
    result = x_1CHW.clamp(0, 1)
    return colours_of(result, original_1CHW) if config.keep_colours else result


def prepared(
    content_1CHW: Tensor, styles: Sequence[Tensor], config: StyleConfig
) -> tuple[Tensor, list[Tensor]]:
    """Return the content and the styles as the losses use them: the content recoloured, or for
    `keep_colours` all of them in grey.

    These pictures can also calibrate the feature extractor.
    """
    if config.keep_colours:
        grey = luminance(content_1CHW)
        greys = [luminance(style) for style in styles]
        # A style scaled to the deviation of a uniform content would consist of rounding errors,
        # on which the features would be calibrated.
        if grey.std(correction=0) >= 1 / 255:
            greys = [adain(each, grey).clamp(0, 1) for each in greys]
        return grey.expand_as(content_1CHW), [each.expand(-1, 3, -1, -1) for each in greys]
    if config.recolour:
        return recoloured(content_1CHW, styles, normalised(config.weights, len(styles))), list(
            styles
        )
    return content_1CHW, list(styles)


def _minimise(
    objective: StyleObjective,
    start_1CHW: Tensor,
    config: StyleConfig,
    progress: Callable[[StyleStep], None],
    done: int,
    total: int,
) -> Tensor:
    """Run `config.steps` steps from `start_1CHW`; returns the picture with the lowest loss.

    When the loss is not finite, a new optimizer restarts from the best picture. Raises RunFault
    the third time, or when no step had a finite loss.
    """
    # Contiguous, because L-BFGS takes views of the picture and its gradient, which is not possible
    # for a channels-last picture.
    x = start_1CHW.detach().clone(memory_format=torch.contiguous_format).requires_grad_()
    best, lowest, faults, step = x.detach().clone(), math.inf, 0, 0
    optimizer = _optimizer(x, config)
    newest: dict[str, float] = {}
    evaluated: list[float] = []
    """Losses evaluated in one call of the optimizer."""
    reported = False

    def closure() -> Tensor:
        nonlocal best, lowest, newest
        optimizer.zero_grad()
        parts = objective(x)
        parts["loss"].backward()
        assert x.grad is not None
        x.grad = x.grad.contiguous()
        # one transfer from the device
        values = dict(zip(parts, torch.stack([part.detach() for part in parts.values()]).tolist()))
        evaluated.append(values["loss"])
        if math.isfinite(values["loss"]) and values["loss"] < lowest:
            best, lowest, newest = x.detach().clone(), values["loss"], values
        return parts["loss"].detach()

    while step < config.steps:
        # L-BFGS runs ten iterations in each call: a call costs one extra evaluation, and progress
        # and interrupts are handled between calls.
        took = min(10, config.steps - step) if isinstance(optimizer, torch.optim.LBFGS) else 1
        optimizer.param_groups[0]["max_iter"] = took
        evaluated.clear()
        optimizer.step(closure)  # type: ignore[arg-type]
        loss = evaluated[0]
        step += took
        if not (math.isfinite(loss) and torch.isfinite(x.detach()).all()):
            faults += 1
            if faults == 3 or not math.isfinite(lowest) or (step == config.steps and not reported):
                raise RunFault(
                    f"the style loss is not finite at step {done + step}; use smaller weights "
                    "(--content-weight, --tv), or "
                    "--optimizer adam with a smaller --learning-rate"
                )
            x.data.copy_(best)
            optimizer = _optimizer(x, config)
            continue
        height, width = x.shape[-2:]
        reported = True
        progress(StyleStep(done + step, total, height, width, dict(newest), partial(_shown, best)))
    return best


def _shown(x: Tensor) -> Tensor:
    return x.clamp(0, 1)


def _optimizer(x: Tensor, config: StyleConfig) -> torch.optim.Optimizer:
    if config.optimizer == "adam":
        return torch.optim.Adam([x], lr=config.learning_rate)
    return torch.optim.LBFGS(
        [x], history_size=20, line_search_fn="strong_wolfe", tolerance_grad=0, tolerance_change=0
    )


def _start(content_1CHW: Tensor, height: int, width: int, config: StyleConfig) -> Tensor:
    if config.start == "content":
        return resize(content_1CHW, height, width)
    noise = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(config.seed))
    return noise.to(content_1CHW)


def _at_scale(style_1CHW: Tensor, longest: float, least: int) -> Tensor:
    """Scale a style to a longest side of `longest`, but no side below `least`."""
    height, width = style_1CHW.shape[-2:]
    factor = max(longest / max(height, width), least / min(height, width))
    return resize(style_1CHW, max(least, round(height * factor)), max(least, round(width * factor)))


def _check(picture: Tensor) -> None:
    if picture.ndim != 4 or picture.shape[:2] != (1, 3) or not picture.is_floating_point():
        raise ValueError(
            f"a picture is float [1, 3, H, W], not {picture.dtype} {tuple(picture.shape)}"
        )
    require(bool(torch.isfinite(picture).all()), "a picture with values that are not finite")


# -- time ------------------------------------------------------------------------------------------


def estimate_seconds(
    content_1CHW: Tensor, styles: Sequence[Tensor], config: StyleConfig, features: Features
) -> float:
    """Estimate the seconds that `stylize` will take, within a factor of two.

    Measures a few steps at a small size.
    """
    height, width = content_1CHW.shape[-2:]
    factor = min(1.0, max(96, features.min_side) / min(height, width))
    tall, wide = (
        max(round(height * factor), features.min_side),
        max(round(width * factor), features.min_side),
    )
    small = resize(content_1CHW, tall, wide)
    objective = StyleObjective(small, [small], [1.0], config, features)
    x = small.clone().requires_grad_()
    seconds = math.inf
    for _ in range(4):  # the first step includes initialisation
        start = time.perf_counter()
        objective(x)["loss"].backward()
        seconds = min(seconds, time.perf_counter() - start)
    sizes = sizes_of(height, width, config.scales, max(features.min_side, LEAST))
    # L-BFGS needs 1.1 to 1.5 evaluations for each step: for the line search, and one more in each
    # call.
    evaluations = config.steps * (1.25 if config.optimizer == "lbfgs" else 1.0)
    return seconds * evaluations * sum(tall_ * wide_ for tall_, wide_ in sizes) / (tall * wide)
