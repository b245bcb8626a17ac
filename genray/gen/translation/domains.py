"""Two domains of images for CycleGAN, as one labelled data set: label 0 is A, and 1 is B.

Shapes: N rows, C channels, H height, W width.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from genray.errors import require
from genray.gen.data.config import DataConfig
from genray.gen.data.load import load_data
from genray.gen.data.sources import load_images
from genray.gen.data.types import Data, Source
from genray.gen.translation.config import CycleGANConfig


def load_domains(config: CycleGANConfig, low: float, high: float) -> Data:
    """Load the two domains that `config` names, with values in low..high.

    Raises ConfigError for data without two such domains, domains of unlike sizes, or domains of too
    few images.
    """

    def source(data: DataConfig) -> Source:
        if config.to:
            return join_domains(
                load_images(data), load_images(replace(data, data=config.to)), config
            )
        return choose_domains(load_images(data), config)

    data = load_data(config.data, low=low, high=high, source=source)
    for part in ("train", "validation", "test"):
        split = getattr(data, part)
        assert split.label is not None
        for number, name in enumerate(data.classes):
            count = int((split.label == number).sum())
            kind = "training" if part == "train" else part
            require(
                count >= 2 or not len(split),
                f"--data {config.data.data}: domain {name} has {count} {kind} "
                f"image{'' if count == 1 else 's'}, and needs at least 2; give more images"
                + (", or a larger --validation, e.g. 0.3" if part == "validation" else ""),
            )
    return data


def choose_domains(source: Source, config: CycleGANConfig) -> Source:
    """Return the rows of the two classes of --domains, or of the only two classes."""
    option, classes = f"--data {config.data.data}", source.classes
    require(
        len(classes) >= 2,
        f"{option}: has no classes; name the second domain with --to, e.g. --to paintings, or sort "
        "the images into two subfolders",
    )
    require(
        bool(config.domains) or len(classes) == 2,
        f"{option}: has {len(classes)} classes; choose two, e.g. --domains {' '.join(classes[:2])}",
    )
    domains = config.domains or classes
    for name in domains:
        require(
            name in classes,
            f"--domains {' '.join(domains)}: {option} has no class {name}; it has "
            f"{', '.join(classes)}",
        )
    chosen: dict[str, Any] = {}
    for part in ("train", "test"):
        label, names = getattr(source, f"{part}_label"), getattr(source, f"{part}_names")
        number = np.full(len(classes), -1)
        number[[classes.index(name) for name in domains]] = (0, 1)
        rows = np.flatnonzero(number[label] >= 0)
        rows = rows[spread(number[label[rows]])]
        chosen |= {
            part: getattr(source, part)[rows],
            f"{part}_label": number[label[rows]],
            f"{part}_names": tuple(names[row] for row in rows) if names else (),
        }
    return replace(source, classes=tuple(domains), **chosen)


def join_domains(a: Source, b: Source, config: CycleGANConfig) -> Source:
    """Return the rows of both data sets, mixed. Raises ConfigError for images of unlike sizes."""
    (_, height, width), (_, height_b, width_b) = a.train.shape[1:], b.train.shape[1:]
    require(
        a.train.shape[1:] == b.train.shape[1:],
        f"--to {config.to}: images of {width_b}x{height_b} pixels and {b.train.shape[1]} channels, "
        f"and --data {config.data.data} has {width}x{height} and {a.train.shape[1]}; give e.g. "
        "--size 64, and --grey for grey images",
    )
    joined: dict[str, Any] = {}
    for part in ("train", "test"):
        images = [_bytes(getattr(each, part)) for each in (a, b)]
        label = np.repeat([0, 1], [len(each) for each in images])
        order = spread(label)
        label = label[order]
        names = getattr(a, f"{part}_names") + getattr(b, f"{part}_names")
        both = len(names) == len(order)
        joined |= {
            part: np.concatenate(images)[order],
            f"{part}_label": label,
            f"{part}_names": tuple(names[row] for row in order) if both else (),
        }
    classes = domain_names(config.data.data, config.to)
    licence = "; ".join(dict.fromkeys(filter(None, (a.licence, b.licence))))
    about = {"a": a.about, "b": b.about, "to": config.to}
    return Source(f"{classes[0]} and {classes[1]}", **joined, classes=classes, licence=licence,
                  about=about)  # fmt: skip


def spread(label_N: np.ndarray) -> np.ndarray:
    """Return an order of rows in which each label is spread evenly, and keeps its own order.

    The validation split, the last part of the training rows, then has its share of both domains.
    """
    place_N = np.empty(len(label_N))
    for label in np.unique(label_N):
        (rows,) = np.nonzero(label_N == label)
        place_N[rows] = (np.arange(len(rows)) + 0.5) / len(rows)
    return np.argsort(place_N, kind="stable")


def domain_names(a: str, b: str) -> tuple[str, str]:
    """Return short names of two data sets, such as photos and paintings; "a" and "b" if equal."""
    first, second = (Path(name.partition(":")[2] or name).stem for name in (a, b))
    return (first, second) if first != second else ("a", "b")


def _bytes(images: np.ndarray) -> np.ndarray:
    """Return images in 0..1 as uint8; uint8 images are unchanged."""
    return images if images.dtype == np.uint8 else np.rint(images * 255).astype(np.uint8)
