"""Draws the path of each optimizer down a narrow valley, a quadratic function of two numbers."""

from pathlib import Path

import numpy as np
import torch
from torch import nn

from genray.gen.figures.drawing import (
    COLOURS,
    FAINT,
    INK,
    new_figure,
    style_axes,
    write_figure,
    write_title,
)
from genray.gen.training.optimizers import OPTIMIZERS, OptimizerConfig, make_optimizer

VALLEY = (1.0, 30.0)
"""Curvatures a and b of f(x, y) = ½(a·x² + b·y²), which is flat along x and steep along y."""
VALLEY_START = (-4.0, 1.2)
VALLEY_STEPS = 60
# Learning rates, chosen by hand among 1, 2, 3, 5, 6 · 10ᵏ, because with one common rate most
# optimizers would either hardly move or diverge. SGD's 0.06 is just below 2/b = 0.067, above which
# y diverges.
VALLEY_RATES: dict[str, float] = {
    "sgd": 0.06,
    "momentum": 0.02,
    "nesterov": 0.02,
    "adagrad": 1.0,
    "adadelta": 50.0,
    "rmsprop": 0.1,
    "rmsprop-centered": 0.05,
    "adam": 0.3,
    "adamw": 0.3,
    "amsgrad": 0.3,
    "nadam": 0.2,
    "radam": 0.06,
    "adamax": 0.5,
    "adafactor": 0.3,
    "asgd": 0.06,
    "rprop": 0.1,
    "adagrad-da": 1.0,
    "ftrl": 1.0,
    "proximal-gradient-descent": 0.06,
    "proximal-adagrad": 1.0,
}

VALLEY_MORE_STEPS: dict[str, int] = {"radam": 400}
"""Numbers of updates other than VALLEY_STEPS. RAdam makes plain momentum steps until it can
estimate the variance, so its rate η must be below 2/b, like SGD's. Its later steps have a length of
at most about η, which is short, so RAdam needs more updates."""


def valley_path(optimizer: str, rate: float, steps: int = VALLEY_STEPS) -> np.ndarray:
    """Return the optimizer's path from VALLEY_START, float64 [steps + 1, 2]."""
    point = nn.Parameter(torch.tensor(VALLEY_START, dtype=torch.float64))
    rule = make_optimizer([point], OptimizerConfig(optimizer=optimizer, learning_rate=rate))
    path = [point.detach().clone()]
    for _ in range(steps):
        point.grad = torch.tensor(VALLEY, dtype=torch.float64) * point.detach()
        rule.step()
        path.append(point.detach().clone())
    return torch.stack(path).numpy()


def valley_figure(path: Path, seed: int = 0) -> Path:
    """Draw the path of every optimizer of `OPTIMIZERS` in a narrow valley."""
    columns, names = 4, list(OPTIMIZERS)
    figure = new_figure(13, 12.2)
    axes = figure.subplots(-(-len(names) // columns), columns, sharex=True, sharey=True).ravel()
    x, y = np.meshgrid(np.linspace(-4.6, 2.2, 200), np.linspace(-1.7, 1.7, 200))
    height = (VALLEY[0] * x**2 + VALLEY[1] * y**2) / 2
    # One panel an optimizer: contours of f, the path, the minimum, the last value of f.
    for number, (axis, name) in enumerate(zip(axes, names)):
        steps = VALLEY_MORE_STEPS.get(name, VALLEY_STEPS)
        walked = valley_path(name, VALLEY_RATES[name], steps)
        longer = f"   {steps} updates" if steps != VALLEY_STEPS else ""
        axis.contour(
            x, y, height, levels=np.geomspace(0.05, 50, 10), colors="#c9d3dc", linewidths=0.8
        )
        axis.plot(
            *walked.T, "-o", color=COLOURS[number % 2], markersize=2.4, linewidth=1.1, clip_on=True
        )
        axis.plot(0, 0, "*", color=INK, markersize=9)
        value = (np.array(VALLEY) * walked[-1] ** 2).sum() / 2
        axis.set_title(
            f"{name}   η = {VALLEY_RATES[name]:g}{longer}", fontsize=10.5, color=INK, loc="left"
        )
        axis.text(
            0.98,
            0.05,
            f"f = {value:.1e}",
            transform=axis.transAxes,
            ha="right",
            fontsize=9,
            color=FAINT,
        )
        axis.set(xlim=(-4.6, 2.2), ylim=(-1.7, 1.7))
        style_axes(axis)
    for axis in axes[len(names) :]:
        axis.set_axis_off()
    write_title(
        figure,
        "Paths of optimizers in a narrow valley",
        f"f(x, y) = ½(x² + {VALLEY[1]:g}y²), {VALLEY_STEPS} updates from {VALLEY_START} unless a "
        "panel gives more; each with its own learning rate η; momentum 0.9, β = (0.9, 0.999), "
        "ρ = 0.9; f: the last value",
    )
    return write_figure(figure, path)
