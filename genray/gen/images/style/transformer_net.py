"""Johnson's image transformation network: styles a picture of any size in one forward pass.

The network has one fixed style.
[Johnson 2016, https://arxiv.org/abs/1603.08155; instance norm: Ulyanov 2017,
https://arxiv.org/abs/1607.08022]
Shapes: B batch, C channels, H height, W width. Pictures are float32 in 0..1.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from genray.errors import require
from genray.gen.images.colours import power
from genray.gen.images.style.network_config import StyleNetConfig, net_config
from genray.gen.images.style.network_parts import (
    MAX_SIDE,
    Residual,
    check_alpha,
    check_picture,
    conv,
    pad_to_multiple,
)
from genray.gen.images.style.strips import WHOLE, transformed_in_strips


class Modulation(nn.Module):
    """Predicts a factor and a shift for the output of each instance norm, from a picture's colours.

    Input: [B, 3, H, W] in 0..1, of which only the mean and deviation of red, green and blue are
    used. Output: for each number C in `channels`, a factor and a shift, both [B, C, 1, 1]; they are
    1 and 0 before training. The network needs this input because the right strength of a style
    depends on the picture's contrast.
    [conditional instance norm, for styles: Dumoulin 2017, https://arxiv.org/abs/1610.07629; FiLM:
    Perez 2018, https://arxiv.org/abs/1709.07871]

    Args:
        channels: number of channels of each instance norm, in order.
    """

    HIDDEN = 32

    def __init__(self, channels: Sequence[int]):
        super().__init__()
        self.channels = [each for each in channels for _ in range(2)]
        last = nn.Linear(self.HIDDEN, sum(self.channels))
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.layers = nn.Sequential(nn.Linear(6, self.HIDDEN), nn.ReLU(), last)

    def forward(self, x_BCHW: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Return a factor and a shift for each instance norm."""
        mean_B3, std_B3 = x_BCHW.mean((2, 3)), x_BCHW.std((2, 3)).clamp(min=1e-3)
        # Normalise the inputs; photographs have means of about 1/2 and deviations of about e^-1.5.
        found = self.layers(torch.cat([4 * (mean_B3 - 0.5), std_B3.log() + 1.5], 1))[
            ..., None, None
        ]
        parts = found.split(self.channels, dim=1)
        return [(1 + factor, shift) for factor, shift in zip(parts[::2], parts[1::2])]


def apply_layers(
    layers: Iterable[nn.Module], x_BCHW: Tensor, changes: Iterator[tuple[Tensor, Tensor]]
) -> Tensor:
    """Apply `layers` in order, [B, C, H, W] → [B, C', H', W'].

    After each instance norm, the next factor and shift of `changes` are applied, if any are left.
    """
    for layer in layers:
        if isinstance(layer, Residual):
            x_BCHW = x_BCHW + apply_layers(layer.layers, x_BCHW, changes)
            continue
        x_BCHW = layer(x_BCHW)
        change = next(changes, None) if isinstance(layer, nn.InstanceNorm2d) else None
        if change is not None:
            x_BCHW = torch.addcmul(change[1], x_BCHW, change[0])
    return x_BCHW


class TransformerNet(nn.Module):
    """Johnson's image transformation network: gives pictures [B, 3, H, W] in 0..1 one fixed style.

    Departures from the paper: instance norm instead of batch norm; nearest-neighbour upsampling and
    a convolution, because a transposed convolution causes checkerboards [Odena 2016,
    https://doi.org/10.23915/distill.00003]; reflection padding at each convolution, so that
    residual blocks keep the size; a sigmoid output; a skip connection that maps colours linearly.

    Args:
        config: widths, depth and kernels.
        about: description of the features and the style, for the metadata of results.
    """

    def __init__(self, config: StyleNetConfig, about: dict[str, Any] | None = None):
        super().__init__()
        self.config, self.about = config, about or {}
        self.max_side = MAX_SIDE
        self.multiple = 2 ** (len(config.widths) - 1)
        widths, kernel = config.widths, config.kernel

        def block(
            channels_in: int, channels_out: int, kernel: int = 3, stride: int = 1
        ) -> list[nn.Module]:
            norm = nn.InstanceNorm2d(channels_out, affine=True)
            return [conv(channels_in, channels_out, kernel, stride), norm, nn.ReLU()]

        layers = block(3, widths[0], kernel)
        for narrow, wide in pairwise(widths):
            layers += block(narrow, wide, stride=2)
        layers += [Residual(widths[-1]) for _ in range(config.residual)]
        for wide, narrow in zip(widths[:0:-1], widths[-2::-1]):
            layers += [nn.Upsample(scale_factor=2, mode="nearest"), *block(wide, narrow)]
        layers.append(conv(widths[0], 3, kernel))
        self.layers = nn.Sequential(*layers)
        self.skip = nn.Sequential(nn.InstanceNorm2d(3, eps=1e-3), nn.Conv2d(3, 3, 1))
        self.modulation: Modulation | None = None
        if config.modulated:
            norms = [each for each in self.modules() if isinstance(each, nn.InstanceNorm2d)]
            self.modulation = Modulation([norm.num_features for norm in norms])

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return the styled pictures. Sides of the input must be multiples of `multiple`."""
        changes = iter(() if self.modulation is None else self.modulation(x_BCHW))
        return torch.sigmoid(
            apply_layers(self.layers, 2 * x_BCHW - 1, changes)
            + apply_layers(self.skip, x_BCHW, changes)
        )

    @torch.no_grad()
    def begin_with(self, style_1CHW: Tensor) -> None:
        """Initialise the network as a transfer of the style's mean colour and colour covariance.

        With this start, a few hundred steps suffice. Otherwise training spends most steps on
        learning the colours.
        """
        # Compute the linear map from a typical photograph's colours to the style's colours.
        colours_3N = style_1CHW.transpose(0, 1).flatten(1).double()
        mean_3 = colours_3N.mean(1).clamp(0.05, 0.95)
        # A photograph's normalised channels have correlations of about 0.85.
        photograph_33 = torch.full((3, 3), 0.85, dtype=torch.float64).fill_diagonal_(1.0)
        wanted_33 = torch.cov(colours_3N) + 1e-4 * torch.eye(3, dtype=torch.float64)
        change_33 = power(wanted_33, 0.5) @ power(photograph_33, -0.5)
        slope_3 = mean_3 * (1 - mean_3)  # of the sigmoid, where its value is mean_3
        # The skip connection gets the map; the remaining layers begin with a small output.
        mix = self.skip[1]
        assert isinstance(mix, nn.Conv2d) and mix.bias is not None
        mix.weight.copy_((change_33 / slope_3[:, None])[..., None, None])
        mix.bias.copy_(torch.logit(mean_3))
        last = self.layers[-1]
        assert isinstance(last, nn.Conv2d) and last.bias is not None
        last.weight.mul_(0.1)
        last.bias.zero_()

    @torch.no_grad()
    def stylize(
        self,
        content_1CHW: Tensor,
        styles: Sequence[Tensor] = (),
        *,
        weights: Sequence[float] = (),
        alpha: float = 1.0,
    ) -> Tensor:
        """Return the content in the model's style, [1, 3, H, W] in 0..1.

        Pictures of more than `WHOLE` pixels are processed in strips, with the same result up to
        rounding.
        `alpha`: weight of the styled picture in the mean with the content. Raises ConfigError for
        style pictures or weights (the model has its own style), or an invalid `alpha` or size.
        """
        require(
            not styles and not weights,
            "a style_fast model has one fixed style: leave the style pictures out",
        )
        check_alpha(alpha)
        check_picture("content", content_1CHW, self.max_side)
        height, width = content_1CHW.shape[-2:]
        padded = pad_to_multiple(content_1CHW, self.multiple)
        if height * width <= WHOLE:
            styled = self(padded)
        else:
            changes = iter(() if self.modulation is None else self.modulation(padded))
            styled = transformed_in_strips(self.layers, self.skip, padded, changes)
        styled = styled[..., :height, :width]
        return styled if alpha == 1 else content_1CHW + alpha * (styled - content_1CHW)


def build_style_fast(config: dict[str, Any]) -> TransformerNet:
    """Build a model of kind "style_fast" from its config, for the model store."""
    return TransformerNet(net_config(config), config["about"])
