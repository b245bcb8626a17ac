"""Draws the path of every optimizer on a surface with a local minimum, a saddle and a plateau."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

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

WELLS = ((1.0, 1.5), (0.6, -1.0))
"""Depth and x of each well; both have y = 0. The first has the global minimum."""
WIDTH = 0.7
"""The squared width of both wells. With equal widths, the valley's edge is a line of equal x, and
the saddle is on this line.
"""
STARTS = {"plateau": (1.9, 2.4), "saddle": (0.158, 0.8), "local minimum": (-1.9, -0.5)}
"""Where the paths begin, by the difficulty that they meet first."""
STEPS = 150
# Learning rates, chosen by hand among 1, 2, 3, 5 · 10ᵏ: large enough for the saddle in STEPS
# updates, and small enough that no path leaves the picture.
RATES: dict[str, float] = {
    "sgd": 0.2,
    "momentum": 0.05,
    "nesterov": 0.05,
    "adagrad": 0.3,
    "adadelta": 3.0,
    "rmsprop": 0.02,
    "rmsprop-centered": 0.01,
    "adam": 0.1,
    "adamw": 0.1,
    "amsgrad": 0.1,
    "nadam": 0.1,
    "radam": 0.2,
    "adamax": 0.2,
    "adafactor": 0.1,
    "asgd": 0.2,
    "rprop": 0.1,
    "adagrad-da": 0.3,
    "ftrl": 0.3,
    "proximal-gradient-descent": 0.2,
    "proximal-adagrad": 0.3,
}


def surface(point_N2: Tensor) -> Tensor:
    """Return f(x, y) = −Σ depth · exp(−((x − x₀)² + y²) / WIDTH) of each point, [N].

    Two wells in a plane: between them is a saddle, and far from both is a plateau at f = 0.
    """
    x_N, y_N = point_N2.unbind(-1)
    return -torch.stack(
        [depth * (-((x_N - at) ** 2 + y_N**2) / WIDTH).exp() for depth, at in WELLS]
    ).sum(0)


def surface_paths(optimizer: str, rate: float, steps: int = STEPS) -> np.ndarray:
    """Return the optimizer's paths from each of STARTS, float64 [3, steps + 1, 2]."""
    points = [nn.Parameter(torch.tensor(start, dtype=torch.float64)) for start in STARTS.values()]
    rule = make_optimizer(points, OptimizerConfig(optimizer=optimizer, learning_rate=rate))
    path = [torch.stack([*points]).detach()]
    for _ in range(steps):
        rule.zero_grad()
        surface(torch.stack([*points])).sum().backward()
        rule.step()
        path.append(torch.stack([*points]).detach())
    return torch.stack(path, 1).numpy()


def surface_figure(path: Path, seed: int = 0) -> Path:
    """Draw the paths of every optimizer of `OPTIMIZERS` from the three starts."""
    columns, names = 4, list(OPTIMIZERS)
    figure = new_figure(13, 13.5)
    axes = figure.subplots(-(-len(names) // columns), columns, sharex=True, sharey=True).ravel()
    x, y = np.meshgrid(np.linspace(-2.4, 2.7, 160), np.linspace(-1.2, 2.9, 130))
    height = surface(torch.from_numpy(np.stack([x, y], -1)))
    # One panel an optimizer: contours of f, the two minima, three paths, the last values of f.
    for axis, name in zip(axes, names):
        paths = surface_paths(name, RATES[name])
        axis.contour(
            x, y, height.numpy(), levels=[-0.9, -0.75, -0.6, -0.45, -0.3, -0.15, -0.05, -0.01],
            colors="#c9d3dc", linewidths=0.8, linestyles="solid",
        )  # fmt: skip
        for start, walked, colour in zip(STARTS, paths, COLOURS):
            axis.plot(*walked.T, "-o", color=colour, markersize=1.8, linewidth=1, label=start)
            axis.plot(*walked[-1], "s", color=colour, markersize=5)
        for _, at in WELLS:
            axis.plot(at, 0, "*", color=INK, markersize=8)
        axis.set_title(f"{name}   η = {RATES[name]:g}", fontsize=10.5, color=INK, loc="left")
        last = surface(torch.from_numpy(paths[:, -1])).tolist()
        axis.text(
            0.02, 0.96, "f = " + ", ".join(f"{value + 0.0:z.2f}" for value in last),
            transform=axis.transAxes, va="top", fontsize=8.5, color=FAINT,
        )  # fmt: skip
        axis.set(xlim=(-2.4, 2.7), ylim=(-1.2, 2.9))
        style_axes(axis)
    for axis in axes[len(names) :]:
        axis.set_axis_off()
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(
        handles, [f"starts at the {label}" for label in labels], ncols=3, frameon=False,
        loc="outside lower center", fontsize=10,
    )  # fmt: skip
    write_title(
        figure,
        "Paths of optimizers past a plateau, a saddle and a local minimum",
        f"two wells (stars; f = −1.00 right, −0.60 left), a saddle between them; {STEPS} updates; "
        "squares: last points; f: their heights, by start",
    )
    return write_figure(figure, path)
