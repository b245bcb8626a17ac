"""Types of data sets (splits, data, sources), and checks of a task's requirements."""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genray.errors import SealedError, require


@dataclass(frozen=True)
class Split:
    """Rows of a data set, all in the memory of one device."""

    values: Tensor
    """float32 [N, …] in low..high, or uint8 [N, …], which `take` scales to low..high."""
    label: Tensor | None = None
    """int64 [N]; None for unlabelled data."""
    low: float = 0.0
    high: float = 1.0
    """`low`, `high`: the range of the values that `take` returns."""
    names: tuple[str, ...] = ()
    """Name of each row (a text's title, an image's file); empty if rows have no names."""
    augment: tuple[str, ...] = ()
    """Names of the augmentations of training batches (see augment.py), which `take` does not
    apply.
    """

    def __len__(self) -> int:
        return len(self.values)

    def to(self, device: torch.device) -> "Split":
        """Return the split with its rows on `device`."""
        label = None if self.label is None else self.label.to(device)
        return replace(self, values=self.values.to(device), label=label)

    def take(self, rows: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the values, float32 [B, …] in low..high, and the labels, int64 [B] or None, of
        `rows`, int64 [B].
        """
        values = self.values.index_select(0, rows)
        if values.dtype == torch.uint8:
            values = values.to(torch.float32).mul_((self.high - self.low) / 255.0).add_(self.low)
        return values, None if self.label is None else self.label.index_select(0, rows)

    def all(self) -> Tensor:
        """Return all rows, float32 in low..high."""
        return self.take(torch.arange(len(self), device=self.values.device))[0]

    def first(self, count: int) -> "Split":
        """Return the first `count` rows, as views."""
        return self.part(0, count)

    def part(self, start: int, stop: int) -> "Split":
        """Return the rows start..stop−1, as views."""
        label = None if self.label is None else self.label[start:stop]
        return replace(
            self, values=self.values[start:stop], label=label, names=self.names[start:stop]
        )


@dataclass(frozen=True)
class Data:
    """A data set in three splits: `train`; `validation`, for choices during a run; and `test`, for
    the final test only.
    """

    name: str
    train: Split
    validation: Split
    test: Split
    classes: tuple[str, ...] = ()
    """Names of the labels, by number; empty for unlabelled data."""
    licence: str = ""
    about: dict[str, Any] = field(default_factory=dict)
    """How the data was made, JSON-serialisable; saved with every model trained on the data."""

    def to(self, device: torch.device) -> "Data":
        """Return the data with all splits on `device`."""
        parts = {name: getattr(self, name).to(device) for name in ("train", "validation", "test")}
        return replace(self, **parts)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one row: (C, H, W) for images, (words,) for text."""
        return tuple(self.train.values.shape[1:])

    def sealed(self) -> "Data":
        """Return the data without its test rows; any access to the test rows raises SealedError.

        The training and validation rows are copied, because they may be views of memory that
        contains the test rows.
        """
        parts = {name: getattr(self, name) for name in ("train", "validation")}
        copies = {
            name: replace(split, values=split.values.clone()) for name, split in parts.items()
        }
        return replace(self, **copies, test=SealedSplit())

    @property
    def is_sealed(self) -> bool:
        """Whether the test rows have been removed by `sealed`."""
        return isinstance(self.test, SealedSplit)


class SealedSplit(Split):
    """Replaces the test split in sealed data. It contains no rows; only `to` is allowed."""

    def __init__(self) -> None:
        pass

    def to(self, device: torch.device) -> "Split":
        """Return the same split."""
        return self

    def __len__(self) -> int:
        return self._refuse("len")

    def __getattribute__(self, name: str) -> Any:
        if name in ("to", "_refuse") or name.startswith("__"):
            return object.__getattribute__(self, name)
        return self._refuse(name)

    def _refuse(self, name: str) -> Any:
        raise SealedError(
            f"test split: sealed while choices are made (the code used its {name}); "
            "use the validation split, and the test split once, at the end"
        )


def select_class(data: Data, name: str, *, keep: bool) -> Data:
    """Return `data` with only the rows of class `name` if `keep`, otherwise without these rows.

    Raises ConfigError for an unknown class.
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
    """Raise ConfigError unless the training rows have labels of at least two classes.

    `what`: words for the model or function that needs labels, for the message.
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
    """Raise ConfigError unless rows are square images with a side that is a multiple of `multiple`.

    `what`: words for the model that needs images, for the message.
    """
    shape = data.shape
    require(len(shape) == 3, f"--data {data.name}: {what} needs images; choose e.g. --data digits")
    side = max(multiple, round(shape[1] / multiple) * multiple)
    require(
        shape[1] == shape[2] and shape[1] % multiple == 0,
        f"--data {data.name}: images of {shape[2]}x{shape[1]}; {what} needs square images with a "
        f"side that is a multiple of {multiple}; use --size {side}",
    )


TEST_SHARE = 0.2
"""Share of test rows in data that has no predefined split."""


@dataclass(frozen=True)
class Source:
    """Images of a data set before scaling and before the validation split.

    Images are uint8, or float32 in 0..1, [N, C, H, W]. Labels are int64 [N].
    """

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
