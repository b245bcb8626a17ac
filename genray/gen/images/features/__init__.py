"""Extracts features of pictures with a common interface, for style transfer and dreams.

`open_features` opens a feature extractor by its name:

    vgg19        ImageNet's VGG-19 with torchvision's weights: semantic features
    untrained    orthogonal weights, channels normalised on a few pictures: colour and texture
    model:PATH   a classifier or convolutional autoencoder from the model store
    auto         vgg19 if its file is cached, else untrained
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from torch import Tensor

from genray.errors import require
from genray.gen.images import vgg
from genray.gen.images.features.base import Features
from genray.gen.images.features.conv_stack import ConvStack, build_stack
from genray.gen.images.features.trained_model import ModelFeatures, model_features
from genray.gen.images.features.untrained_stack import UNTRAINED, clouds, untrained
from genray.gen.images.features.vgg_stack import vgg19

__all__ = [
    "UNTRAINED",
    "ConvStack",
    "Features",
    "ModelFeatures",
    "build_stack",
    "clouds",
    "model_features",
    "open_features",
    "untrained",
    "vgg19",
]


def open_features(
    name: str = "auto",
    *,
    seed: int = 0,
    calibrate: Sequence[Tensor] = (),
    palette: Sequence[Tensor] = (),
    say: Callable[[str], None] = lambda text: None,
) -> Features:
    """Open the feature extractor "auto", "vgg19", "untrained" or "model:PATH".

    `seed`, `calibrate` and `palette` (pictures [B, 3, H, W] in 0..1): see `untrained`. `say`:
    called with a message about the file of VGG-19. Raises ConfigError for another name, and the
    errors of `vgg19` and `model_features`.
    """
    kind, _, path = name.partition(":")
    if name == "auto":
        name = "vgg19" if vgg.cached_file().exists() else "untrained"
    if name == "vgg19":
        return vgg19(say)
    if name == "untrained":
        return untrained(seed, calibrate, palette)
    require(
        kind == "model" and bool(path),
        f"--features {name}: no such features; use auto, untrained, vgg19 or model:PATH of a "
        "trained classifier",
    )
    return model_features(Path(path))
