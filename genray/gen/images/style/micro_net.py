"""MicroAST: a small network for any style, without a pretrained network when a picture is styled.

A micro encoder of contents, a micro encoder of styles with a modulator, and a micro decoder, whose
activations and convolutions are modulated by signals of the style. One pass styles a picture of any
size with any style.
[Wang 2023, MicroAST, https://arxiv.org/abs/2211.15313]
Shapes: B batch, C channels, H height, W width, K = 6 kinds of signals. Pictures are float32 in
0..1.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genray.errors import require
from genray.gen.images.style.adain import match_covariance, mean_std
from genray.gen.images.style.any_style_net import AnyStyleNet
from genray.gen.images.style.network_config import StyleNetConfig, net_config
from genray.gen.images.style.network_parts import Residual, conv, pad_to_multiple

KINDS = 6
"""Signals of a stage: the mean and the deviation of the activations, and the factor and the bias of
the filters of each of two convolutions."""
WHOLE = 1 << 16
"""Number of pixels up to which a picture is processed as a whole; strips, which stay in the
processor's cache, are a fifth faster."""
COARSE = 4
"""The decoder adds the recoloured picture at 1/COARSE of the size to its output."""


@dataclass(frozen=True)
class MicroCode:
    """What styles a picture: the signals of each stage, [B, K, C, 1, 1], shallow to deep, and the
    style picture at 1/COARSE of the size, or None without `skips`.
    """

    signals: list[Tensor]
    coarse_BCHW: Tensor | None = None


class MicroEncoder(nn.Module):
    """Encodes pictures: [B, 3, H, W] → the activations after each residual block, shallow to deep.

    Args:
        config: `widths` at full size and after each halving, the number of residual blocks, whether
            they are separable, and the side of the first convolution's kernel.
    """

    def __init__(self, config: StyleNetConfig):
        super().__init__()
        widths = config.widths
        layers: list[nn.Module] = [conv(3, widths[0], config.kernel), nn.ReLU()]
        for narrow, wide in pairwise(widths):
            layers += [conv(narrow, wide, stride=2), nn.ReLU()]
        self.down = nn.Sequential(*layers)
        self.blocks = nn.ModuleList(
            Residual(widths[-1], norm=False, separable=config.separable)
            for _ in range(config.residual)
        )

    def forward(self, x_BCHW: Tensor) -> list[Tensor]:
        """Return the activations after each residual block."""
        found = [self.down(2 * x_BCHW - 1)]
        for block in self.blocks:
            found.append(block(found[-1]))
        return found[1:]


