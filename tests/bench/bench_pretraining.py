"""Greedy pretraining of a deep sigmoid autoencoder against training from random weights. `python -m
tests.bench.bench_pretraining [--seeds 3] [--picture FILE] [--quick]`

The claim of the lecture: a network that is trained layer by layer learns fast, and its gradient
does not vanish. Here an autoencoder of digits, 64-128-64-32-16 and back, has eight layers of
sigmoids. Greedy pretraining trains each of the four pairs of layers for some epochs, and then all
layers together. The other arms train all layers together from the start, for as many CPU seconds,
with sigmoids or with ReLUs. All arms of a seed run in turns in one process, so that other work on
the machine slows all of them equally. Each arm has the better of two learning rates.
"""

import argparse
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch

from genray.errors import RunFault
from genray.gen.autoencoder.config import AEConfig, AEModelConfig
from genray.gen.autoencoder.task import AETask
from genray.gen.data.config import DataConfig
from genray.gen.data.load import load_data
from genray.gen.figures.drawing import (
    COLOURS,
    INK,
    new_figure,
    style_axes,
    write_figure,
    write_title,
)
from genray.gen.training.config import FitConfig
from genray.gen.training.fit import Fit, evaluating
from genray.gen.training.optimizers import OptimizerConfig
from tests.bench.common import describe_machine, last_json_line, print_table

EPOCHS = 10
"""Epochs of each stage of greedy pretraining: four layers, then all layers together."""
RATES = {"momentum": (1.0, 10.0), "adam": (0.003, 0.01)}
"""Learning rates by optimizer. With momentum they are large because the error of an image is a mean
over its pixels.
"""
ARMS = ("greedy", "random weights", "random weights, ReLU")


def open_run(
    arm: str, optimizer: str = "momentum", rate: float = 10.0, epochs: int = EPOCHS, seed: int = 0
) -> tuple[AETask, Fit]:
    """Return the task of an arm, whose networks are untrained, and its training."""
    relu = arm.endswith("ReLU")
    config = AEConfig(
        data=DataConfig(validation=0.0),
        fit=FitConfig(epochs=epochs, batch_size=50, seed=seed, device="cpu", validate_every=10**9),
        optimizer=OptimizerConfig(optimizer=optimizer, learning_rate=rate),
        model=AEModelConfig(
            kind="stacked",
            code=16,
            widths=(128, 64, 32),
            activation="relu" if relu else "sigmoid",
            code_activation="linear" if relu else "sigmoid",
            greedy=arm == "greedy",
        ),
    )
    task = AETask(config)
    return task, Fit(task, load_data(config.data), config.fit)


def gradient_norms(task: AETask, fit: Fit) -> np.ndarray:
    """Return the norms of the gradient with respect to the weights of the current stage's layers.

    They are in the order of the computation: the encoder's layers from the data to the code, then
    the decoder's. The loss is that of the stage on all 1,297 training digits.
    """
    first, last = task._layer_range(task.stages[task._stage])
    loss = task._reconstruction(task.stages[task._stage], fit.train.all())["loss"]
    blocks = list(task.model.blocks)[first:last]
    weights = [block.weight for block in blocks] + [block.back for block in reversed(blocks)]
    return np.array([each.norm().item() for each in torch.autograd.grad(loss, weights)])


@dataclass
class Run:
    """One training of an arm, which `advance` continues.

    `clock` has the CPU seconds of the training so far, without the measurements.
    """

    task: AETask
    fit: Fit
    clock: float = 0.0
    done: bool = False
    points: list[tuple[float, float]] = field(default_factory=list)
    """CPU seconds, and the mean squared error of 500 held-out digits through all layers."""
    norms: dict[str, np.ndarray] = field(default_factory=dict)
    """`gradient_norms` at the start of each stage, and at the end."""

    def __post_init__(self) -> None:
        self._steps: Iterator[Any] = iter(self.fit)
        self._test = self.fit.whole_data.test.all()
        self.measure()

    def measure(self) -> None:
        with evaluating(self.task, 0):
            error = (self.task.model(self._test) - self._test).square().mean().item()
        self.points.append((self.clock, error))
        self.norms.setdefault(
            self.task.stages[self.task._stage], gradient_norms(self.task, self.fit)
        )

    def advance(self, steps: int) -> None:
        """Make up to `steps` steps, but none of the next stage, and measure."""
        began = time.thread_time()
        try:
            for _ in range(steps):
                step = next(self._steps, None)
                self.done = step is None
                if self.done or step.last_of_stage:
                    break
        except RunFault:  # the loss diverged
            self.done = True
            self.points.append((self.clock, math.inf))
        self.clock += time.thread_time() - began
        if not self.done:
            self.measure()

    @property
    def error(self) -> float:
        """The error at the end."""
        return self.points[-1][1]


