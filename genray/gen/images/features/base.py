"""Defines the interface of all feature extractors.

Shapes: B batch, C channels, H height, W width.
"""

import difflib
from collections.abc import Sequence
from typing import Any, Self

from torch import Tensor, nn

from genray.errors import ConfigError


class Features(nn.Module):
    """Base class: maps pictures in 0..1 to the activations of named layers.

    `layers`: names of the layers, shallow to deep. `style_layers`, `content_layers`: the default
    layers of the style loss and the content loss. `about`: a JSON-serialisable description for the
    metadata of results. Subclasses call `freeze`, so that only the picture gets gradients.
    """

    name: str
    trained: bool
    about: dict[str, Any]
    layers: tuple[str, ...]
    style_layers: tuple[str, ...]
    content_layers: tuple[str, ...]
    min_side = 1
    """The shortest side, in pixels, that the default layers support."""
    dream_layer = ""
    """The default layer of a dream; empty: a layer near the end."""
    guide_layer = ""
    """The default layer of a dream with a guide; empty: `dream_layer`."""
    dream_steps, dream_rate = 12, 0.012
    """The default `DreamConfig.steps` and `DreamConfig.rate`."""

    style_content_weight = 0.15
    """The default `StyleConfig.content_weight`."""
    network_content_weight = 0.3
    """The default `StyleTrainConfig.content_weight`."""

    def forward(self, x_BCHW: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        """Return the activations, by layer, of pictures in 0..1: those after the layer's
        nonlinearity, if it has one.

        Raises ConfigError for an unknown layer, or a picture that is too small for a layer.
        """
        self.check_layers(layers)
        return self.activations(x_BCHW, layers)

    def activations(self, x_BCHW: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        """Compute `forward` for known layers; each subclass defines this method."""
        raise NotImplementedError

    def for_dreams(self) -> "Features":
        """Return the same network as it was trained, if the features differ from it; else self."""
        return self

    def least_side(self, layers: Sequence[str]) -> int:
        """Return the smallest side, in pixels, that a picture must have for `layers`."""
        return self.min_side

    def width_of(self, layer: str) -> int:
        """Return a layer's number of channels; each subclass defines this method."""
        raise NotImplementedError

    def stride_of(self, layer: str) -> int:
        """Return the distance, in pixels of the picture, of a layer's neighbouring activations;
        each subclass defines this method.
        """
        raise NotImplementedError

    def up_to(self, layer: str) -> Self:
        """Return a copy that ends with `layer`, as a part of a model.

        Raises ConfigError for an unknown layer. Each subclass defines this method.
        """
        raise NotImplementedError

    def config(self) -> dict[str, Any]:
        """Return the argument of `build_features` for these features: JSON-serialisable, without
        weights. Each subclass defines this method.
        """
        raise NotImplementedError

    def check_layers(self, layers: Sequence[str], option: str = "layer") -> None:
        """Raise ConfigError, with names of layers that exist, for an unknown layer."""
        for layer in layers:
            if layer not in self.layers:
                raise ConfigError(
                    f"{option} {layer}: {self.name} has no such layer; {self.suggested(layer)}"
                )

    def suggested(self, layer: str) -> str:
        """Return the end of a message about an unknown layer: similar names, if there are any,
        else all names, or a few of more than 16 names.
        """
        if near := difflib.get_close_matches(layer, self.layers, n=3, cutoff=0.5):
            return f"did you mean {', '.join(near)}?"
        if len(self.layers) <= 16:
            return f"there are {', '.join(self.layers)}"
        few = ", ".join((*self.style_layers, *self.content_layers))
        return f"use e.g. {few} (genray features {self.name} lists all)"

    def freeze(self) -> None:
        """Switch the gradients of the weights off, and switch to evaluation mode."""
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> "Features":
        """Stay in evaluation mode, so that the normalisation's statistics are fixed.

        A module that contains the features calls this method when its own mode changes.
        """
        return super().train(False)
