"""Networks of image-to-image translation: U-Net, ResNet generator and PatchGAN discriminator.

[pix2pix: Isola 2017, https://arxiv.org/abs/1611.07004, section 6.1; CycleGAN: Zhu 2017,
https://arxiv.org/abs/1703.10593, section 7.2]
Shapes: B batch, C channels, H height, W width.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn

from genray.gen.layers import dropout_layers
from genray.gen.translation.config import TranslatorModelConfig

MOST_DROPOUT = 3
"""Largest number of layers with dropout in the U-Net's decoder."""


class Norm(nn.InstanceNorm2d):
    """Instance norm with a factor and a shift for each channel: [B, C, H, W] → [B, C, H, W].

    Each channel of each image is normalised by its own mean and variance, in training and in
    evaluation. When a picture is translated in tiles, `statistics` are those of the whole picture,
    and the module uses them instead of the tile's.

    Args:
        channels: C.
    """

    def __init__(self, channels: int):
        super().__init__(channels, affine=True)
        self.statistics: tuple[Tensor, Tensor] | None = None
        """The mean and the variance, both [C]; None: those of the input."""

    def forward(self, input: Tensor) -> Tensor:
        """Return the normalised input."""
        if self.statistics is None:
            return super().forward(input)
        mean_C, variance_C = self.statistics
        factor_C = self.weight * (variance_C + self.eps).rsqrt()
        shift_C = self.bias - mean_C * factor_C
        return input * factor_C[:, None, None] + shift_C[:, None, None]


def make_norm(config: TranslatorModelConfig, channels: int) -> Norm | nn.BatchNorm2d:
    """Return the configured norm of C channels."""
    return Norm(channels) if config.norm == "instance" else nn.BatchNorm2d(channels)