def compete(optimizer: str, seed: int, epochs: int = EPOCHS) -> dict[str, dict[float, Run]]:
    """Train all arms with both rates in turns; returns the runs by arm and rate.

    The greedy runs end after all their stages. The others end when they have used as many CPU
    seconds as the slowest greedy run.
    """
    runs = {
        arm: {
            # Training from the start has a single stage, which the CPU time ends.
            rate: Run(*open_run(arm, optimizer, rate, epochs if arm == "greedy" else 10**6, seed))
            for rate in RATES[optimizer]
        }
        for arm in ARMS
    }
    greedy = list(runs["greedy"].values())
    others = [run for arm in ARMS[1:] for run in runs[arm].values()]
    while not all(run.done for run in greedy):
        for run in greedy:
            if not run.done:
                run.advance(25)
        for run in others:
            while not run.done and run.clock < max(each.clock for each in greedy):
                run.advance(25)
    for run in (*greedy, *others):
        run.norms["end"] = gradient_norms(run.task, run.fit)
    return runs


def best(runs: Sequence[dict[float, Run]]) -> tuple[float, list[Run]]:
    """Return the rate with the lowest mean error over the seeds, and its runs."""
    rate = min(
        runs[0], key=lambda each: np.nan_to_num(mean(run[each].error for run in runs), nan=9)
    )
    return rate, [run[rate] for run in runs]


def report(optimizer: str, found: Sequence[dict[str, dict[float, Run]]]) -> dict[str, Any]:
    """Print a table of the arms; returns its figures."""
    rows, figures = [], {}
    for arm in ARMS:
        rate, runs = best([each[arm] for each in found])
        whole = [run.norms["whole"] for run in runs]
        own = [run.norms["layer-1"][0] for run in runs] if arm == "greedy" else []
        figures[arm] = {
            "rate": rate,
            "error": [round(run.error, 4) for run in runs],
            "cpu_s": [round(run.clock, 2) for run in runs],
            "first_gradient_of_its_own_stage": [float(f"{each:.2g}") for each in own],
            "first_gradient_of_the_whole": [float(f"{each[0]:.2g}") for each in whole],
            "last_gradient_of_the_whole": [float(f"{each[-1]:.2g}") for each in whole],
            "first_gradient_at_the_end": [float(f"{run.norms['end'][0]:.2g}") for run in runs],
        }
        rows.append([arm, *(str(value) for value in figures[arm].values())])
    print_table(optimizer, ["arm", *figures[ARMS[0]]], rows)
    return figures


def draw(path: Path, found: dict[str, list[dict[str, dict[float, Run]]]]) -> None:
    """Draw the gradients by layer before all layers are trained together, and the errors."""
    figure = new_figure(11, 4.6)
    axes = figure.subplots(1, 3)
    run = best([each["greedy"] for each in found["momentum"]])[1][0]
    other = best([each[ARMS[1]] for each in found["momentum"]])[1][0]
    curves = {"random weights": other.norms["whole"], "after pretraining": run.norms["whole"]}
    at = np.arange(1, len(run.norms["whole"]) + 1)
    for (label, norms), colour in zip(curves.items(), (COLOURS[1], COLOURS[0])):
        axes[0].semilogy(at, norms, "-o", color=colour, markersize=4, label=label)
    own = [run.norms[f"layer-{number}"] for number in range(1, 5)]
    each = [norms[0] for norms in own] + [norms[1] for norms in reversed(own)]
    axes[0].semilogy(at, each, "--s", color=COLOURS[2], markersize=4, label="each pair alone")
    axes[0].set(xlabel="layer (1: next to the data)", ylabel="norm of the gradient")
    axes[0].set_title("before training all layers", fontsize=11, color=INK, loc="left")
    for axis, (optimizer, seeds) in zip(axes[1:], found.items()):
        for arm, colour in zip(ARMS, COLOURS):
            rate, runs = best([each[arm] for each in seeds])
            for number, one in enumerate(runs):
                label = f"{arm}, η = {rate:g}" if number == 0 else None
                axis.plot(*zip(*one.points), color=colour, linewidth=1.2, label=label)
        axis.set(xlabel="CPU seconds", ylabel="error of held-out digits", yscale="log")
        axis.set_title(optimizer, fontsize=11, color=INK, loc="left")
    for axis in axes:
        style_axes(axis, grid=True)
        axis.legend(frameon=False, fontsize=8.5)
    write_title(
        figure,
        "Greedy pretraining of a deep sigmoid autoencoder",
        "8x8 digits, 64-128-64-32-16 and back; three seeds, each arm with the better of two "
        "learning rates; all arms have the same CPU time",
    )
    write_figure(figure, path)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--quick", action="store_true", help="an epoch a stage: shows that it runs")
    options = parser.parse_args()
    torch.set_num_threads(1)
    # The first updates load modules and allocate memory. Without a warm-up, the clock of the first
    # run would be far ahead of the others.
    for optimizer in RATES:
        compete(optimizer, 0, epochs=1)
    epochs = 1 if options.quick else EPOCHS
    found = {
        optimizer: [compete(optimizer, seed, epochs) for seed in range(options.seeds)]
        for optimizer in RATES
    }
    figures = {optimizer: report(optimizer, seeds) for optimizer, seeds in found.items()}
    if options.picture:
        draw(options.picture, found)
    print(describe_machine())
    last_json_line(figures)


if __name__ == "__main__":
    main()
