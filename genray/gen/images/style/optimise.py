"""Transfers a style by optimising the pixels of a picture.

The result has features close to the content's, and statistics of features close to the style's.
[Gatys 2016, https://doi.org/10.1109/CVPR.2016.265]
Shapes: B batch, C channels, H height, W width. Pictures are float32 in 0..1.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from genray.errors import RunFault, require
from genray.gen.images.colours import colours_of, luminance, recoloured
from genray.gen.images.features import Features
from genray.gen.images.style.adain import adain
from genray.gen.images.style.config import StyleConfig, normalise_weights
from genray.gen.images.style.objective import StyleObjective
from genray.gen.images.style.sizes import LEAST, at_scale, resize, sizes_of


@dataclass(frozen=True)
class StyleStep:
    """Progress of `stylize` after one call of the optimizer (L-BFGS: up to ten steps)."""

    step: int
    total: int
    height: int
    width: int
    values: dict[str, float]
    """Values of the best picture so far: "loss", and "style", "content", "tv" before weighting. The
    loss also contains the penalty of values outside 0..1.
    """
    image: Callable[[], Tensor]
    """Returns the best picture so far at this scale, [1, 3, H, W] in 0..1."""


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
    longest side. `progress`: called after each call of the optimizer (L-BFGS: up to ten steps).
    `start`: a styled picture of the content's size as initial value, for example the previous
    frame. As it has large strokes already, only the largest scale is optimised, and `config.start`
    and `config.scales` are ignored.

    The picture with the lowest loss at each scale is kept. The same inputs, seed and number of
    threads give the same picture. Raises ConfigError for invalid options or pictures, ValueError
    for a `start` of another size, RunFault when the loss does not stay finite.
    """
    # Check the input.
    config.validate(len(styles))
    for picture in (content_1CHW, *styles):
        _check(picture)
    weights = normalise_weights(config.weights, len(styles))
    height, width = content_1CHW.shape[-2:]
    least = max(features.min_side, LEAST)
    require(
        min(height, width) >= features.min_side,
        f"content: {width}x{height} pixels; {features.name} needs a short side of ≥ "
        f"{features.min_side} pixels: choose a larger --size",
    )
    # Transfer the colours first, or remove them.
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
    # Choose the scales, and the initial picture at the smallest one.
    sizes = sizes_of(height, width, config.scales, least)
    if start is None:
        x_1CHW = _start(content_1CHW, *sizes[0], config)
    else:
        x_1CHW = luminance(start).expand_as(start) if config.keep_colours else start
    # Optimise at each scale, starting from the enlarged result of the scale before.
    for number, (height, width) in enumerate(sizes):
        small = [
            at_scale(style, max(height, width) * config.style_scale, features.min_side)
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
        # Scaling a style to the deviation of a nearly uniform content would leave only rounding
        # errors, which would distort the calibration of features. Such styles are not scaled.
        if grey.std(correction=0) >= 1 / 255:
            greys = [adain(each, grey).clamp(0, 1) for each in greys]
        return grey.expand_as(content_1CHW), [each.expand(-1, 3, -1, -1) for each in greys]
    if config.recolour:
        return recoloured(
            content_1CHW, styles, normalise_weights(config.weights, len(styles))
        ), list(styles)
    return content_1CHW, list(styles)


def _minimise(
    objective: StyleObjective,
    start_1CHW: Tensor,
    config: StyleConfig,
    progress: Callable[[StyleStep], None],
    done: int,
    total: int,
) -> Tensor:
    """Run `config.steps` steps from `start_1CHW`, and return the picture with the lowest loss.

    When the loss is not finite, a new optimizer restarts from the best picture. Raises RunFault
    the third time, when no step had a finite loss, or when the last step fails before any progress
    was reported.
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
        # All values come from the device in one transfer.
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
        # After a loss that is not finite, restart from the best picture.
        if not (math.isfinite(loss) and torch.isfinite(x.detach()).all()):
            faults += 1
            if faults == 3 or not math.isfinite(lowest) or (step == config.steps and not reported):
                raise RunFault(
                    f"the style loss is not finite at step {done + step}; use smaller weights "
                    "(--content-weight, --tv), or --optimizer adam with a smaller --learning-rate"
                )
            x.data.copy_(best)
            optimizer = _optimizer(x, config)
            continue
        height, width = x.shape[-2:]
        reported = True
        progress(StyleStep(done + step, total, height, width, dict(newest), partial(_shown, best)))
    return best


def _shown(x: Tensor) -> Tensor:
    """Return the picture clipped to 0..1."""
    return x.clamp(0, 1)


def _optimizer(x: Tensor, config: StyleConfig) -> torch.optim.Optimizer:
    if config.optimizer == "adam":
        return torch.optim.Adam([x], lr=config.learning_rate)
    return torch.optim.LBFGS(
        [x], history_size=20, line_search_fn="strong_wolfe", tolerance_grad=0, tolerance_change=0
    )


def _start(content_1CHW: Tensor, height: int, width: int, config: StyleConfig) -> Tensor:
    """Return the initial picture, [1, 3, height, width]."""
    if config.start == "content":
        return resize(content_1CHW, height, width)
    noise = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(config.seed))
    return noise.to(content_1CHW)


def _check(picture: Tensor) -> None:
    """Raise ValueError or ConfigError unless `picture` is finite float [1, 3, H, W]."""
    if picture.ndim != 4 or picture.shape[:2] != (1, 3) or not picture.is_floating_point():
        raise ValueError(
            f"a picture is float [1, 3, H, W], not {picture.dtype} {tuple(picture.shape)}"
        )
    require(
        bool(torch.isfinite(picture).all()),
        "a picture has values that are not finite; correct or remove it",
    )
