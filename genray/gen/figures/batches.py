"""Draws the training loss by epoch and by CPU time, for several sizes of mini-batches."""

import time
from pathlib import Path

import numpy as np
import torch
from torch import nn
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
from genray.gen.training.optimizers import OptimizerConfig, make_optimizer
from genray.gen.training.randomness import fixed_randomness

EPOCHS = {4: 6, 32: 20, 256: 60, 1297: 150}
"""Numbers of epochs by the rows of a mini-batch; 1,297 are all training rows of digits. An epoch of
large batches takes less time, so they have more epochs.
"""
RATES = (3.0, 1.0, 0.3, 0.1)
"""Learning rates, of which each batch size has the best."""


def batch_curve(
    batch_size: int, rate: float, epochs: int, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Return the loss after each epoch, and the CPU seconds of training until then.

    Both are float64 [epochs + 1] and begin before the first update. The loss is the mean
    cross-entropy of all 1,297 training rows, in nats. The network has 64 ReLUs and a softmax; the
    optimizer is SGD. The last rows of an epoch that do not fill a batch are left out. The seconds
    are those of this thread, without the evaluation of the loss.
    """
    images, labels = digits()
    with fixed_randomness([seed, 11]):
        network = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
        config = OptimizerConfig(optimizer="sgd", learning_rate=rate)
        optimizer = make_optimizer(network.parameters(), config)
        losses, seconds = [_loss(network, images, labels)], [0.0]
        for _ in range(epochs):
            began = time.thread_time()
            order = torch.randperm(len(images))
            for rows in order[: len(order) // batch_size * batch_size].split(batch_size):
                optimizer.zero_grad()
                functional.cross_entropy(network(images[rows]), labels[rows]).backward()
                optimizer.step()
            seconds.append(seconds[-1] + time.thread_time() - began)
            losses.append(_loss(network, images, labels))
    return np.array(losses), np.array(seconds)


@torch.no_grad()
def _loss(network: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    return functional.cross_entropy(network(images), labels).item()


def best_curves(batch_size: int, seed: int = 0) -> tuple[float, np.ndarray, np.ndarray]:
    """Return the rate with the lowest mean loss in the last epoch, and its losses and seconds.

    The losses are float64 [3, epochs + 1], one row a seed; the seconds [epochs + 1] are means.
    """
    found = []
    for rate in RATES:
        curves = [
            batch_curve(batch_size, rate, EPOCHS[batch_size], seed + number) for number in range(3)
        ]
        losses, seconds = (np.array(each) for each in zip(*curves))
        found.append((rate, losses, seconds.mean(0)))
    return min(found, key=lambda each: np.nan_to_num(each[1][:, -1].mean(), nan=np.inf))


def batches_figure(path: Path, seed: int = 0) -> Path:
    """Draw the loss by epoch and by CPU second for each batch size, mean and range."""
    figure = new_figure(11, 4.8)
    both = figure.subplots(1, 2, sharey=True)
    for (batch_size, epochs), colour in zip(EPOCHS.items(), COLOURS):
        rate, losses, seconds = best_curves(batch_size, seed)
        label = f"{batch_size:,} rows, η = {rate:g}"
        # At 0 a logarithmic axis has no place: the curves begin after the first epoch.
        low, high = losses[:, 1:].min(0), losses[:, 1:].max(0)
        for axis, at in zip(both, (np.arange(1, epochs + 1), seconds[1:])):
            axis.plot(at, losses[:, 1:].mean(0), color=colour, linewidth=1.6, label=label)
            axis.fill_between(at, low, high, color=colour, alpha=0.2, linewidth=0)
    for axis, title in zip(both, ("by epoch", "by CPU time")):
        axis.set_title(title, fontsize=11, color=INK, loc="left")
        axis.set(xscale="log", yscale="log")
        style_axes(axis, grid=True)
    both[0].set(xlabel="epoch", ylabel="training loss, nats")
    both[1].set(xlabel="CPU seconds")
    both[0].legend(frameon=False, fontsize=9.5, loc="lower left")
    write_title(
        figure,
        "Batch size against time and loss",
        "cross-entropy of 1,297 digits, 64 ReLUs, SGD; each size with the best of four rates; mean "
        "and range of 3 seeds",
    )
    return write_figure(figure, path)
