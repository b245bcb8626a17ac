"""Data sets by name: what is in them, in which range, how they are split, and under which licence.

| name | rows | test split | licence |
|---|---|---|---|
| digits | 1,797 grey 8x8, 10 classes | 500 | CC BY 4.0 (UCI); ships with scikit-learn |
| photos | crops of scikit-learn's two photographs | 48, other regions | CC BY 2.0; credits in the model's card |
| atari, atari:FILE | frames that `genray data atari` played, by game | a fifth, other episodes | the games' owners' |
| mnist, fashion-mnist | 70,000 grey 28x28, 10 classes | the publishers' 10,000 | CC BY-SA 3.0; MIT |
| svhn, cifar10 | 99,289 and 60,000 RGB 32x32, 10 classes | the publishers' 26,032 and 10,000 | non-commercial; none stated |
| folder:PATH | any images; subfolders are the classes | a fifth | its owner's |
| docs | docstrings of the standard library, by module | a fifth | PSF 2.0 |
| folder-text:PATH | any text files; subfolders are the classes | a fifth | its owner's |

Images are scaled to the caller's range (0..1 unless it says otherwise); text is TF-IDF, in 0..1 by nature.
No split depends on a run's seed, so that no two runs disagree about what was held out.

Shapes: N rows, C channels, H height, W width.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from genray.errors import ConfigError, SealedError, require
from genray.paths import DATA, DataName, PathOrUrl

if TYPE_CHECKING:
    from genray.gen.sources import Source


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
    """What a person calls each row (a text's title, an image's file); empty where rows have no names."""
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
        return replace(self, values=self.values[start:stop], label=label, names=self.names[start:stop])


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
        copies = {name: replace(split, values=split.values.clone()) for name, split in parts.items()}
        return replace(self, **copies, test=SealedSplit())

    @property
    def is_sealed(self) -> bool:
        return isinstance(self.test, SealedSplit)


class SealedSplit(Split):
    """What stands for the test split in sealed data. Its rows are not here; `to` a device is all that it allows."""

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


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which data, and how it is cut."""

    data: DataName = "digits"
    """digits, atari, atari:FILE, photos, mnist, fashion-mnist, svhn, cifar10, folder:PATH, docs, folder-text:PATH"""
    size: int = 0
    """Side of the square images in pixels: others are scaled and cut to it. 0: as they are (atari: 32)."""
    grey: bool = False
    """One channel of luma instead of colours."""
    words: int = 2000
    """Words of a text's vocabulary: the most frequent ones of the training rows."""
    validation: float = 0.1
    """Share of the training rows that is set aside for choices on the way (early stopping, sweeps)."""
    without: str = ""
    """A class that is left out of every split: what `genray anomalies` then tries to tell from the others."""
    augment: tuple[Literal["flip", "shift", "crop", "colour"], ...] = ()
    """Done to training batches only. flip: mirrored left to right, half of them; shift: by up to a tenth of the side;
    crop: a square of 80 to 100% of the side, scaled back; colour: red, green and blue in any order, some as negatives."""
    data_folder: PathOrUrl = ""
    """Where data sets are kept. Default: $GENRAY_DATA, else ~/.cache/genray."""

    def validate(self) -> None:
        from genray.gen.sources import check_name

        check_name(self.data)
        require(0 <= self.validation < 1, f"--validation {self.validation}: must lie in [0, 1), e.g. 0.1")
        require(self.size == 0 or 4 <= self.size <= 1024, f"--size {self.size}: must lie in 4..1024, or 0 for as it is")
        require(self.words >= 2, f"--words {self.words}: must be ≥ 2, e.g. 2000")
        text = self.is_text
        require(not (text and self.augment), f"--augment {self._augment}: not for text ({self.data}); leave it out")
        require(not (text and self.size), f"--size {self.size}: not for text ({self.data}); use --words")
        require(
            not ("flip" in self.augment and self.data in ("digits", "mnist", "svhn")),
            f"--augment {self._augment}: a mirrored digit is no digit; for {self.data} use --augment shift",
        )

    @property
    def is_text(self) -> bool:
        return self.data.partition(":")[0] in ("docs", "folder-text")

    @property
    def _augment(self) -> str:
        return " ".join(self.augment)


def load_data(
    config: DataConfig,
    *,
    low: float = 0.0,
    high: float = 1.0,
    download: bool = True,
    idf: dict[str, float] | None = None,
    like: tuple[int, int, int] | None = None,
) -> Data:
    """The data set that `config` names, its values scaled to low..high; a published one may be downloaded.

    `idf`: a text model's words, as its `recipe` has them; without, they are fitted on these texts.
    `like`: (C, H, W) of a model's rows, to which images are scaled, cut and recoloured.
    Raises ConfigError in one line when it is missing or unfit, saying where it comes from.
    """
    from genray.gen import sources, text

    config.validate()
    path = config.data.partition(":")[2]
    if config.is_text:
        require((low, high) == (0, 1), f"--data {config.data}: text lies in 0..1, this model needs {low:g}..{high:g}")
        data = text.load_text(path, config.words, config.validation, sources.data_folder(config.data_folder), idf)
    else:
        data = _cut_images(sources.load_images(config, download=download, like=like), config, low, high)
    check_data(data)
    if data.train.names:
        data = replace(data, about={**data.about, "rows": _record(data, config.data)})
    return select_class(data, config.without, keep=False) if config.without else data


