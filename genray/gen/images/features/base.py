"""Defines the interface of all feature extractors.

Shapes: B batch, C channels, H height, W width.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from genray.errors import require


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

    def forward(self, x_BCHW: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        """Return the activations after the nonlinearity, by layer, of pictures in 0..1.

        Raises ConfigError for an unknown layer, or a picture that is too small for a layer.
        """
        self.check_layers(layers)
        return self.activations(x_BCHW, layers)

    def activations(self, x_BCHW: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        """Compute `forward` for known layers; each subclass defines this method."""
        raise NotImplementedError

    def check_layers(self, layers: Sequence[str], option: str = "layer") -> None:
        """Raise ConfigError, listing the available names, for an unknown layer."""
        for layer in layers:
            require(
                layer in self.layers,
                f"{option} {layer}: {self.name} has no such layer; there are "
                f"{', '.join(self.layers)}",
            )

    def freeze(self) -> None:
        """Switch the gradients of the weights off, and switch to evaluation mode."""
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> "Features":
        """Stay in evaluation mode, so that the normalisation's statistics are fixed.

        A module that contains the features calls this method when its own mode changes.
        """
        return super().train(False)
