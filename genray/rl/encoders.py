"""Builds the encoders: the layers of a Q-network between its input and its fully connected layers.

Shapes: B batch, S stack, H height, W width, C channels, F features.

An encoder maps floats [B, S, H, W] to features [B, F].
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from genray.rl.networks import NetworkConfig

DER_CHANNELS = (32, 64)
IMPALA_CHANNELS = (16, 32, 32)
POOLED = 6
"""Height and width after `pooling` "max"."""


def make_encoder(config: NetworkConfig, stack: int) -> nn.Sequential:
    """Return the encoder that `config.encoder` names, which ends with a flattening layer.

    nature: three convolutions [Mnih 2015, https://doi.org/10.1038/nature14236]. der: two, 5x5 with
    stride 5 [van Hasselt 2019, https://arxiv.org/abs/1906.05243]. impala: three stages with two
    residual blocks each, whose channels are multiplied by `impala_width` [Espeholt 2018,
    https://arxiv.org/abs/1802.01561].
    """
    if config.encoder == "der":
        first, second = DER_CHANNELS
        return nn.Sequential(
            nn.Conv2d(stack, first, 5, stride=5), nn.ReLU(),
            nn.Conv2d(first, second, 5, stride=5), nn.ReLU(),
            *_pooling(config), nn.Flatten(),
        )  # fmt: skip
    if config.encoder == "impala":
        widths = [max(1, round(channels * config.impala_width)) for channels in IMPALA_CHANNELS]
        stages = [_stage(*pair) for pair in zip([stack, *widths], widths)]
        return nn.Sequential(*stages, nn.ReLU(), *_pooling(config), nn.Flatten())
    first, second, third = config.channels
    return nn.Sequential(
        nn.Conv2d(stack, first, 8, stride=4), nn.ReLU(),
        nn.Conv2d(first, second, 4, stride=2), nn.ReLU(),
        nn.Conv2d(second, third, 3, stride=1), nn.ReLU(),
        *_pooling(config), nn.Flatten(),
    )  # fmt: skip


def _pooling(config: NetworkConfig) -> list[nn.Module]:
    if config.pooling == "max":
        return [nn.AdaptiveMaxPool2d(POOLED)]
    return [nn.AdaptiveAvgPool2d(1)] if config.pooling == "average" else []


def _stage(channels_in: int, channels: int) -> nn.Sequential:
    """Return a convolution, a pooling layer that halves height and width, and two residual
    blocks.
    """
    return nn.Sequential(
        nn.Conv2d(channels_in, channels, 3, padding=1),
        nn.MaxPool2d(3, stride=2, padding=1),
        Residual(channels),
        Residual(channels),
    )


class Residual(nn.Module):
    """Adds the output of two convolutions to their input, float32 [B, C, H, W]."""

    def __init__(self, channels: int):
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return x_BCHW + self.second(torch.relu(self.first(torch.relu(x_BCHW))))


def normalise_residuals(encoder: nn.Module) -> None:
    """Divide the weights of all residual convolutions by their largest singular value, which one
    power iteration per pass estimates. [Miyato 2018, https://arxiv.org/abs/1802.05957; Gogianu
    2021, https://arxiv.org/abs/2105.05246]

    The weight is a matrix of [outputs, inputs · 9] here, as in the papers.
    """
    for module in encoder.modules():
        if isinstance(module, Residual):
            for convolution in (module.first, module.second):
                nn.utils.parametrizations.spectral_norm(convolution)


def to_floats(frames_BSHW: Tensor) -> Tensor:
    """Convert uint8 frames, 0 to 255, to float32, 0 to 1, with channels last in memory.

    With this memory format, the convolutions' backward pass on a CPU takes 2/3 of the time.
    """
    if frames_BSHW.device.type != "cpu" or torch.compiler.is_exporting():
        return frames_BSHW.to(torch.float32, memory_format=torch.channels_last).mul_(1.0 / 255.0)
    # Copy one frame of the stack at a time: in one call for all frames, PyTorch takes one and a
    # half to two times as long to change type and memory format.
    batch, stack, height, width = frames_BSHW.shape
    floats_BHWS = torch.empty(batch, height, width, stack)
    for index in range(stack):
        floats_BHWS[..., index].copy_(frames_BSHW[:, index])
    return floats_BHWS.mul_(1.0 / 255.0).permute(0, 3, 1, 2)


def he_init(module: nn.Module) -> None:
    """Initialise a convolution or linear layer: weights normal with variance 2/fan_in, biases 0.
    [He 2015, https://arxiv.org/abs/1502.01852]
    """
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
        torch.nn.init.zeros_(module.bias)  # type: ignore[arg-type]
