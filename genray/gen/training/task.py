"""Defines `Task`, the base class of everything that `Fit` trains, and its `Batch` and `Export`.

A subclass of `Task` defines the networks, one training step, the evaluation, the pictures and the
saved model of one family.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from genray.gen.data.types import Data, Split
from genray.gen.training.randomness import fixed_randomness
from genray.gen.training.updater import Updater
from genray.gen.training.world import ALONE, World


class Batch(NamedTuple):
    """One worker's rows of one step, on the training device."""

    x: Tensor
    """float32 [B, …] in the data's value range."""
    label: Tensor | None
    """int64 [B]; None for unlabelled data."""
    rows: Tensor
    """int64 [B]: indices of the rows in the split."""


class Export(NamedTuple):
    """A trained model, ready to be saved in a model directory."""

    kind: str
    """The key in `genray.gen.builders.BUILDERS` of the function that builds the network again;
    learned optimizers, which have no samples or codes, are not in BUILDERS.
    """
    config: dict[str, Any]
    """JSON-serialisable values, from which the builder creates the network."""
    tensors: dict[str, Tensor]
    """Weights and statistics by name."""
    card: str
    """The model card in Markdown."""


class Task:
    """Base class of everything that `Fit` trains.

    A subclass fills `networks` and `updaters`, in `begin_stage` at the latest, and overrides
    `begin_stage`, `step`, `evaluate` and `export`; `test` and `pictures` are optional. All random
    numbers of a step come from PyTorch's global generator, directly (as in dropout) or through
    `world`.

    Args:
        world: this data-parallel worker.
        device: the device on which the networks are trained.
        amp: mixed precision, as in `FitConfig`.
    """

    stages: Sequence[str] = ("train",)
    """Names of the stages, which are trained one after another. For example, greedy pretraining
    has one stage for each layer.
    """
    config: Any
    """The family's configuration; it has the parts `data`, `fit` and `optimizer`."""
    shown: Sequence[str] = ("loss",)
    """Names of the step's values that the live display shows."""
    needs_same_rows = True
    """Whether an old run, whose checkpoint does not name its rows, may continue only with the same
    rows, as classes and figures of held-out rows need it.
    """
    remark: str = ""
    """A sentence about the figures of `test`, which is printed with them; set by `test`."""
    progress_of: str = "latents"
    """What `progress_images` show the same of at every moment, for the title of the sheet."""
    curves: Sequence[tuple[str, Sequence[str]]] = ()
    """Axes of the picture `losses.png`: a label, and the names of the metrics on this axis."""

    def __init__(self, world: World = ALONE, device: torch.device | str = "cpu", amp: str = "off"):
        self.world, self.device, self.amp = world, torch.device(device), amp
        self.networks: nn.ModuleDict = nn.ModuleDict()
        """Every module that a checkpoint saves: weights, statistics and moving averages."""
        self.updaters: dict[str, Updater] = {}
        """The updaters of the current stage, by name; a checkpoint saves their state."""

    def begin_stage(self, stage: int, data: Data, total_updates: int) -> Data:
        """Prepare a stage and create its updaters; returns the data that the stage trains on.

        A stage may train on other data than `data`, for example on codes or a few labelled rows.

        Args:
            stage: the stage's index in `stages`.
            data: all splits.
            total_updates: the stage's number of updates, for the learning-rate schedule.

        Raises:
            ConfigError: the data do not fit the configuration.
        """
        raise NotImplementedError

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """Run one training step; returns detached scalars to report, still on the device."""
        raise NotImplementedError

    def evaluate(self, split: Split) -> dict[str, float]:
        """Evaluate held-out rows; returns metrics by name, including `loss` (lower is better).

        `Fit` calls this method in evaluation mode, without gradients.
        """
        raise NotImplementedError

    def test(self, data: Data) -> dict[str, float]:
        """Test the trained networks on the test split; returns metrics by name.

        `Fit.test` calls this method at the end of a run, in evaluation mode without gradients. The
        default runs `evaluate` on the test split; a subclass may add slower metrics.
        """
        return self.evaluate(data.test)

    def pictures(self, data: Data) -> dict[str, np.ndarray]:
        """Return pictures by name, each uint8 RGB [H, W, 3], of fixed noise or fixed rows.

        `Fit` calls this method in evaluation mode, without gradients.
        """
        return {}

    def progress_images(self) -> np.ndarray | None:
        """Return 16 images of fixed latents or inputs, uint8 RGB [16, H, W, 3]; None: the task has
        no such images.

        `Fit` calls this method after every epoch, in evaluation mode, without gradients.
        """
        return None

    def export(self) -> Export:
        """Return the model to save, with its current weights."""
        raise NotImplementedError

    def autocast(self) -> torch.autocast:
        """Return the mixed-precision context for a forward pass."""
        dtype = torch.float16 if self.amp == "float16" else torch.bfloat16
        return torch.autocast(self.device.type, dtype=dtype, enabled=self.amp != "off")


@contextmanager
def evaluating(task: Task, seed: int) -> Iterator[None]:
    """Put the networks into evaluation mode inside the context, without gradients.

    The context has its own random numbers; the random state of training does not change. After the
    context, the networks are in training mode, unless the context raised an error.

    Args:
        task: the task whose networks are evaluated.
        seed: the seed of the random numbers inside the context.
    """
    task.networks.eval()
    with torch.no_grad(), fixed_randomness([seed, 2]):
        yield
    task.networks.train()