def _record(data: Data, option: str) -> dict[str, str]:
    """By what data are known again: a split is a function of the number of rows, and a text's columns of its words."""
    names = sorted(data.train.names + data.validation.names + data.test.names)
    return {"data": option, "names": _hash(names), "words": _hash(data.about.get("idf", ()))}


def _hash(names: Iterable[str]) -> str:
    return hashlib.sha256("\0".join(names).encode("utf-8", "surrogateescape")).hexdigest()[:16]


def changed(then: dict[str, str] | None, now: dict[str, str] | None) -> bool:
    """Whether two records, `about["rows"]` of data, tell of other rows under one name, or of other words.

    False where either is None: rows without names do not change, and older models have no record.
    """
    if not then or not now:
        return False
    # Older runs recorded paths as they were typed.
    same = DATA.absolute(then["data"]) == DATA.absolute(now["data"])
    return then["words"] != now["words"] or (same and then["names"] != now["names"])


def select_class(data: Data, name: str, *, keep: bool) -> Data:
    """`data` with the rows of class `name` alone, or without them. Raises ConfigError when there is no such class."""
    require(
        name in data.classes, f"--without {name}: no such class; {data.name} has {', '.join(data.classes) or 'none'}"
    )
    number = data.classes.index(name)

    def select(split: Split) -> Split:
        assert split.label is not None
        rows = torch.nonzero((split.label == number) == keep).flatten()
        names = tuple(split.names[row] for row in rows.tolist()) if split.names else ()
        return replace(split, values=split.values[rows], label=split.label[rows], names=names)

    return replace(data, train=select(data.train), validation=select(data.validation), test=select(data.test))


def _cut_images(source: "Source", config: DataConfig, low: float, high: float) -> Data:
    def split(values: np.ndarray, label: np.ndarray | None, names: tuple[str, ...]) -> Split:
        values_N = torch.from_numpy(np.ascontiguousarray(values))
        if values_N.dtype != torch.uint8:
            values_N = values_N.float().mul(high - low).add(low)
        return Split(values_N, None if label is None else torch.from_numpy(label.astype(np.int64)), low, high, names)

    train = split(source.train, source.train_label, source.train_names)
    test = split(source.test, source.test_label, source.test_names)
    require(len(train) > 0 and len(test) > 0, f"--data {config.data}: {len(train)} + {len(test)} images are too few")
    cut = len(train) - round(len(train) * config.validation)
    about = {"data": config.data, **source.about, "augment": list(config.augment)}
    return Data(
        source.name, replace(train.part(0, cut), augment=tuple(config.augment)), train.part(cut, len(train)), test,
        source.classes, source.licence, about,
    )  # fmt: skip


def check_data(data: Data) -> None:
    """Raises ConfigError for what no model can learn from: no rows, a value that is no number, parts unlike in shape."""
    for part, split in (("training", data.train), ("validation", data.validation), ("test", data.test)):
        require(
            len(split) > 0 or part == "validation", f"--data {data.name}: the {part} split is empty; give more rows"
        )
        require(
            tuple(split.values.shape[1:]) == data.shape,
            f"--data {data.name}: {part} rows of shape {tuple(split.values.shape[1:])} beside {data.shape}; give --size",
        )
        if split.values.is_floating_point():
            bad_N = ~torch.isfinite(split.values.flatten(1)).all(1)
            if bad_N.any():
                row, count = int(bad_N.nonzero()[0]), int(bad_N.sum())
                raise ConfigError(
                    f"--data {data.name}: {count} {part} rows have NaN or infinite values (the first: row {row}); "
                    "mend or remove them"
                )


def need_labels(data: Data, what: str) -> None:
    """Raises ConfigError unless the training rows are of two classes at least; `what` needs the labels."""
    require(data.train.label is not None, f"--data {data.name}: {what} needs labels; sort the files into subfolders")
    label = data.train.label
    count = 0 if label is None else int(label.unique().numel())
    require(count >= 2, f"--data {data.name}: all training rows are of one class; {what} needs at least two")


def need_images(data: Data, what: str, multiple: int = 1) -> None:
    """Raises ConfigError unless rows are square images whose side `multiple` divides; `what` needs them."""
    shape = data.shape
    require(len(shape) == 3, f"--data {data.name}: {what} needs images; choose e.g. --data digits")
    side = max(multiple, round(shape[1] / multiple) * multiple)
    require(
        shape[1] == shape[2] and shape[1] % multiple == 0,
        f"--data {data.name}: images of {shape[2]}x{shape[1]}; {what} needs squares whose side {multiple} divides: "
        f"--size {side}",
    )