class UNet(nn.Module):
    """An encoder and a decoder with skip connections: [B, C, H, W] → [B, C', H, W] in −1..1.

    Each layer of the encoder halves the image, and each layer of the decoder doubles it. A layer of
    the decoder also reads the encoder's output of the same size. Sides must be multiples of
    `multiple`, 2 to the power of the number of layers. The encoder's last layer has no norm,
    because its output may be a single pixel.

    Args:
        config: widths of the encoder's layers, and dropout.
        channels_in, channels_out: C and C'.
    """

    def __init__(self, config: TranslatorModelConfig, channels_in: int, channels_out: int):
        super().__init__()
        widths = config.widths
        self.multiple = 2 ** len(widths)
        self.halo = 4 * self.multiple
        """An output pixel depends on input pixels at most this far away."""
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        for depth, (narrow, wide) in enumerate(pairwise((channels_in, *widths))):
            layers: list[nn.Module] = [nn.LeakyReLU(0.2)] if depth else []
            layers.append(nn.Conv2d(narrow, wide, 4, stride=2, padding=1))
            if 0 < depth < len(widths) - 1:
                layers.append(make_norm(config, wide))
            self.down.append(nn.Sequential(*layers))
        # Dropout is in the innermost layers, but not in the last three: the paper's network of
        # eight layers has dropout in the first three layers of its decoder.
        dropped = min(MOST_DROPOUT, len(widths) - 3)
        for number, depth in enumerate(range(len(widths) - 1, -1, -1)):
            inputs = widths[depth] * (2 if number else 1)
            outputs = widths[depth - 1] if depth else channels_out
            layers = [nn.ReLU(), nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1)]
            if depth:
                layers.append(make_norm(config, outputs))
            if number < dropped:
                layers += dropout_layers(config.dropout)
            self.up.append(nn.Sequential(*layers))
        self.apply(_initialise)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return the translated images."""
        found = []
        for layer in self.down:
            x_BCHW = layer(x_BCHW)
            found.append(x_BCHW)
        found.pop()
        for number, layer in enumerate(self.up):
            if number:
                x_BCHW = torch.cat([x_BCHW, found.pop()], 1)
            x_BCHW = layer(x_BCHW)
        return torch.tanh(x_BCHW)


class ResNet(nn.Module):
    """Johnson's network of residual blocks: [B, C, H, W] → [B, C', H, W] in −1..1.

    A 7x7 convolution, halvings, residual blocks, doublings and a 7x7 convolution. Sides must be
    multiples of `multiple`, 2 to the power of the number of halvings.
    [Johnson 2016, https://arxiv.org/abs/1603.08155]

    Args:
        config: widths of the first convolution and after each halving, number of residual blocks,
            and dropout in the blocks.
        channels_in, channels_out: C and C'.
    """

    def __init__(self, config: TranslatorModelConfig, channels_in: int, channels_out: int):
        super().__init__()
        widths = config.widths
        self.multiple = 2 ** (len(widths) - 1)
        # Distances in input pixels: 7x7 convolutions 3 + 3, a block two pixels of the smallest
        # size, halvings and doublings less than 4 · multiple. Rounded up to a multiple.
        reach = 6 + 2 * self.multiple * (config.residual + 2)
        self.halo = -(-reach // self.multiple) * self.multiple
        """An output pixel depends on input pixels at most this far away."""
        layers: list[nn.Module] = [
            _reflecting(channels_in, widths[0], 7), make_norm(config, widths[0]), nn.ReLU()
        ]  # fmt: skip
        for narrow, wide in pairwise(widths):
            halve = nn.Conv2d(narrow, wide, 3, stride=2, padding=1)
            layers += [halve, make_norm(config, wide), nn.ReLU()]
        layers += [_Residual(config, widths[-1]) for _ in range(config.residual)]
        for wide, narrow in pairwise(reversed(widths)):
            double = nn.ConvTranspose2d(wide, narrow, 3, stride=2, padding=1, output_padding=1)
            layers += [double, make_norm(config, narrow), nn.ReLU()]
        layers += [_reflecting(widths[0], channels_out, 7), nn.Tanh()]
        self.layers = nn.Sequential(*layers)
        self.apply(_initialise)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return the translated images."""
        return self.layers(x_BCHW)


class _Residual(nn.Module):
    """Returns x + f(x), [B, C, H, W]; f has two 3x3 convolutions with norms."""

    def __init__(self, config: TranslatorModelConfig, channels: int):
        super().__init__()
        self.layers = nn.Sequential(
            _reflecting(channels, channels, 3), make_norm(config, channels), nn.ReLU(),
            *dropout_layers(config.dropout),
            _reflecting(channels, channels, 3), make_norm(config, channels),
        )  # fmt: skip

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return x_BCHW + self.layers(x_BCHW)


class PatchDiscriminator(nn.Module):
    """Classifies overlapping patches of images: [B, C, H, W] → logits [B, 1, h, w].

    n convolutions of stride 2 and two of stride 1, all 4x4, with leaky ReLUs and, except in the
    first and the last layer, norms. A logit depends on a square patch of `patch` pixels: 16, 34, 70
    or 142 for n = 1 to 4.

    Args:
        config: the width of the first layer, which doubles at each layer up to eightfold, and n.
        channels: C; for pix2pix, of the input and the output together.
    """

    def __init__(self, config: TranslatorModelConfig, channels: int):
        super().__init__()
        count = config.discriminator_layers
        widths = [config.discriminator_width * min(2**depth, 8) for depth in range(count + 1)]
        layers: list[nn.Module] = []
        self.patch = 4 + 3  # the last two layers
        for depth, (narrow, wide) in enumerate(pairwise((channels, *widths))):
            stride = 2 if depth < count else 1
            layers.append(nn.Conv2d(narrow, wide, 4, stride=stride, padding=1))
            if depth:
                layers.append(make_norm(config, wide))
            layers.append(nn.LeakyReLU(0.2))
        layers.append(nn.Conv2d(widths[-1], 1, 4, padding=1))
        for _ in range(count):
            self.patch = 2 * self.patch + 2
        self.layers = nn.Sequential(*layers)
        self.apply(_initialise)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return a logit for each patch."""
        return self.layers(x_BCHW)


def make_generator(
    config: TranslatorModelConfig, channels_in: int, channels_out: int
) -> UNet | ResNet:
    """Return the generator of the configured kind, with random weights."""
    kind = UNet if config.network == "unet" else ResNet
    return kind(config, channels_in, channels_out)


def _reflecting(channels_in: int, channels_out: int, kernel: int) -> nn.Conv2d:
    """Return a convolution with reflection padding, because zeros would cause a visible border."""
    return nn.Conv2d(channels_in, channels_out, kernel, padding=kernel // 2, padding_mode="reflect")


def _initialise(module: nn.Module) -> None:
    """Draw weights from N(0, 0.02²) and factors of norms from N(1, 0.02²); biases are 0."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, std=0.02)
    elif isinstance(module, Norm | nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
    else:
        return
    assert module.bias is not None
    nn.init.zeros_(module.bias)
