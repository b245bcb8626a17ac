"""Pairs of images for pix2pix: read from files, or made from any images.

A row contains the channels of the input, followed by those of the target.
Shapes: N rows, C channels, H height, W width. Images are uint8.
"""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from genray.errors import ConfigError, require
from genray.gen.data.config import SUFFIXES, DataConfig
from genray.gen.data.folders import find_files, report_skipped
from genray.gen.data.load import load_data
from genray.gen.data.sources import MOST_PIXELS, load_images, resize, to_grey
from genray.gen.data.splits import split_rows
from genray.gen.data.types import Data, Source
from genray.gen.images.pictures import DATA_FORMATS, PictureError, read_picture
from genray.gen.translation.config import EdgeDetector, Pix2PixConfig
from genray.gen.translation.edges import draw_edges
from genray.machine import resolve_device

MASK = 128
"""Value of the pixels of a missing square; its side is half of the image's."""
INPUT_OPTIONS = ("edge_detector", "edge_sigma", "edge_threshold", "factor")
"""Options of `Pix2PixConfig` that `make_inputs` takes. A saved model contains them."""


def load_pairs(config: Pix2PixConfig, low: float, high: float) -> Data:
    """Load the pairs that `config` describes, with values in low..high.

    `Data.about["pairs"]` has the kind and the numbers of channels of input and target. Raises
    ConfigError for data that do not make pairs, and the errors of `make_inputs`.
    """

    def source(data: DataConfig) -> Source:
        if config.pairs_kind == "files":
            path = Path(data.data.partition(":")[2]).expanduser()
            return read_pairs(path, data.size, data.grey, config.direction)
        return make_pairs(load_images(data), config)

    return load_data(config.data, low=low, high=high, source=source)


# -- made from images ------------------------------------------------------------------------------


def make_pairs(source: Source, config: Pix2PixConfig) -> Source:
    """Return rows of inputs, made from the images of `source`, and these images.

    Raises ConfigError for --pairs grey of images without colours, and the errors of `make_inputs`.
    """
    require(
        config.pairs != "grey" or source.train.shape[1] == 3,
        f"--pairs grey: needs colours, and --data {source.name} has grey images; use e.g. edges",
    )

    def pairs(images: np.ndarray, seed: int) -> np.ndarray:
        targets = images if images.dtype == np.uint8 else np.rint(images * 255).astype(np.uint8)
        options = {name: getattr(config, name) for name in INPUT_OPTIONS}
        inputs = make_inputs(targets, config.pairs, **options, seed=seed, device=device)
        return np.concatenate([inputs, targets], 1)

    device = resolve_device(config.fit.device)
    if config.pairs == "edges" and config.edge_detector == "hed":
        count = len(source.train) + len(source.test)
        print(f"--edge-detector hed: finding the edges of {count:,} images", file=sys.stderr)
    train, test = pairs(source.train, 0), pairs(source.test, 1)
    channels = source.train.shape[1]
    about = {"kind": config.pairs, "channels": [train.shape[1] - channels, channels]}
    return replace(source, train=train, test=test, about={**source.about, "pairs": about})


