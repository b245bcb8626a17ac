"""Computes the loss of a picture for one content and several styles.

Shapes: B batch, C channels, H height, W width. Pictures are float32 in 0..1.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from genray.gen.images.features import Features
from genray.gen.images.style.config import StyleConfig
from genray.gen.images.style.gram import grams
from genray.gen.images.style.losses import (
    box_penalty,
    content_loss,
    style_loss,
    total_variation,
)


class StyleObjective:
    """Computes the loss of a picture for one content and several weighted styles, at one size.

    Args:
        content_1CHW: the content, of the size of the pictures to evaluate.
        styles: style pictures [1, 3, H, W] of any size.
        weights: a weight for each style, with sum 1.
        config: layers, and weights of the losses.
        features: the feature extractor.
    """

    def __init__(
        self,
        content_1CHW: Tensor,
        styles: Sequence[Tensor],
        weights: Sequence[float],
        config: StyleConfig,
        features: Features,
    ):
        self._config, self._features = config, features
        self._style_layers = config.style_layers or features.style_layers
        content_layers = config.content_layers or features.content_layers
        features.check_layers(self._style_layers, "--style-layers")
        features.check_layers(content_layers, "--content-layers")
        self._layers = tuple(dict.fromkeys((*self._style_layers, *content_layers)))
        self._weights = tuple(weights)
        given = config.content_weight
        self._content_weight = features.style_content_weight if given is None else given
        with torch.no_grad():
            self._content = features(content_1CHW, content_layers)
            found = [features(style, self._style_layers) for style in styles]
            self._centres = [
                {
                    layer: f.mean((2, 3), keepdim=True) if config.centred else f.new_zeros(1)
                    for layer, f in each.items()
                }
                for each in found
            ]
            self._targets = [
                grams({layer: f - centre[layer] for layer, f in each.items()})
                for each, centre in zip(found, self._centres)
            ]

    def __call__(self, x_1CHW: Tensor) -> dict[str, Tensor]:
        """Return the scalars "loss", and "style", "content" and "tv" before weighting.

        The loss also contains the penalty on values outside 0..1.
        """
        found = self._features(x_1CHW, self._layers)
        style = sum(
            (
                weight * style_loss(found, target, centres=centres)
                for weight, target, centres in zip(self._weights, self._targets, self._centres)
            ),
            start=x_1CHW.new_zeros(()),
        )
        content, tv = content_loss(found, self._content), total_variation(x_1CHW)
        config = self._config
        loss = (
            style
            + self._content_weight * content
            + config.tv * tv
            + config.box * box_penalty(x_1CHW)
        )
        return {"loss": loss, "style": style, "content": content, "tv": tv}
