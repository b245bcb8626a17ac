"""Draws the gradients of squared error and cross-entropy, and training curves with both losses."""

from pathlib import Path

import numpy as np
import torch
from torch import nn

from genray.gen.figures.drawing import (
    COLOURS,
    digits,
    new_figure,
    style_axes,
    write_figure,
    write_title,
)
from genray.gen.images.classifier import Loss, classification_loss
from genray.gen.training.fit import fixed_randomness
from genray.gen.training.optimizers import OptimizerConfig, make_optimizer

LOSSES: tuple[Loss, ...] = ("cross_entropy", "squared_error")
STARTS = {"as usual": 1.0, "surely wrong": 30.0}
"""Factor on the last layer's initial weights; 30 makes the softmax certain of a random class."""


def loss_gradients(
    loss: Loss, classes: int = 10, points: int = 201
) -> tuple[np.ndarray, np.ndarray]:
    """Return p and |∂loss/∂z|, float64 [points] each.

    z is the logit of the true class; p in 0.0001..0.9999 is its probability by the softmax. The
    other classes have equal probabilities.
    """
    p = torch.linspace(-9.21, 9.21, points, dtype=torch.float64).sigmoid()
    logits = torch.cat(
        [p[:, None], ((1 - p) / (classes - 1))[:, None].expand(-1, classes - 1)], 1
    ).log()
    logits = logits.requires_grad_()
    classification_loss(loss, logits, torch.zeros(len(p), dtype=torch.int64)).sum().backward()
    assert logits.grad is not None
    return p.numpy(), logits.grad[:, 0].abs().numpy()


def loss_curve(loss: Loss, start: str = "as usual", epochs: int = 25, seed: int = 0) -> list[float]:
    """Return the training error of each epoch on 1,297 digits, at the best of three learning rates.

    The network has 64 ReLUs and a softmax; the optimizer is momentum. The gradients of the two
    losses differ in size, so the best rate is chosen for each loss: of 0.2, 0.05 and 0.0125, the
    rate with the lowest error in the last epoch.
    """
    images, labels = digits()
    curves = []
    for rate in (0.2, 0.05, 0.0125):
        with fixed_randomness([seed, 7]):
            last = nn.Linear(64, 10)
            network = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), last)
            with torch.no_grad():
                last.weight.mul_(STARTS[start])
            optimizer = make_optimizer(
                network.parameters(), OptimizerConfig(optimizer="momentum", learning_rate=rate)
            )
            curve = []
            for _ in range(epochs):
                wrong, batches = 0.0, torch.randperm(len(images))[:1200].split(100)
                for rows in batches:
                    logits = network(images[rows])
                    optimizer.zero_grad()
                    classification_loss(loss, logits, labels[rows]).mean().backward()
                    optimizer.step()
                    wrong += float((logits.argmax(1) != labels[rows]).float().mean())
                curve.append(wrong / len(batches))
        curves.append(curve)
    return min(curves, key=lambda curve: curve[-1])


def losses_figure(path: Path, seed: int = 0, epochs: int = 25) -> Path:
    """Draw both losses' gradients against the true class's probability, and training curves from
    two starts.
    """
    figure = new_figure(12, 4.8)
    left, right = figure.subplots(1, 2)
    # Left: the gradient of each loss. Right: its training curves, three seeds for each start.
    for loss, colour in zip(LOSSES, COLOURS):
        left.plot(*loss_gradients(loss), color=colour, linewidth=2, label=loss.replace("_", " "))
        for start, line in zip(STARTS, ("--", "-")):
            curves = (
                np.array([loss_curve(loss, start, epochs, seed + number) for number in range(3)])
                * 100
            )
            at = np.arange(1, epochs + 1)
            label = f"{loss.replace('_', ' ')}, {start}"
            right.plot(at, curves.mean(0), line, color=colour, linewidth=2, label=label)
            right.fill_between(
                at, curves.min(0), curves.max(0), color=colour, alpha=0.15, linewidth=0
            )
    left.set(
        xscale="logit",
        xlabel="probability that the softmax gives to the true class",
        ylim=(0, 1.02),
    )
    left.set_ylabel("gradient by the true class's logit")
    ticks = [1e-4, 1e-3, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999]
    left.set_xticks(ticks, labels=["0.0001", "0.001", "0.01", "0.1", "0.5", "0.9", "0.99", "0.999"])
    left.minorticks_off()
    right.set(xlabel="epoch", ylabel="training error, %", xlim=(1, epochs), ylim=(0, 100))
    for axis in (left, right):
        axis.legend(frameon=False, fontsize=10, loc="upper right")
        style_axes(axis, grid=True)
    write_title(
        figure,
        "Squared error learns slowly from confident mistakes",
        "left: the gradient of squared error is 0 where the softmax is certain of a wrong class; "
        "right: digits, two kinds of initial weights, mean and range of 3 seeds, best of 3 rates",
    )
    return write_figure(figure, path)
