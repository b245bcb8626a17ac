"""Gives the classifiers whose classes can be drawn a common interface, and finds classes by name.

Shapes: B batch, K classes, C channels, H height, W width.
"""

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from genray.console import escaped
from genray.errors import CheckpointError, ConfigError, require
from genray.gen.images.classifier import Classifier, build_classifier
from genray.gen.images.colours import luminance
from genray.gen.images.features.efficientnet_lite0 import EfficientNetLite0
from genray.gen.images.features.lite0_features import load_published
from genray.runs.modelstore import load_model, model_folder, read_config

LISTER = "genray imagine --list shows all"
MOST_LISTED = 8
"""Number of matching classes that a message names."""


class ClassNetwork(nn.Module):
    """A trained classifier of pictures in 0..1, with the names of its classes.

    Args:
        net: maps scaled pictures [B, C, H, W] to logits [B, K].
        name: what messages call the network.
        classes: the K names.
        sides: (H, W) at which the network classifies.
        view_sides: (H, W) at which class pictures are shown to it; smaller is faster.
        low, high: the scaled values of black and white.
        grey: whether the network takes one channel, the luma.
        norms: batch normalisations whose statistics describe the pictures of the training.
    """

    def __init__(
        self,
        net: nn.Module,
        *,
        name: str,
        classes: Sequence[str],
        sides: tuple[int, int],
        view_sides: tuple[int, int],
        low: float,
        high: float,
        grey: bool = False,
        norms: Sequence[nn.BatchNorm2d] = (),
    ):
        super().__init__()
        self.net, self.name, self.classes = net, name, tuple(classes)
        self.sides, self.view_sides = sides, view_sides
        self.low, self.high, self.grey, self.norms = low, high, grey, list(norms)
        self.requires_grad_(False).eval()

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return the logits, [B, K], of pictures [B, 3, H, W] in 0..1."""
        if self.grey:
            x_BCHW = luminance(x_BCHW)
        return self.net(self.low + x_BCHW * (self.high - self.low))

    @torch.no_grad()
    def probabilities(self, x_BCHW: Tensor) -> Tensor:
        """Return the probabilities of the classes, [B, K], of pictures of any size in 0..1."""
        x_BCHW = functional.interpolate(x_BCHW, self.sides, mode="bilinear", antialias=True)
        return self(x_BCHW).softmax(1)

    def find(self, word: str) -> int:
        """Return the number of the class that `word` names: a number, a name, or a part of one.

        Upper and lower case, hyphens and underscores do not matter. Raises ConfigError, with the
        classes that were probably meant, if no class or several match.
        """
        count = len(self.classes)
        if word.isascii() and word.isdigit():
            require(
                len(word) < 9 and int(word) < count,
                f"class {word}: {self.name} has the classes 0..{count - 1} ({LISTER})",
            )
            return int(word)
        plain, names = _plain(word), [_plain(each) for each in self.classes]
        exact = [number for number, name in enumerate(names) if name == plain]
        whole_words = [number for number in self.listed(word) if plain in names[number].split()]
        for found in (exact, whole_words, self.listed(word)):
            if len(found) == 1:
                return found[0]
            if found:
                more = f" and {len(found) - MOST_LISTED} more" if len(found) > MOST_LISTED else ""
                raise ConfigError(
                    f"class {word}: {len(found)} classes match; choose one by its name or number: "
                    f"{self._written(found[:MOST_LISTED])}{more}"
                )
        near = difflib.get_close_matches(plain, names, n=3, cutoff=0.6)
        meant = [number for number, name in enumerate(names) if name in near]
        if meant:
            raise ConfigError(
                f"class {word}: {self.name} has no such class; did you mean {self._written(meant)}?"
            )
        raise ConfigError(f"class {word}: {self.name} has no such class; {LISTER}")

    def listed(self, part: str = "") -> list[int]:
        """Return the numbers of the classes whose name contains `part`."""
        return [number for number, name in enumerate(self.classes) if _plain(part) in _plain(name)]

    def _written(self, numbers: Sequence[int]) -> str:
        return ", ".join(f"{escaped(self.classes[number])} ({number})" for number in numbers)


def _plain(name: str) -> str:
    return " ".join(name.lower().replace("-", " ").replace("_", " ").split())


def open_lite0_classes() -> ClassNetwork:
    """Return EfficientNet-Lite0 with the 1,000 classes of ImageNet.

    Its batch normalisations after the stem and each block describe the photographs of ImageNet.
    Raises ResourceError if the weights are not installed, CheckpointError for a damaged file.
    """
    from torchvision.models import EfficientNet_B0_Weights

    net = EfficientNetLite0()
    load_published(net)
    norms = [net.stem.norm, *(cast(Any, block).project.norm for block in net.blocks)]
    return ClassNetwork(
        net,
        name="lite0",
        classes=EfficientNet_B0_Weights.IMAGENET1K_V1.meta["categories"],
        sides=(224, 224),
        view_sides=(160, 160),
        low=-127 / 128,
        high=(255 - 127) / 128,
        norms=cast(list[nn.BatchNorm2d], norms),
    )


def open_model_classes(path: Path) -> ClassNetwork:
    """Return a classifier of the model store, from a run or a model directory.

    Raises CheckpointError for a directory without a model, ConfigError for another kind of model or
    a classifier of data that are not grey or RGB images.
    """
    kind = read_config(model_folder(path))["kind"]
    require(
        kind == "classifier",
        f"--model {path}: a model of kind {kind} has no classes; name a run of genray train "
        "classifier",
    )
    model, config = load_model(model_folder(path), {"classifier": build_classifier})
    assert isinstance(model, Classifier)
    channels, *sides = model.shape
    require(
        channels in (1, 3),
        f"--model {path}: its images have {channels} channels; class pictures need grey or RGB",
    )
    names = config.get("data", {}).get("classes") or map(str, range(model.num_classes))
    classes = [str(name) for name in names]
    if len(classes) != model.num_classes:
        raise CheckpointError(
            f"--model {path}: {len(classes)} names for {model.num_classes} classes; the model is "
            "damaged"
        )
    height, width = sides
    return ClassNetwork(
        model,
        name=f"the model {path.name}",
        classes=classes,
        sides=(height, width),
        view_sides=(height, width),
        low=model.low,
        high=model.high,
        grey=channels == 1,
        norms=[each for each in model.modules() if isinstance(each, nn.BatchNorm2d)],
    )
