"""Compares samples of a generator with its data, for `genray sample --nearest` and `--fld`."""

from pathlib import Path

import numpy as np
from torch import Tensor

from genray.commands.models import own_data
from genray.gen.data.types import Data
from genray.gen.evaluation.copies import Copies, find_copies
from genray.gen.evaluation.fld import frechet_lite0_distance
from genray.gen.generative import to_uint8
from genray.gen.images.embedding import open_embedding
from genray.gen.sheets import Tile, draw_sheet
from genray.media import write_png
from genray.runs import modelstore

SHOWN, BAND = 24, 8
"""Numbers of samples on the sheet, and side by side."""
TILE = 112
"""Least side in pixels of an image on the sheet."""


def compare(folder: Path, images_NCHW: Tensor, nearest: Path | None, fld: bool) -> None:
    """Print figures of samples, and write the sheet `nearest` if given.

    `folder`: the generator's directory, whose training data are loaded. `images_NCHW`: the samples,
    in the range of the generator's images.
    """
    data = own_data(modelstore.read_config(folder), "")
    if nearest is not None:
        copies = find_copies(data, images_NCHW)
        print(copies)
        print(write_png(nearest, nearest_sheet(data, images_NCHW, copies)))
    if fld:
        embedding, low, high = open_embedding(), data.train.low, data.train.high
        held_out = data.test.all()
        print(frechet_lite0_distance(held_out, images_NCHW, low, high, embedding))
        # As many training images show how much of the distance is the bias of few images.
        train = data.train.first(len(images_NCHW)).all()
        same = frechet_lite0_distance(held_out, train, low, high, embedding)
        print(f"FLD of {len(train):,} training images in place of the samples: {same.value:.2f}")


def nearest_sheet(data: Data, images_NCHW: Tensor, copies: Copies) -> np.ndarray:
    """Draw the samples that are nearest to training images, each above its nearest image.

    At most 24 samples are drawn, the nearest first; near-duplicates are marked.
    """
    order = np.argsort(copies.distances_N, kind="stable")[:SHOWN]
    low, high = data.train.low, data.train.high
    samples = to_uint8(images_NCHW[order], low, high)
    rows = copies.rows_N[order]
    training = to_uint8(data.train.take(_tensor(rows))[0], low, high)
    scale = max(1, -(-TILE // min(samples.shape[1:3])))
    bands, labels = [], []
    for start in range(0, len(order), BAND):
        part = range(start, min(start + BAND, len(order)))
        bands += [
            [
                Tile(_enlarged(samples[at], scale), f"{copies.distances_N[order[at]]:.3f}",
                     marked=bool(copies.duplicates_N[order[at]]))
                for at in part
            ],
            [Tile(_enlarged(training[at], scale), f"row {rows[at]}") for at in part],
        ]  # fmt: skip
        labels += ["sample", "nearest training image"]
    title = (
        f"The {len(order)} samples nearest to training images, each above its nearest one; "
        f"bordered: near-duplicates (distance at most {copies.threshold:.3f}, "
        f"{copies.measure})"
    )
    return draw_sheet(bands, labels, title)


def _tensor(rows: np.ndarray) -> Tensor:
    import torch

    return torch.from_numpy(rows)


def _enlarged(image: np.ndarray, scale: int) -> np.ndarray:
    return image.repeat(scale, axis=0).repeat(scale, axis=1)
