"""Extracts features with a trained classifier or autoencoder of the model store.

Shapes: B batch, C channels, H height, W width.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genray.errors import require
from genray.gen.autoencoder.blocks import ConvBlock
from genray.gen.autoencoder.model import Autoencoder, build_autoencoder
from genray.gen.images.classifier import Classifier, build_classifier
from genray.gen.images.colours import luminance
from genray.gen.images.features.base import Features
from genray.runs.modelstore import load_model, model_folder

MODEL_BUILDERS: dict[str, Callable[[dict[str, Any]], Classifier | Autoencoder]] = {
    "classifier": build_classifier,
    "autoencoder": build_autoencoder,
}
"""Functions that build a network from a model's config, by the model's kind."""


class ModelFeatures(Features):
    """The convolutions "conv0", "conv1", … of a trained classifier or autoencoder.

    Pictures may have any size from `min_side`. Their values are scaled to the model's range, and
    pictures are converted to grey for a model of grey images.

    Args:
        model: the network.
        name: the extractor's name, for messages.
        about: a description for the metadata of results.
        model_config: the saved model's config; needed by `config` only.
    """

    def __init__(
        self,
        model: Classifier | Autoencoder,
        name: str,
        about: Mapping[str, Any],
        model_config: Mapping[str, Any] | None = None,
    ):
        super().__init__()
        self.model, self.name, self.trained = model, name, True
        self._model_config = dict(model_config or {})
        self.low, self.high, self.grey = float(model.low), float(model.high), model.shape[0] == 1
        self._blocks = list(_stages(model))
        self.layers = tuple(f"conv{index}" for index in range(len(self._blocks)))
        self.style_layers, self.content_layers = self.layers, self.layers[-1:]
        # Each block has one pooling; a classifier's block has one or several convolutions.
        poolings = len(model.config.channels) if isinstance(model, Classifier) else len(self.layers)
        self.about, self.min_side = dict(about), 1 << poolings
        self.freeze()

    def width_of(self, layer: str) -> int:
        """Return a layer's number of channels."""
        return self._probe[layer].shape[1]

    def stride_of(self, layer: str) -> int:
        """Return the distance, in pixels of the picture, of a layer's neighbouring activations."""
        return self.min_side // self._probe[layer].shape[-1]

    @cached_property
    def _probe(self) -> dict[str, Tensor]:
        """Activations of the smallest possible picture, whose shapes the methods above read."""
        device = next(self.model.parameters()).device
        with torch.no_grad():
            picture = torch.zeros(1, 3, self.min_side, self.min_side, device=device)
            return self.activations(picture, self.layers)

    def up_to(self, layer: str) -> "ModelFeatures":
        """Return a copy whose last layer is `layer`; deeper weights are kept, but not used.

        Raises ConfigError for an unknown layer.
        """
        self.check_layers([layer])
        model = copy.deepcopy(self.model)
        features = ModelFeatures(model, self.name, self.about, self._model_config)
        features.layers = self.layers[: self.layers.index(layer) + 1]
        features.style_layers, features.content_layers = features.layers, features.layers[-1:]
        return features

    def config(self) -> dict[str, Any]:
        """Return the argument of `build_features`: JSON-serialisable, without weights."""
        return {
            "network": "model",
            "name": self.name,
            "about": self.about,
            "model": self._model_config,
            "layers": list(self.layers),
        }

    def activations(self, x_BCHW: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        """Compute `forward`; layers deeper than the named ones are not computed."""
        require(
            min(x_BCHW.shape[-2:]) >= self.min_side,
            f"a picture with a side of {min(x_BCHW.shape[-2:])} pixels: {self.name} needs sides of "
            f"{self.min_side} or more; choose a larger --size",
        )
        found: dict[str, Tensor] = {}
        h_BCHW = self.low + x_BCHW * (self.high - self.low)
        if self.grey:
            h_BCHW = luminance(h_BCHW)
        if isinstance(self.model, Classifier):  # a classifier centres its input
            h_BCHW = (h_BCHW - (self.high + self.low) / 2) / ((self.high - self.low) / 2)
        for layer, stage in zip(self.layers, self._blocks):
            if len(found) == len(set(layers)):
                break
            activation, pooled = stage(h_BCHW)
            if layer in layers:
                found[layer] = activation
            h_BCHW = pooled
        return found


Stage = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Function of activations that returns the next activations before and after pooling."""


def _stages(model: Classifier | Autoencoder) -> list[Stage]:
    """Return a function for each convolution with its activation and pooling, in order."""
    stages: list[Stage] = []
    if isinstance(model, Autoencoder):
        for block in model.blocks:
            if isinstance(block, ConvBlock):
                stages.append(partial(_encoded, block))
        return stages
    # Each convolution of a classifier is a stage; a block may have several before its pooling.
    groups: list[list[nn.Module]] = []
    for layer in model.layers:
        if isinstance(layer, nn.Flatten):
            break
        if isinstance(layer, nn.Conv2d):
            groups.append([])
        groups[-1].append(layer)
    for group in groups:
        pool = group.pop() if isinstance(group[-1], nn.MaxPool2d) else nn.Identity()
        stages.append(partial(_pooled, nn.Sequential(*group), pool))
    return stages


def _pooled(body: nn.Module, pool: nn.Module, h_BCHW: Tensor) -> tuple[Tensor, Tensor]:
    activation = body(h_BCHW)
    return activation, pool(activation)


def _encoded(block: ConvBlock, h_BCHW: Tensor) -> tuple[Tensor, Tensor]:
    activation = block.activations(h_BCHW)
    return activation, F.max_pool2d(activation, 2)


def build_model_features(config: Mapping[str, Any]) -> ModelFeatures:
    """Build the features that `ModelFeatures.config` describes; the weights must then be loaded."""
    saved = config["model"]
    model = MODEL_BUILDERS[saved["kind"]](saved)
    return ModelFeatures(model, config["name"], config["about"], saved).up_to(config["layers"][-1])


def model_features(path: Path) -> ModelFeatures:
    """Load a trained model as a feature extractor.

    Raises CheckpointError for a path without a classifier or autoencoder, ConfigError for a model
    without convolutions of grey or RGB images.
    """
    folder = model_folder(path)
    model, config = load_model(folder, MODEL_BUILDERS)
    assert isinstance(model, Classifier | Autoencoder)
    data = config.get("data", {}).get("name", "")
    about = {
        "features": "model",
        "kind": config["kind"],
        "note": f"a model of kind {config['kind']}, trained on {data or 'data'}",
    }
    channels = model.shape[0] if len(model.shape) == 3 else 0
    require(
        channels in (1, 3) and len(_stages(model)) > 0,
        f"--features model:{path}: the model has no convolutions of grey or RGB images; use a "
        "classifier or a convolutional ae",
    )
    return ModelFeatures(model, f"model:{path}", about, config)