class Modulator(nn.Module):
    """Computes the signals of a stage from a style's activations: [B, C, H, W] → [B, K, C, 1, 1].

    The factors begin near 1 and the biases near 0. Departure from the paper: a ReLU before the
    mean over the pixels, and a linear layer after it, so that the filters depend on more than the
    means of the activations.

    Args:
        channels: C.
    """

    neutral_K111: Tensor

    def __init__(self, channels: int):
        super().__init__()
        self.filters = nn.Sequential(conv(channels, channels), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
        self.last = nn.Conv2d(channels, (KINDS - 2) * channels, 1)
        with torch.no_grad():
            self.last.weight.mul_(0.1)
            assert self.last.bias is not None
            self.last.bias.zero_()
        neutral_K111 = torch.tensor([1.0, 0.0, 1.0, 0.0])[:, None, None, None]
        self.register_buffer("neutral_K111", neutral_K111, persistent=False)

    def forward(self, f_BCHW: Tensor) -> Tensor:
        """Return mean, deviation, factor, bias, factor, bias."""
        mean_BC11, std_BC11 = mean_std(f_BCHW.float())
        filters_BKC11 = self.last(self.filters(f_BCHW)).float().unflatten(1, (KINDS - 2, -1))
        filters_BKC11 = filters_BKC11 + self.neutral_K111
        return torch.cat([torch.stack([mean_BC11, std_BC11], 1), filters_BKC11], 1)


class MicroDecoder(nn.Module):
    """Decodes the content's deepest activations to pixels, modulated by the signals of a style.

    The deepest stage comes first. In each stage, the activations get the style's mean and deviation
    (AdaIN), and a residual block with modulated filters follows.

    Args:
        config: see `MicroEncoder`; `skips`: whether the recoloured picture is added to the output.
    """

    def __init__(self, config: StyleNetConfig):
        super().__init__()
        widths = config.widths
        self.blocks = nn.ModuleList(
            Residual(widths[-1], norm=False, separable=config.separable)
            for _ in range(config.residual)
        )
        layers: list[nn.Module] = []
        for wide, narrow in zip(widths[:0:-1], widths[-2::-1]):
            layers += [nn.Upsample(scale_factor=2, mode="nearest"), conv(wide, narrow), nn.ReLU()]
        last = conv(widths[0], 3, config.kernel)
        # The first outputs are near grey, the middle of the sigmoid, because gradients almost
        # vanish at the sigmoid's ends.
        with torch.no_grad():
            last.weight.mul_(0.1)
            last.bias.zero_()  # type: ignore[union-attr]
        self.up = nn.Sequential(*layers, last)
        self.colours = nn.Conv2d(3, 3, 1) if config.skips else None
        if self.colours is not None:
            # The first outputs are near the picture: 4 (x − 1/2) is the logit of x near grey.
            with torch.no_grad():
                self.colours.weight.copy_(4 * torch.eye(3)[..., None, None])
                self.colours.bias.fill_(-2.0)  # type: ignore[union-attr]

    def forward(
        self, h_BCHW: Tensor, signals: Sequence[Tensor], coarse_BCHW: Tensor | None
    ) -> Tensor:
        """Return the pictures, [B, 3, H, W] in 0..1.

        `signals`: of each stage, shallow to deep. `coarse_BCHW`: the recoloured contents at
        1/COARSE of the size, None without `skips`.
        """
        for block, signal_BKC11 in zip(self.blocks, reversed(signals), strict=True):
            mean_BC11, std_BC11, *filters = signal_BKC11.unbind(1)
            own_mean_BC11, own_std_BC11 = mean_std(h_BCHW)
            h_BCHW = (h_BCHW - own_mean_BC11) / own_std_BC11 * std_BC11 + mean_BC11
            assert isinstance(block, Residual)
            h_BCHW = modulated(block, h_BCHW, filters)
        h_BCHW = self.up(h_BCHW)
        if self.colours is not None and coarse_BCHW is not None:
            size = h_BCHW.shape[-2:]
            h_BCHW = h_BCHW + F.interpolate(self.colours(coarse_BCHW), size, mode="bilinear")
        return torch.sigmoid(h_BCHW)


def modulated(block: Residual, x_BCHW: Tensor, filters: Sequence[Tensor]) -> Tensor:
    """Apply a residual block whose two convolutions have filters modulated by a style.

    `filters`: factor and bias of the first and of the second convolution, each [B, C, 1, 1]. With a
    separable convolution, the 1x1 convolution is modulated.
    """
    h_BCHW, left = x_BCHW, list(filters)
    assert isinstance(block.layers, nn.Sequential)
    for layer in block.layers:
        h_BCHW = layer(h_BCHW)
        if isinstance(layer, nn.Conv2d) and layer.groups == 1:
            # A factor of the output is a factor of the filter and of its bias.
            h_BCHW = left.pop(0) * h_BCHW + left.pop(0)
    return x_BCHW + h_BCHW


def begin_with_unit_activations(layers: nn.Module) -> None:
    """Initialise convolutions so that the deviation of the activations stays about 1.

    With PyTorch's own initialisation it would shrink in each layer, and with it the signals of a
    style. [He 2015, https://arxiv.org/abs/1502.01852]
    """
    for layer in layers.modules():
        if isinstance(layer, nn.Conv2d):
            # A depthwise convolution, which no ReLU follows, has a gain of 1.
            gain = nn.init.calculate_gain("relu" if layer.groups == 1 else "linear")
            fan_in = layer.weight[0].numel()
            nn.init.normal_(layer.weight, std=gain / fan_in**0.5)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)


