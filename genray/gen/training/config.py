"""Options of a training run that all families share: length, evaluation, checkpoints, device."""

from dataclasses import dataclass
from typing import Literal

from genray.bounds import bounded, check_bounds, seed


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """Length, evaluation and checkpoints of a training run, for every kind of model."""

    epochs: int = bounded(20, min=1)
    """Passes over the training split, in each stage."""
    steps: int = bounded(0, min=0, note="(0: by --epochs)")
    """Steps in each stage, instead of --epochs; 0: use --epochs."""
    batch_size: int = bounded(100, min=1, example=100)
    """Rows of one step, over all workers together."""
    validate_every: int = bounded(0, min=0, note="(0: once an epoch)")
    """Steps between evaluations of the validation split; 0: once an epoch."""
    checkpoint_every: int = bounded(0, min=0)
    """Steps between checkpoints; 0: a tenth of the run. Each stage also ends with a checkpoint."""
    keep: int = bounded(1, min=1)
    """Number of newest checkpoints kept, in addition to the best one."""
    log_every: int = bounded(50, min=1, example=50)
    """Steps between lines of metrics.jsonl; a line has the means since the line before. Each
    evaluation also writes a line.
    """
    patience: int = bounded(0, min=0, note="(0: no early stopping)")
    """Early stopping: a stage ends, with its best weights, after this many evaluations in a row
    without a better validation loss; 0: no early stopping.
    """
    seed: int = seed()
    device: Literal["auto", "cpu", "cuda"] = "auto"
    amp: Literal["off", "bfloat16", "float16"] = "off"
    """Mixed precision of the forward passes; weights stay float32. float16 also scales the loss,
    and needs a GPU.
    """
    accumulate: int = bounded(1, min=1)
    """Number of batches whose gradients are averaged for one update."""

    def validate(self) -> None:
        check_bounds(self)
