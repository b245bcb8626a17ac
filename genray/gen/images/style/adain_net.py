"""Huang's network: a fixed encoder, adaptive instance normalisation (AdaIN) and a trained decoder.

The network styles a picture of any size with any style in one forward pass.
[Huang 2017, https://arxiv.org/abs/1703.06868]
Shapes: B batch, C channels, H height, W width. Pictures are float32 in 0..1.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genray.errors import require
from genray.gen.images.features import Features, build_features
from genray.gen.images.style.adain import adain, match_covariance
from genray.gen.images.style.any_style_net import AnyStyleNet
from genray.gen.images.style.network_config import StyleNetConfig, net_config
from genray.gen.images.style.network_parts import Residual, conv
from genray.gen.images.style.strips import WHOLE


class Decoder(nn.Module):
    """Decodes the codes of `AdaINNet.encode_picture` to pixels.

    Input: codes, each [B, C, h, w], shallow to deep. Output: [B, 3, H, W] in 0..1; each of the
    encoder's poolings is reversed by an upsampling to twice the sides. There is no normalisation,
    because instance or batch norm would give all pictures a common style. [Huang 2017, section 7.1]

    With `skips`, the first code is the picture, whose colours at a quarter of the size are added to
    the output. Each other code is added, by a 1x1 convolution, at its own size (skip connections as
    in a U-Net [Ronneberger 2015, https://arxiv.org/abs/1505.04597]).

    Args:
        channels: the channels of the codes, shallow to deep.
        config: channels of the decoder at each size, from full size to the smallest, and its number
            of residual blocks.
    """

    def __init__(self, channels: Sequence[int], config: StyleNetConfig):
        super().__init__()
        widths = config.widths
        layers: list[nn.Module] = [conv(channels[-1], widths[-1]), nn.ReLU()]
        layers += [Residual(widths[-1], norm=False) for _ in range(config.residual)]
        for wide, narrow in zip(widths[:0:-1], widths[-2::-1]):
            layers += [
                conv(wide, narrow),
                nn.ReLU(),
                nn.Upsample(scale_factor=2, mode="nearest"),
                conv(narrow, narrow),
                nn.ReLU(),
            ]
        last = conv(widths[0], 3)
        # The first outputs are near grey, the middle of the sigmoid, because gradients almost
        # vanish at the sigmoid's ends.
        with torch.no_grad():
            last.weight.mul_(0.1)
            last.bias.zero_()  # type: ignore[union-attr]
        self.layers = nn.Sequential(*layers, last)
        # No skip at full size, because the pixels would give the result the content's details
        # instead of strokes.
        self.skips = nn.ModuleList(
            nn.Conv2d(inputs, width, 1) for inputs, width in zip(channels[1:-1], widths[1:])
        )
        self.colours = nn.Conv2d(3, 3, 1) if config.skips else None
        if self.colours is not None:
            # The first outputs are near the picture: 4 (x − 1/2) is the logit of x near grey.
            with torch.no_grad():
                self.colours.weight.copy_(4 * torch.eye(3)[..., None, None])
                self.colours.bias.fill_(-2.0)  # type: ignore[union-attr]

    def forward(self, codes: Sequence[Tensor]) -> Tensor:
        """Return the pictures that the codes are decoded to."""
        h_BCHW, number = codes[-1], len(self.skips)
        for layer in self.layers:
            h_BCHW = layer(h_BCHW)
            if isinstance(layer, nn.Upsample) and number:
                h_BCHW = h_BCHW + self.skips[number - 1](codes[number])
                number -= 1
        if self.colours is not None:
            size = h_BCHW.shape[-2:]
            coarse_BCHW = F.avg_pool2d(codes[0], 4, ceil_mode=True)
            h_BCHW = h_BCHW + F.interpolate(self.colours(coarse_BCHW), size, mode="bilinear")
        return torch.sigmoid(h_BCHW)


def deepest_layer(features: Features, stride: int) -> str:
    """Return the name of the deepest layer with this stride, or an empty name."""
    fitting = [layer for layer in features.layers if features.stride_of(layer) == stride]
    return fitting[-1] if fitting else ""


class AdaINNet(AnyStyleNet[list[Tensor]]):
    """Styles a picture with any style in one pass: a fixed encoder, adaptive instance
    normalisation (AdaIN), and a trained decoder.

    The encoder's weights and calibration are part of the model. Departures from the paper: a
    sigmoid output; with `untrained` features a shallower layer than VGG's relu4_1, because a deep
    layer with random weights cannot be decoded.

    Args:
        config: widths of the decoder, and the encoder's layer whose statistics are replaced (empty:
            the encoder's last layer).
        encoder: a feature extractor that ends with this layer.
        style_side: shorter side of style pictures in training, in pixels.
        about: description of the features, for the metadata of results.

    Raises ConfigError if the encoder does not have the layer, or the widths do not fit it.
    """

    def __init__(
        self,
        config: StyleNetConfig,
        encoder: Features,
        style_side: int,
        about: dict[str, Any] | None = None,
    ):
        config = replace(config, encoder_layer=config.encoder_layer or encoder.layers[-1])
        encoder.check_layers([config.encoder_layer], "--encoder-layer")
        # Number of times that the encoder halves the picture's sides.
        scales = encoder.stride_of(config.encoder_layer).bit_length() - 1
        require(
            scales >= 1,
            f"--encoder-layer {config.encoder_layer}: too shallow to restyle; use e.g. "
            f"{encoder.layers[-1]}",
        )
        require(
            len(config.widths) == scales + 1,
            f"--widths {' '.join(map(str, config.widths))}: {config.encoder_layer} has "
            f"1/{2**scales} of the picture's size; give {scales + 1} widths",
        )
        least_side = encoder.least_side([config.encoder_layer])
        super().__init__(style_side, 2**scales, least_side, about)
        self.config = config
        self.encoder = encoder
        self.layers = [config.encoder_layer]
        if config.skips:
            self.layers = [
                deepest_layer(encoder, 2**scale) or config.encoder_layer
                for scale in range(1, scales)
            ] + self.layers
        channels = [encoder.width_of(layer) for layer in self.layers]
        self.decoder = Decoder([3, *channels] if config.skips else channels, config)

    def encode_picture(self, x_BCHW: Tensor) -> list[Tensor]:
        """Return the codes of the pictures, shallow to deep.

        With `skips` these are the pictures and the activations of `layers`, else the activations of
        the encoder's layer alone.
        """
        return self.codes(x_BCHW, self.encoder(x_BCHW, self.layers))

    def codes(self, x_BCHW: Tensor, found: Mapping[str, Tensor]) -> list[Tensor]:
        """Return the codes of pictures whose activations, by layer, are `found`."""
        codes = [found[layer] for layer in self.layers]
        return [x_BCHW, *codes] if self.config.skips else codes

    def restyled(
        self,
        content: Sequence[Tensor],
        styles: Sequence[Sequence[Tensor]],
        weights: Sequence[float],
        alpha: float,
    ) -> list[Tensor]:
        """Return the content's codes with the statistics of the styles' codes, mixed by `weights`.

        `alpha` 0 returns the content's codes unchanged.
        """
        move = match_covariance if self.config.skips else adain
        codes = []
        for number, code_BCHW in enumerate(content):
            mixed = sum(
                (weight * move(code_BCHW, style[number]) for weight, style in zip(weights, styles)),
                start=torch.zeros_like(code_BCHW),
            )
            codes.append(alpha * mixed + (1 - alpha) * code_BCHW)
        return codes

    def forward(self, content_BCHW: Tensor, style_BCHW: Tensor) -> Tensor:
        """Return each content in the style of the same row.

        The sides of both must be multiples of `multiple`.
        """
        content, style = self.encode_picture(content_BCHW), self.encode_picture(style_BCHW)
        return self.decoder(self.restyled(content, [style], [1.0], 1.0))

    def encode_style(self, style_1CHW: Tensor) -> list[Tensor]:
        """Return the codes of a style."""
        return self.encode_picture(style_1CHW)

    def restyle(
        self,
        content_1CHW: Tensor,
        styles: Sequence[list[Tensor]],
        weights: Sequence[float],
        alpha: float,
    ) -> Tensor:
        """Return a content in a mixture of the styles; see `AnyStyleNet.restyle`.

        Contents of more than `WHOLE` pixels are encoded in tiles and decoded in strips, with the
        same result up to rounding, if the encoder is lite0 or a stack of convolutions.
        """
        if content_1CHW.shape[-2] * content_1CHW.shape[-1] > WHOLE:
            from genray.gen.images.style.large_adain import encoder_halo, restyle_in_tiles

            halo = encoder_halo(self.encoder)
            if halo is not None:
                return restyle_in_tiles(self, content_1CHW, styles, weights, alpha, halo=halo)
        content = self.encode_picture(content_1CHW)
        return self.decoder(self.restyled(content, styles, weights, alpha))

    def unchanged(self, x_BCHW: Tensor) -> Tensor:
        """Return the pictures decoded without a style."""
        return self.decoder(self.encode_picture(x_BCHW))


def build_style_any(config: dict[str, Any]) -> AnyStyleNet:
    """Build a model of kind "style_any" from its config, for the model store."""
    if config.get("architecture") == "micro":
        from genray.gen.images.style.micro_net import build_micro

        return build_micro(config)
    return AdaINNet(
        net_config(config),
        build_features(config["encoder"]),
        int(config["style_side"]),
        config["about"],
    )
