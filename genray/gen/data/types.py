"""Types of data sets: splits, data, sources, and checks of what a task needs."""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genray.errors import SealedError, require


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
    names: tuple[str, ...] = ()
    """What a person calls each row (a text's title, an image's file); empty where rows have no
    names.
    """
    augment: tuple[str, ...] = ()
    """What training does to its batches (gen/augment.py); `take` never does."""

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
        return self.part(0, count)

    def part(self, start: int, stop: int) -> "Split":
        """The rows start..stop−1, as views."""
        label = None if self.label is None else self.label[start:stop]
        return replace(
            self, values=self.values[start:stop], label=label, names=self.names[start:stop]
        )


@dataclass(frozen=True)
class Data:
    """A data set in three parts: `test` is for the last word only, `validation` for choices on
    the way.
    """

    name: str
    train: Split
    validation: Split
    test: Split
    classes: tuple[str, ...] = ()
    """Names of the labels, by number; empty for unlabelled data."""
    licence: str = ""
    about: dict[str, Any] = field(default_factory=dict)
    """How it came about, JSON-able: kept with every model that was trained on it."""

    def to(self, device: torch.device) -> "Data":
        parts = {name: getattr(self, name).to(device) for name in ("train", "validation", "test")}
        return replace(self, **parts)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one row: (C, H, W) for images, (words,) for text."""
        return tuple(self.train.values.shape[1:])

    def sealed(self) -> "Data":
        """The same data without its test rows: whatever asks for them raises SealedError.

        The other rows are copied, since they may be views of memory that holds the test rows, too.
        """
        parts = {name: getattr(self, name) for name in ("train", "validation")}
        copies = {
            name: replace(split, values=split.values.clone()) for name, split in parts.items()
        }
        return replace(self, **copies, test=SealedSplit())

    @property
    def is_sealed(self) -> bool:
        return isinstance(self.test, SealedSplit)


class SealedSplit(Split):
    """What stands for the test split in sealed data. Its rows are not here; `to` a device is all
    that it allows.
    """

    def __init__(self) -> None:
        pass

    def to(self, device: torch.device) -> "Split":
        return self

    def __len__(self) -> int:
        return self._refuse("len")

    def __getattribute__(self, name: str) -> Any:
        if name in ("to", "_refuse") or name.startswith("__"):
            return object.__getattribute__(self, name)
        return self._refuse(name)

    def _refuse(self, name: str) -> Any:
        raise SealedError(
            f"test split: sealed while choices are made (something asked for its {name}); "
            "use the validation split, and the test split once, at the end"
        )


def select_class(data: Data, name: str, *, keep: bool) -> Data:
    """`data` with the rows of class `name` alone, or without them. Raises ConfigError when there
    is no such class.
    """
    require(
        name in data.classes,
        f"--without {name}: no such class; {data.name} has {', '.join(data.classes) or 'none'}",
    )
    number = data.classes.index(name)

    def select(split: Split) -> Split:
        assert split.label is not None
        rows = torch.nonzero((split.label == number) == keep).flatten()
        names = tuple(split.names[row] for row in rows.tolist()) if split.names else ()
        return replace(split, values=split.values[rows], label=split.label[rows], names=names)

    return replace(
        data, train=select(data.train), validation=select(data.validation), test=select(data.test)
    )


def need_labels(data: Data, what: str) -> None:
    """Raises ConfigError unless the training rows are of two classes at least; `what` needs the
    labels.
    """
    require(
        data.train.label is not None,
        f"--data {data.name}: {what} needs labels; sort the files into subfolders",
    )
    label = data.train.label
    count = 0 if label is None else int(label.unique().numel())
    require(
        count >= 2,
        f"--data {data.name}: all training rows are of one class; {what} needs at least two",
    )


def need_images(data: Data, what: str, multiple: int = 1) -> None:
    """Raises ConfigError unless rows are square images whose side `multiple` divides; `what`
    needs them.
    """
    shape = data.shape
    require(len(shape) == 3, f"--data {data.name}: {what} needs images; choose e.g. --data digits")
    side = max(multiple, round(shape[1] / multiple) * multiple)
    require(
        shape[1] == shape[2] and shape[1] % multiple == 0,
        f"--data {data.name}: images of {shape[2]}x{shape[1]}; {what} needs squares whose side "
        f"{multiple} divides: "
        f"--size {side}",
    )


TEST_SHARE = 0.2
"""Of data that comes without a split."""


@dataclass(frozen=True)
class Source:
    """Images as they were found: uint8, or float32 in 0..1; [N, C, H, W]. Labels int64 [N]."""

    name: str
    train: np.ndarray
    test: np.ndarray
    train_label: np.ndarray | None = None
    test_label: np.ndarray | None = None
    classes: tuple[str, ...] = ()
    licence: str = ""
    about: dict[str, Any] = field(default_factory=dict)
    train_names: tuple[str, ...] = ()
    test_names: tuple[str, ...] = ()
