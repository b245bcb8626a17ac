"""Data sets by name: what is in them, in which range, how they are split, and under which licence.

Shapes: N rows, C channels, H height, W width.
"""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genray.errors import require


@dataclass(frozen=True)
class Split:
    """Rows of a data set, whole in the memory of one device."""

    values: Tensor
    """float32 [N, …] in the data's range, or uint8 [N, …], which `take` scales to it."""
    label: Tensor | None = None
    """int64 [N]"""
    low: float = 0.0
    high: float = 1.0
    """The range that `take` gives."""

    def __len__(self) -> int:
        return len(self.values)

    def to(self, device: torch.device) -> "Split":
        label = None if self.label is None else self.label.to(device)
        return replace(self, values=self.values.to(device), label=label)

    def take(self, rows: Tensor) -> tuple[Tensor, Tensor | None]:
        """(float32 [B, …] in low..high, labels int64 [B] or None) of the rows int64 [B]."""
        values = self.values.index_select(0, rows)
        if values.dtype == torch.uint8:
            values = values.to(torch.float32).mul_((self.high - self.low) / 255.0).add_(self.low)
        return values, None if self.label is None else self.label.index_select(0, rows)

    def all(self) -> Tensor:
        """Every row, float32 in low..high."""
        return self.take(torch.arange(len(self), device=self.values.device))[0]

    def first(self, count: int) -> "Split":
        return replace(self, values=self.values[:count], label=None if self.label is None else self.label[:count])


@dataclass(frozen=True)
class Data:
    """A data set in three parts: `test` is for the last word only, `validation` for choices on the way."""

    name: str
    train: Split
    validation: Split
    test: Split
    classes: tuple[str, ...] = ()
    """Names of the labels, by number; empty for unlabelled data."""
    licence: str = ""
    about: dict[str, Any] = field(default_factory=dict)
    """How it came about, JSON-able: kept with every model that was trained on it."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one row: (C, H, W) for images, (words,) for text."""
        return tuple(self.train.values.shape[1:])


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which data, and how it is cut."""

    data: str = "digits"
    """digits, atari, mnist, fashion-mnist, svhn, cifar10, folder:PATH, docs, folder-text:PATH"""
    validation: float = 0.1
    """Share of the training rows that is set aside for choices on the way (early stopping, sweeps)."""

    def validate(self) -> None:
        require(0 <= self.validation < 1, f"--validation {self.validation}: must lie in [0, 1), e.g. 0.1")


def load_data(config: DataConfig, *, low: float = 0.0, high: float = 1.0) -> Data:
    """The data set that `config` names, its values scaled to low..high.

    The split does not depend on the run's seed, so that no two runs disagree about what was held out.
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    order = np.random.default_rng(0).permutation(1797)
    images = torch.from_numpy(digits.images[order]).float().div(16.0).mul(high - low).add(low)[:, None]
    labels = torch.from_numpy(digits.target[order]).long()
    cut = 1297 - round(1297 * config.validation)

    def part(start: int, stop: int) -> Split:
        return Split(images[start:stop], labels[start:stop], low, high)

    return Data("digits", part(0, cut), part(cut, 1297), part(1297, 1797), tuple("0123456789"), "CC BY 4.0 (UCI)")