def make_inputs(
    images_NCHW: np.ndarray,
    kind: str,
    *,
    edge_detector: EdgeDetector = "canny",
    edge_sigma: float = 1.0,
    edge_threshold: float = 0.1,
    factor: int = 4,
    seed: int = 0,
    device: str | torch.device = "cpu",
) -> np.ndarray:
    """Return the input of each image, uint8 [N, C', H, W]: see `Pix2PixConfig`.

    C' is 1 for edges and grey, otherwise C. `seed`: of the places of missing squares. `device`: on
    which HED finds edges. Raises the errors of `draw_edges`.
    """
    if kind == "edges":
        return draw_edges(
            images_NCHW, edge_detector, sigma=edge_sigma, threshold=edge_threshold, device=device
        )
    if kind == "grey":
        return to_grey(images_NCHW) if images_NCHW.shape[1] == 3 else images_NCHW
    height, width = images_NCHW.shape[2:]
    if kind == "low":
        small = resize(images_NCHW, (max(1, height // factor), max(1, width // factor)))
        return resize(small, (height, width))
    masked = images_NCHW.copy()
    random = np.random.RandomState(seed)  # its stream is the same in all versions of NumPy
    tops = random.randint(0, height - height // 2 + 1, len(masked))
    lefts = random.randint(0, width - width // 2 + 1, len(masked))
    for image, top, left in zip(masked, tops, lefts):
        image[:, top : top + height // 2, left : left + width // 2] = MASK
    return masked


# -- read from files -------------------------------------------------------------------------------


def read_pairs(folder: Path, size: int, grey: bool, direction: str) -> Source:
    """Read pairs from two subfolders with equal file names, or from files with A beside B.

    If `folder` has exactly two subfolders and no images of its own, they are A and B by name, and
    files of the same name (without the suffix) are pairs. Otherwise the left half of each file is
    A, and the right half is B. A random fifth of the pairs is the test split.

    Args:
        folder: the directory.
        size: side to which both images of a pair are scaled and centre-cropped; 0: unchanged.
        grey: convert the images to luma.
        direction: a_to_b or b_to_a; the side that is named first is the input.

    Raises:
        ConfigError: names without a partner, a pair of unlike sizes, pairs of several sizes
            without `size`, fewer than 5 pairs, or files that are no images.
    """
    option = f"--data pairs:{folder}"
    require(folder.is_dir(), f"{option}: no such folder")
    files = find_files(folder, SUFFIXES)
    report_skipped(f"pairs:{folder}", files, [])
    sides = sorted({path.relative_to(folder).parts[0] for path in files.paths})
    if len(sides) == 2 and all((folder / side).is_dir() for side in sides):
        names, pairs = _from_folders(folder, sides, files.paths, option)
        layout = f"{sides[0]} and {sides[1]}"
    else:
        names = [str(path.relative_to(folder)) for path in files.paths]
        pairs = [
            _halves(_read(path, option), name, option) for path, name in zip(files.paths, names)
        ]
        layout = "side by side"
    require(
        len(pairs) >= 5,
        f"{option}: {len(pairs)} pair{' is' if len(pairs) == 1 else 's are'} too few; give at "
        "least 5, as two subfolders with equal names, or as files with both images side by side",
    )
    rows: list[np.ndarray] = []
    for name, (a, b) in zip(names, pairs):
        require(
            a.shape == b.shape,
            f"{option}: the images of {name} are {a.shape[1]}x{a.shape[0]} and "
            f"{b.shape[1]}x{b.shape[0]}; give both images of a pair one size",
        )
        both = (a, b) if direction == "a_to_b" else (b, a)
        row = np.concatenate([_fitted(image, size, grey) for image in both])
        require(
            not rows or row.shape == rows[0].shape,
            f"{option}: {name} is {row.shape[2]}x{row.shape[1]}, {names[0]} is "
            f"{rows[0].shape[2] if rows else 0}x{rows[0].shape[1] if rows else 0}; scale all to "
            "one size, e.g. --size 64",
        )
        rows.append(row)
    stacked, row_names = np.stack(rows), np.array(names, object)
    train, test = split_rows(len(stacked))
    channels = stacked.shape[1] // 2
    about = {
        "pairs": {"kind": "files", "channels": [channels, channels], "layout": layout},
        **files.about(),
        "split": "a random fifth is the test split",
    }
    return Source(
        folder.name or "pairs", stacked[train], stacked[test], licence="its owner's", about=about,
        train_names=tuple(row_names[train]), test_names=tuple(row_names[test]),
    )  # fmt: skip


def _from_folders(
    folder: Path, sides: list[str], paths: list[Path], option: str
) -> tuple[list[str], list[tuple[np.ndarray, np.ndarray]]]:
    """Return the names and the images of all pairs of two subfolders."""
    by_side: list[dict[str, Path]] = []
    for side in sides:
        below = (folder / side, [path for path in paths if folder / side in path.parents])
        by_side.append({str(path.relative_to(below[0]).with_suffix("")): path for path in below[1]})
    first, second = by_side
    for there, here, missing in (
        (sides[0], sides[1], sorted(first.keys() - second.keys())),
        (sides[1], sides[0], sorted(second.keys() - first.keys())),
    ):
        require(
            not missing,
            f"{option}: {there}/{missing[0] if missing else ''} has no partner in {here} "
            f"({len(missing)} of {len(first if there == sides[0] else second)} names); give both "
            "images of a pair the same name",
        )
    names = sorted(first)
    return names, [(_read(first[name], option), _read(second[name], option)) for name in names]


def _read(path: Path, option: str) -> np.ndarray:
    """Read a picture, uint8 RGB [H, W, 3]. Raises ConfigError, which names `option`."""
    try:
        return read_picture(path, max_pixels=MOST_PIXELS, formats=DATA_FORMATS, any_shape=True).rgb
    except PictureError as error:
        raise ConfigError(f"{option}: {error}; repair or remove it") from error


def _halves(rgb: np.ndarray, name: str, option: str) -> tuple[np.ndarray, np.ndarray]:
    """Split a picture into its left and its right half."""
    width = rgb.shape[1]
    require(
        width % 2 == 0,
        f"{option}: {name} is {width} pixels wide, and files side by side have two halves of "
        "equal width; give an even width, or two subfolders",
    )
    return rgb[:, : width // 2], rgb[:, width // 2 :]


def _fitted(rgb: np.ndarray, size: int, grey: bool) -> np.ndarray:
    """Scale and centre-crop a picture to a square; returns uint8 [C, H, W]."""
    image = Image.fromarray(np.ascontiguousarray(rgb)).convert("L" if grey else "RGB")
    if size:
        image = ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC)
    pixels = np.asarray(image, np.uint8)
    return pixels[None] if grey else np.moveaxis(pixels, 2, 0)
