"""Figures of translated images: distances to real images, and what a classifier recognises.

Shapes: N rows, C channels, H height, W width. Images are in −1..1.
"""

from dataclasses import replace

import torch
from torch import Tensor

from genray.gen.data.types import Data, Split
from genray.gen.evaluation.metrics import Extractor, frechet_distance
from genray.gen.images.classifier import train_extractor

EVALUATED_ROWS = 500
"""Largest number of rows of one evaluation during training."""
FITTED_ROWS = 1000
"""Largest number of training rows to which the principal components of a distance are fitted."""
CHUNK = 32
"""Number of images that are translated at a time."""


def translated(network: torch.nn.Module, x_NCHW: Tensor) -> Tensor:
    """Return the translations of all rows, float32 [N, C', H, W], a few at a time."""
    return torch.cat([network(x).float() for x in x_NCHW.split(CHUNK)])


def rows_of(split: Split, rows: Tensor) -> Split:
    """Return some rows of a split, with their labels but without names."""
    label = None if split.label is None else split.label[rows]
    return replace(split, values=split.values[rows], label=label, names=())


def colour_distance(real_NCHW: Tensor, found_NCHW: Tensor) -> float:
    """Return the Fréchet distance between the pixels' colours, in squared levels of 0..255.

    A Gaussian is fitted to all pixels of each set. Colours that are averaged, as by a loss on
    pixels alone, have too little variance.
    """
    pixels = [
        127.5 * x.permute(0, 2, 3, 1).reshape(-1, x.shape[1]) for x in (real_NCHW, found_NCHW)
    ]
    return frechet_distance(*pixels)


def make_recogniser(data: Data, device: torch.device) -> Extractor:
    """Train a small classifier of the data's classes, for images of any size.

    The number of its steps is smaller for larger images: 200 for 28x28 pixels, at least 30.
    """
    pixels = data.shape[1] * data.shape[2]
    return train_extractor(data, device, steps=min(200, max(30, 200 * 784 // pixels)))


def recognised(extractor: Extractor, images_NCHW: Tensor, label_N: Tensor) -> float:
    """Return the share of images that the classifier assigns to their label."""
    found = extractor.probabilities(images_NCHW, -1.0, 1.0).argmax(1)
    return (found == label_N.to(found.device)).float().mean().item()


def with_channels(data: Data, channels: slice) -> Data:
    """Return data whose rows have only some of the channels, for example only the targets."""

    def cut(split: Split) -> Split:
        return replace(split, values=split.values[:, channels])

    test = data.test if data.is_sealed else cut(data.test)
    return replace(data, train=cut(data.train), validation=cut(data.validation), test=test)


def as_rgb(x_NCHW: Tensor) -> Tensor:
    """Return grey images as three equal channels; images in colour are unchanged."""
    return x_NCHW.expand(-1, 3, -1, -1) if x_NCHW.shape[1] == 1 else x_NCHW
