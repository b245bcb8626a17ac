"""Networks of a GAN: dense and deep convolutional generators and discriminators.

[Goodfellow 2014, https://arxiv.org/abs/1406.2661; DCGAN: Radford 2016,
https://arxiv.org/abs/1511.06434] Shapes: B batch, Z latent, C channels, H height, W width.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from genray.gen.gan.config import GANModelConfig
from genray.gen.generative import GenerativeModel
from genray.gen.layers import SameConv2d, SameConvTranspose2d, dropout_layers


class Generator(GenerativeModel):
    """Maps z [B, Z] to images [B, C, H, W] in −1..1 (tanh).

    Args:
        config: the network's kind, widths and norm.
        shape: (C, H, W) of the images.
    """

    def __init__(self, config: GANModelConfig, shape: Sequence[int]):
        super().__init__(latent=config.latent, prior=config.prior, shape=shape, low=-1.0, high=1.0)
        build = _dense_generator if config.network == "dense" else _convolutional_generator
        self.layers = nn.Sequential(*build(config, self.shape), nn.Tanh())
        self.apply(_initialise if config.network == "conv" else _keep)

    def forward(self, z_BZ: Tensor) -> Tensor:
        return self.layers(z_BZ)

    def generate(self, z_BZ: Tensor) -> Tensor:
        return self.layers(z_BZ).float()


class Discriminator(nn.Module):
    """Maps images [B, C, H, W] to logits [⌈B / pack⌉], one for every `pack` images.

    Args:
        config: the network's kind, widths, norm and `pack`.
        shape: (C, H, W) of the images.
    """

    def __init__(self, config: GANModelConfig, shape: Sequence[int]):
        super().__init__()
        self.pack = config.pack
        build = _dense_discriminator if config.network == "dense" else _convolutional_discriminator
        self.layers = nn.Sequential(*build(config, (shape[0] * config.pack, *shape[1:])))
        self.apply(_initialise if config.network == "conv" else _keep)
        if config.discriminator_norm == "spectral":
            for module in list(self.layers.modules()):
                if isinstance(module, nn.Linear | nn.Conv2d):
                    nn.utils.parametrizations.spectral_norm(module)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.layers(self._packed(x_BCHW)).squeeze(1)

    def _packed(self, x_BCHW: Tensor) -> Tensor:
        if self.pack == 1:
            return x_BCHW
        # Repeat the first images to fill the last pack.
        if len(x_BCHW) % self.pack:
            packs = -(-len(x_BCHW) // self.pack)
            x_BCHW = x_BCHW[torch.arange(packs * self.pack, device=x_BCHW.device) % len(x_BCHW)]
        return x_BCHW.reshape(-1, self.pack * x_BCHW.shape[1], *x_BCHW.shape[2:])


def _dense_generator(config: GANModelConfig, shape: tuple[int, ...]) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for inputs, outputs in zip((config.latent, *config.generator_widths), config.generator_widths):
        layers.append(nn.Linear(inputs, outputs))
        if config.generator_norm == "batch":
            layers.append(nn.BatchNorm1d(outputs))
        layers += [nn.LeakyReLU(config.slope), *dropout_layers(config.generator_dropout)]
    return [
        *layers,
        nn.Linear(config.generator_widths[-1], math.prod(shape)),
        nn.Unflatten(1, shape),
    ]


def _dense_discriminator(config: GANModelConfig, shape: tuple[int, ...]) -> list[nn.Module]:
    layers: list[nn.Module] = [nn.Flatten()]
    widths = config.discriminator_widths
    for depth, (inputs, outputs) in enumerate(zip((math.prod(shape), *widths), widths)):
        layers.append(nn.Linear(inputs, outputs))
        if config.discriminator_norm == "batch" and depth:
            layers.append(nn.BatchNorm1d(outputs))
        layers += [nn.LeakyReLU(config.slope), *dropout_layers(config.discriminator_dropout)]
    return [*layers, nn.Linear(widths[-1], 1)]


def _convolutional_generator(config: GANModelConfig, shape: tuple[int, ...]) -> list[nn.Module]:
    channels, height, width = shape
    widths = config.generator_widths
    inner = (widths[0], height >> len(widths), width >> len(widths))
    layers: list[nn.Module] = [nn.Linear(config.latent, math.prod(inner)), nn.Unflatten(1, inner)]
    for inputs, outputs in zip(widths, (*widths[1:], channels)):
        if config.generator_norm == "batch":
            layers.append(nn.BatchNorm2d(inputs))
        layers += [
            nn.LeakyReLU(config.slope),
            *dropout_layers(config.generator_dropout),
            SameConvTranspose2d(inputs, outputs, config.kernel, stride=2),
        ]
    return layers


def _convolutional_discriminator(config: GANModelConfig, shape: tuple[int, ...]) -> list[nn.Module]:
    channels, height, width = shape
    widths = config.discriminator_widths
    layers: list[nn.Module] = []
    for depth, (inputs, outputs) in enumerate(zip((channels, *widths), widths)):
        layers.append(SameConv2d(inputs, outputs, config.kernel, stride=2))
        if config.discriminator_norm == "batch" and depth:
            layers.append(nn.BatchNorm2d(outputs))
        layers += [nn.LeakyReLU(config.slope), *dropout_layers(config.discriminator_dropout)]
    pixels = (height >> len(widths)) * (width >> len(widths))
    return [*layers, nn.Flatten(), nn.Linear(widths[-1] * pixels, 1)]


def _initialise(module: nn.Module) -> None:
    """Draw weights from N(0, 0.02²) and scales of batch norms from N(1, 0.02²), as in DCGAN.

    Biases are 0.
    """
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
        nn.init.normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)


def _keep(module: nn.Module) -> None:
    """Keep PyTorch's initialisation of dense networks.

    DCGAN's standard deviation of 0.02 is too small for networks without batch norm.
    """


def build_generator(config: dict[str, Any]) -> Generator:
    """Build the generator that a saved model's `config` describes, without its weights.

    The model store calls this function for models of kind "gan".
    """
    values = {name: config[name] for name in GANModelConfig.__dataclass_fields__ if name in config}
    values["generator_widths"] = tuple(values["generator_widths"])
    return Generator(GANModelConfig(**values), config["shape"])
