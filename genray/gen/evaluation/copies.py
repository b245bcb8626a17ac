"""Finds generated images that copy training images.

The nearest training image of each generated image is found. A generated image is called a
near-duplicate if it is nearer to the training images than nearly all held-out images are.

Shapes: N images, C channels, H height, W width, F features, V variants of an image.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from genray.errors import require
from genray.gen.data.types import Data, Split
from genray.gen.images.embedding import Embedding, open_embedding

Measure = Literal["pixels", "lite0"]
LARGE_SIDE = 64
"""Shortest side in pixels from which lite0 compares images. On smaller images, its codes miss noise
that pixels do not miss.
"""
PIXEL_SIDE = 16
"""Side in pixels at which `pixels` compares images, after averaging."""
QUANTILE = 0.01
"""Share of held-out images that are nearer to the training images than the threshold."""
MOST_HELD_OUT = 1000
_CHUNK = 64
"""Images compared at a time: 64 images x 18 variants x 60,000 rows x 4 bytes are 276 MB."""


class NearestTraining:
    """Finds the nearest of some training images.

    "pixels" compares the pixels at 16x16 after subtracting the image's mean and dividing by its
    length, and takes the smallest distance over shifts of the image by up to one pixel, with and
    without mirroring. So it ignores brightness and contrast. "lite0" compares the codes of
    `Embedding`. Both distances are Euclidean, 0..2.

    Args:
        train_NCHW: the training images in 0..1.
        measure: None chooses "lite0" for images of 64 pixels or more, else "pixels".
    """

    def __init__(self, train_NCHW: Tensor, measure: Measure | None = None):
        small = min(train_NCHW.shape[-2:]) < LARGE_SIDE
        self.measure: Measure = measure or ("pixels" if small else "lite0")
        self._embedding: Embedding | None = open_embedding() if self.measure == "lite0" else None
        self._train_NF = torch.cat([self._features(x) for x in train_NCHW.split(256)])
        self._square_N = self._train_NF.square().sum(1)

    def search(self, images_NCHW: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Return the row of the nearest training image of each image (int64 [N]) and its distance
        (float32 [N]).
        """
        rows, distances = [], []
        for x in images_NCHW.split(_CHUNK):
            features = [self._features(variant) for variant in self._variants(x)]
            squares = [
                each.square().sum(1)[:, None] + self._square_N - 2 * each @ self._train_NF.T
                for each in features
            ]
            best = torch.stack(squares).amin(0).min(1)
            rows.append(best.indices)
            distances.append(best.values.clamp(min=0).sqrt())
        return torch.cat(rows).numpy(), torch.cat(distances).numpy()

    def _variants(self, x_NCHW: Tensor) -> list[Tensor]:
        if self.measure == "lite0":
            return [x_NCHW]
        height, width = x_NCHW.shape[-2:]
        both = []
        for image in (x_NCHW, x_NCHW.flip(-1)):
            padded = F.pad(image, (1, 1, 1, 1), mode="replicate")
            both += [
                padded[..., top : top + height, left : left + width]
                for top in range(3)
                for left in range(3)
            ]
        return both

    def _features(self, x_NCHW: Tensor) -> Tensor:
        if self._embedding is not None:
            return self._embedding.encode_images(x_NCHW)
        if max(x_NCHW.shape[-2:]) > PIXEL_SIDE:
            size = [min(side, PIXEL_SIDE) for side in x_NCHW.shape[-2:]]
            x_NCHW = F.interpolate(x_NCHW, size, mode="bilinear", antialias=True)
        flat_NF = x_NCHW.flatten(1)
        return F.normalize(flat_NF - flat_NF.mean(1, keepdim=True), dim=1, eps=1e-6)


@dataclass(frozen=True)
class Copies:
    """The nearest training images of generated images, and the share of near-duplicates."""

    rows_N: np.ndarray
    """int64 [N]: the nearest training row of each generated image."""
    distances_N: np.ndarray
    """float32 [N]"""
    threshold: float
    """Images at this distance or nearer are near-duplicates. It is the 1% quantile of the distances
    of one half of the held-out images.
    """
    held_out_share: float
    """Share of near-duplicates in the other half of the held-out images."""
    held_out: int
    """Number of images of this other half."""
    measure: Measure

    @property
    def duplicates_N(self) -> np.ndarray:
        """bool [N]: whether each generated image is a near-duplicate."""
        return self.distances_N <= self.threshold

    def __str__(self) -> str:
        share = float(self.duplicates_N.mean())
        return (
            f"near-duplicates of training images: {share:.1%} of {len(self.rows_N):,} samples; "
            f"{self.held_out_share:.1%} of {self.held_out:,} held-out images "
            f"({self.measure}, distance ≤ {self.threshold:.3f})"
        )


def find_copies(data: Data, images_NCHW: Tensor, measure: Measure | None = None) -> Copies:
    """Compare generated images with the training rows.

    `images_NCHW`: images in the range of the data's values, of the same shape. The held-out rows
    are at most 1,000 test rows. If there are fewer than two, validation rows are used, too; they
    are otherwise left out, because validation crops of photographs overlap with training crops.
    Raises ConfigError for fewer than two held-out rows, and the errors of `open_embedding`.
    """
    nearest = NearestTraining(_in_0_1(data.train.all(), data.train), measure)
    held = data.test.first(MOST_HELD_OUT).all()
    if len(held) < 2:
        held = torch.cat([held, data.validation.first(MOST_HELD_OUT).all()])
    require(
        len(held) >= 2,
        f"--data {data.name}: the share of near-duplicates needs two held-out images or more",
    )
    _, distances = nearest.search(_in_0_1(held, data.train))
    threshold = float(np.quantile(distances[::2], QUANTILE))
    rows, found = nearest.search(_in_0_1(images_NCHW, data.train))
    others = distances[1::2]
    return Copies(
        rows, found, threshold, float((others <= threshold).mean()), len(others), nearest.measure
    )


def _in_0_1(images: Tensor, split: Split) -> Tensor:
    return ((images - split.low) / (split.high - split.low)).clamp(0, 1)
