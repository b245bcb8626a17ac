"""Draws the training error of plain and residual networks of several depths."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from genray.gen.figures.drawing import (
    COLOURS,
    INK,
    digits,
    new_figure,
    style_axes,
    write_figure,
    write_title,
)
from genray.gen.training.fit import fixed_randomness
from genray.gen.training.optimizers import OptimizerConfig, make_optimizer

DEPTHS = (4, 20, 40)


class Tower(nn.Module):
    """A network with `depth` dense hidden layers, in pairs, with batch norm and ReLU.

    Input: [B, 64]. Output: [B, 10]. One more dense layer precedes the pairs, and one follows them.
    Each pair f maps x to relu(f(x)), or with residual connections to relu(x + f(x)).
    [He 2015, https://arxiv.org/abs/1512.03385, with dense layers instead of convolutions]
    """

    def __init__(self, depth: int, residual: bool, width: int = 32):
        super().__init__()
        self.residual = residual
        self.first = nn.Linear(64, width)
        self.pairs = nn.ModuleList(
            nn.Sequential(
                nn.Linear(width, width, bias=False), nn.BatchNorm1d(width), nn.ReLU(),
                nn.Linear(width, width, bias=False), nn.BatchNorm1d(width),
            )
            for _ in range(depth // 2)
        )  # fmt: skip
        self.last = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits, [B, 10]."""
        x = self.first(x).relu()
        for pair in self.pairs:
            x = (x + pair(x) if self.residual else pair(x)).relu()
        return self.last(x)


def depth_curve(depth: int, residual: bool, epochs: int = 25, seed: int = 0) -> list[float]:
    """Return the training error of each epoch on 1,297 digits, 0..1.

    The error of an epoch is the share of wrong answers on its training batches.
    """
    images, labels = digits()
    batch_size, rate = 100, 0.05
    with fixed_randomness([seed, 10]):
        tower = Tower(depth, residual)
        config = OptimizerConfig(optimizer="momentum", learning_rate=rate)
        optimizer = make_optimizer(tower.parameters(), config)
        curve = []
        for _ in range(epochs):
            wrong, order = torch.zeros(()), torch.randperm(len(images))
            batches = order[: len(order) // batch_size * batch_size].split(batch_size)
            for rows in batches:
                logits = tower(images[rows])
                optimizer.zero_grad()
                functional.cross_entropy(logits, labels[rows]).backward()
                optimizer.step()
                wrong += (logits.argmax(1) != labels[rows]).float().mean()
            curve.append(float(wrong) / len(batches))
    return curve


def depth_figure(path: Path, seed: int = 0, epochs: int = 25) -> Path:
    """Draw the training error of shallow and deep networks, plain and residual, for three seeds."""
    figure = new_figure(11, 4.8)
    both = figure.subplots(1, 2, sharey=True)
    for axis, residual in zip(both, (False, True)):
        for depth, colour in zip(DEPTHS, COLOURS):
            curves = (
                np.array(
                    [depth_curve(depth, residual, epochs, seed + number) for number in range(3)]
                )
                * 100
            )
            at = np.arange(1, epochs + 1)
            axis.plot(at, curves.mean(0), color=colour, linewidth=2, label=f"{depth} layers")
            axis.fill_between(
                at, curves.min(0), curves.max(0), color=colour, alpha=0.2, linewidth=0
            )
        axis.set_title(
            "residual: x + f(x)" if residual else "plain: f(x)", fontsize=11, color=INK, loc="left"
        )
        axis.set(xlabel="epoch", xlim=(1, epochs), ylim=(0, 100))
        style_axes(axis, grid=True)
    both[0].set_ylabel("training error, %")
    both[1].legend(frameon=False, fontsize=10, loc="upper right")
    write_title(
        figure,
        "Deep plain networks fail on their training rows",
        "training error on 1,297 digits, dense layers of 32 with batch norm; mean and range of 3 "
        "seeds, momentum, η = 0.05",
    )
    return write_figure(figure, path)
