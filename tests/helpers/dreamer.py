"""Trains a small classifier of stripes, the network of the tests of dreams."""

from pathlib import Path

import torch

from genray.gen.data.types import Data, Split
from genray.gen.images.classifier import ClassifierConfig, ClassifierModelConfig, ClassifierTask
from genray.gen.training.fit import Fit, FitConfig
from genray.gen.training.optimizers import OptimizerConfig
from genray.runs.modelstore import save_model

CLASSES = ("horizontal", "vertical", "falling", "rising")


def stripes(rows: int = 400, side: int = 16) -> Data:
    """Return faint coloured stripes in noise, labelled by direction, of random period and phase."""
    random = torch.Generator().manual_seed(0)
    label_N = torch.randint(4, (rows,), generator=random)
    down, right = torch.tensor([(1, 0), (0, 1), (1, 1), (1, -1)])[label_N].float().T
    y, x = torch.arange(side).float()[:, None], torch.arange(side).float()[None]
    period, phase = 3 + 2 * torch.rand(rows, generator=random), torch.rand(rows, generator=random)
    along_NHW = (down[:, None, None] * y + right[:, None, None] * x) / period[
        :, None, None
    ] + phase[:, None, None]
    colour_N3 = 0.2 + 0.3 * torch.rand(rows, 3, generator=random)
    images = 0.5 + colour_N3[:, :, None, None] * torch.sin(2 * torch.pi * along_NHW)[:, None]
    images = (images + 0.1 * torch.randn(rows, 3, side, side, generator=random)).clamp(0, 1)
    train, validation, test = (
        Split(images[a:b], label_N[a:b])
        for a, b in ((0, rows - 100), (rows - 100, rows - 50), (rows - 50, rows))
    )
    return Data("stripes", train, validation, test, CLASSES)


def train_dreamer(folder: Path, steps: int = 60) -> tuple[Path, float]:
    """Train and save a model with the layers conv0..conv3.

    Returns (its directory, its accuracy on held-out stripes).
    """
    config = ClassifierConfig(
        fit=FitConfig(steps=steps, batch_size=50, validate_every=steps),
        optimizer=OptimizerConfig(learning_rate=3e-3),
        model=ClassifierModelConfig(channels=(8, 16), convolutions=2, features=16, batch_norm=True),
    )
    task, data = ClassifierTask(config), stripes()
    fit = Fit(task, data, config.fit)
    for _ in fit:
        pass
    accuracy = fit.evaluate(data.test)["accuracy"]
    export = task.export()
    return save_model(folder, export.kind, export.config, export.tensors, export.card), accuracy