class MicroNet(AnyStyleNet[MicroCode]):
    """Styles a picture with any style in one pass: two micro encoders and a micro decoder.

    Departures from the paper: with `skips`, the colours of the content, moved to the style's mean
    and covariance, are added to the output at a quarter of the size, so that a short training gets
    the colours right; a sigmoid output; signals of the content itself replace the style's in part
    for a strength `alpha` below 1.

    Args:
        config: the widths and depths.
        style_side: shorter side of style pictures in training, in pixels.
        about: description of the training, for the metadata of results.

    Raises ConfigError without residual blocks.
    """

    def __init__(
        self, config: StyleNetConfig, style_side: int, about: dict[str, Any] | None = None
    ):
        require(config.residual >= 1, "--residual 0: style_micro needs 1 or more, e.g. 2")
        multiple = 2 ** (len(config.widths) - 1)
        # Reflection padding at the smallest size needs two pixels.
        super().__init__(style_side, max(multiple, COARSE), 2 * multiple, about)
        self.config = config
        self.content_encoder, self.style_encoder = MicroEncoder(config), MicroEncoder(config)
        self.modulators = nn.ModuleList(
            Modulator(config.widths[-1]) for _ in range(config.residual)
        )
        self.decoder = MicroDecoder(config)
        for encoder in (self.content_encoder, self.style_encoder):
            begin_with_unit_activations(encoder)
        begin_with_unit_activations(self.decoder.blocks)
        begin_with_unit_activations(self.decoder.up[:-1])

    def encode_style(self, style_BCHW: Tensor) -> MicroCode:
        """Return the signals of the styles, and their colours."""
        found = self.style_encoder(style_BCHW)
        signals = [each(f_BCHW) for each, f_BCHW in zip(self.modulators, found)]
        return MicroCode(signals, self.coarse(style_BCHW))

    def coarse(self, x_BCHW: Tensor) -> Tensor | None:
        """Return the pictures at 1/COARSE of the size, or None if the decoder does not add them."""
        return F.avg_pool2d(x_BCHW, COARSE) if self.config.skips else None

    def mixed(
        self, x_BCHW: Tensor, styles: Sequence[MicroCode], weights: Sequence[float], alpha: float
    ) -> MicroCode:
        """Return the signals and the colours that style the contents.

        The signals of the styles are mixed by `weights`. `alpha` is their share; the others are the
        content's own. The colours are the content's, moved to the styles' covariance.
        """
        parts, shares = list(styles), [alpha * weight for weight in weights]
        if alpha < 1:
            own = pad_to_multiple(self.at_training_size(x_BCHW), self.multiple)
            parts, shares = [*parts, self.encode_style(own)], [*shares, 1 - alpha]
        signals = [
            torch.stack([share * each for share, each in zip(shares, stage)]).sum(0)
            for stage in zip(*(part.signals for part in parts))
        ]
        coarse_BCHW = self.coarse(x_BCHW)
        if coarse_BCHW is None:
            return MicroCode(signals)
        moved = (1 - alpha) * coarse_BCHW
        for weight, style in zip(weights, styles):
            if alpha * weight > 0:
                assert style.coarse_BCHW is not None
                moved = moved + alpha * weight * match_covariance(coarse_BCHW, style.coarse_BCHW)
        return MicroCode(signals, moved)

    def restyle(
        self,
        content_BCHW: Tensor,
        styles: Sequence[MicroCode],
        weights: Sequence[float],
        alpha: float,
    ) -> Tensor:
        """Return the contents in a mixture of the styles; see `AnyStyleNet.restyle`.

        One content of more than `WHOLE` pixels is processed in strips, if no gradient is needed.
        """
        code = self.mixed(content_BCHW, styles, weights, alpha)
        pixels = content_BCHW.shape[-2] * content_BCHW.shape[-1]
        if pixels > WHOLE and len(content_BCHW) == 1 and not torch.is_grad_enabled():
            from genray.gen.images.style.large_micro import restyle_in_strips

            return restyle_in_strips(self, content_BCHW, code)
        return self.decoder(self.content_encoder(content_BCHW)[-1], code.signals, code.coarse_BCHW)

    def forward(self, content_BCHW: Tensor, style_BCHW: Tensor) -> Tensor:
        """Return each content in the style of the same row.

        The sides of both must be multiples of `multiple`.
        """
        return self.restyle(content_BCHW, [self.encode_style(style_BCHW)], [1.0], 1.0)

    def unchanged(self, x_BCHW: Tensor) -> Tensor:
        """Return the pictures decoded with their own signals and colours."""
        own = self.encode_style(x_BCHW)
        return self.decoder(self.content_encoder(x_BCHW)[-1], own.signals, own.coarse_BCHW)


def build_micro(config: dict[str, Any]) -> MicroNet:
    """Build a MicroNet from the config of a model of kind "style_any"."""
    return MicroNet(net_config(config), int(config["style_side"]), config["about"])
