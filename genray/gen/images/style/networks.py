"""Networks that style a picture in one forward pass: with one fixed style, or with any style.

    TransformerNet   [Johnson 2016, arXiv:1603.08155; instance norm: Ulyanov 2017, arXiv:1607.08022]
    AdaINNet         [Huang 2017, https://arxiv.org/abs/1703.06868]

Both take pictures of any size up to `max_side`; pictures are float32 in 0..1.
Shapes: B batch, C channels, H height, W width.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genray.errors import require
from genray.gen.images.colours import power
from genray.gen.images.features import ConvStack, build_stack
from genray.gen.images.style.losses import adain
from genray.gen.images.style.optimise import normalised, resize

MAX_SIDE = 2048
"""Longest side of a picture for a style model, in pixels. Measured for 2048x2048 with the CPU
presets' widths: style_fast needs 1.9 GiB more memory and 10 s of one core, style_any 2.0 GiB and
16 s.
"""
LEAST_SIDE = 8
"""Shortest side in pixels: reflection padding at a quarter of the size needs two pixels."""


@dataclass(frozen=True, kw_only=True)
class StyleNetConfig:
    """Widths and depths of both networks."""

    widths: tuple[int, ...] = (16, 32, 64)
    """Channels at full, half and quarter size (the paper: 32 64 128); for style_any, channels of
    the decoder.
    """
    residual: int = 5
    """Number of residual blocks at the smallest size; Huang's decoder has none."""
    kernel: int = 9
    """style_fast: side of the first and last kernels; odd."""
    modulated: bool = False
    """style_fast: scale and shift each instance norm's output by functions of the content's mean
    colours and contrast, which instance norm removes.
    """
    encoder_layer: str = "conv4"
    """style_any: the layer of the features whose statistics are replaced; a deeper layer gives
    larger strokes and less detail of the content.
    """

    def validate(self) -> None:
        shown = " ".join(map(str, self.widths)) or "(none)"
        require(
            2 <= len(self.widths) <= 5 and min(self.widths) >= 1,
            f"--widths {shown}: 2 to 5 numbers of channels ≥ 1, e.g. 16 32 64",
        )
        require(0 <= self.residual <= 20, f"--residual {self.residual}: must lie in 0..20, e.g. 5")
        require(
            self.kernel % 2 == 1 and 3 <= self.kernel <= 9,
            f"--kernel {self.kernel}: must be odd, 3..9 (the paper: 9)",
        )


def conv(channels_in: int, channels_out: int, kernel: int = 3, stride: int = 1) -> nn.Conv2d:
    """Return a convolution with reflection padding; zeros would give pictures a visible border."""
    return nn.Conv2d(
        channels_in, channels_out, kernel, stride, padding=kernel // 2, padding_mode="reflect"
    )


def padded(x_BCHW: Tensor, multiple: int) -> Tensor:
    """Pad by reflection at the right and bottom, so that `multiple` divides both sides."""
    down, right = -x_BCHW.shape[-2] % multiple, -x_BCHW.shape[-1] % multiple
    return F.pad(x_BCHW, (0, right, 0, down), mode="reflect") if down or right else x_BCHW


def check_picture(what: str, x_1CHW: Tensor, max_side: int) -> None:
    """Raise ConfigError unless the tensor is one RGB picture with sides from 8 to `max_side`."""
    require(
        x_1CHW.ndim == 4 and x_1CHW.shape[:2] == (1, 3),
        f"{what}: a tensor of shape {tuple(x_1CHW.shape)}; give one RGB picture, [1, 3, H, W]",
    )
    height, width = x_1CHW.shape[-2:]
    require(
        min(height, width) >= LEAST_SIDE and max(height, width) <= max_side,
        f"{what}: {width}x{height} pixels; a style model takes sides of {LEAST_SIDE} to "
        f"{max_side}: scale it with --size",
    )


class Residual(nn.Module):
    """Residual block: x plus two 3x3 convolutions, each with instance norm if `norm`.

    There is no ReLU after the sum. [Gross 2016]
    """

    def __init__(self, channels: int, norm: bool = True):
        super().__init__()
        layers: list[nn.Module] = [conv(channels, channels), nn.ReLU(), conv(channels, channels)]
        if norm:
            layers = [
                layers[0], nn.InstanceNorm2d(channels, affine=True), layers[1],
                layers[2], nn.InstanceNorm2d(channels, affine=True),
            ]  # fmt: skip
        self.layers = nn.Sequential(*layers)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return x_BCHW + self.layers(x_BCHW)


class Modulation(nn.Module):
    """Predicts a factor and a shift for the output of each instance norm, from a picture's colours.

    Input: [B, 3, H, W] in 0..1, of which only each colour's mean and deviation are used. Output:
    for each number C in `channels`, two tensors [B, C, 1, 1], 1 and 0 before training. The right
    strength of a style depends on the picture's contrast.
    [conditional instance norm, for styles: Dumoulin 2017, https://arxiv.org/abs/1610.07629; FiLM:
    Perez 2018, https://arxiv.org/abs/1709.07871]
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
        mean_B3, std_B3 = x_BCHW.mean((2, 3)), x_BCHW.std((2, 3)).clamp(min=1e-3)
        # Normalises the inputs: photographs have means of about 1/2, deviations of about e^-1.5.
        found = self.layers(torch.cat([4 * (mean_B3 - 0.5), std_B3.log() + 1.5], 1))[
            ..., None, None
        ]
        parts = found.split(self.channels, dim=1)
        return [(1 + factor, shift) for factor, shift in zip(parts[::2], parts[1::2])]


def through(
    layers: Iterable[nn.Module], x_BCHW: Tensor, changes: Iterator[tuple[Tensor, Tensor]]
) -> Tensor:
    """Apply `layers` in order. After each instance norm, apply the next factor and shift of
    `changes`, if any are left.
    """
    for layer in layers:
        if isinstance(layer, Residual):
            x_BCHW = x_BCHW + through(layer.layers, x_BCHW, changes)
            continue
        x_BCHW = layer(x_BCHW)
        change = next(changes, None) if isinstance(layer, nn.InstanceNorm2d) else None
        if change is not None:
            x_BCHW = torch.addcmul(change[1], x_BCHW, change[0])
    return x_BCHW


class TransformerNet(nn.Module):
    """Johnson's image transformation network: styles float32 [B, 3, H, W] in 0..1 with one style.

    Departures: instance norm instead of batch norm; nearest-neighbour upsampling before a
    convolution instead of a transposed convolution, which causes checkerboards [Odena 2016,
    https://doi.org/10.23915/distill.00003]; reflection padding at each convolution, so that
    residual blocks keep the size; a sigmoid output.
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
            through(self.layers, 2 * x_BCHW - 1, changes) + through(self.skip, x_BCHW, changes)
        )

    @torch.no_grad()
    def begin_with(self, style_1CHW: Tensor) -> None:
        """Initialise the network as a transfer of the style's mean colour and colour covariance.

        With this start, a few hundred steps suffice. Otherwise training spends most steps on
        learning the colours.
        """
        colours_3N = style_1CHW.transpose(0, 1).flatten(1).double()
        mean_3 = colours_3N.mean(1).clamp(0.05, 0.95)
        # A photograph's normalised channels have correlations of about 0.85.
        photograph_33 = torch.full((3, 3), 0.85, dtype=torch.float64).fill_diagonal_(1.0)
        wanted_33 = torch.cov(colours_3N) + 1e-4 * torch.eye(3, dtype=torch.float64)
        change_33 = power(wanted_33, 0.5) @ power(photograph_33, -0.5)
        bend_3 = mean_3 * (1 - mean_3)  # the sigmoid's slope there
        mix = self.skip[1]
        assert isinstance(mix, nn.Conv2d) and mix.bias is not None
        mix.weight.copy_((change_33 / bend_3[:, None])[..., None, None])
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

        `alpha`: share of the styled pixels; the rest are the content's. Raises ConfigError for
        style pictures (the model has its own style) or an unsupported size.
        """
        require(
            not styles and not weights,
            "a style_fast model holds its one style: leave the style pictures out",
        )
        check_alpha(alpha)
        check_picture("content", content_1CHW, self.max_side)
        height, width = content_1CHW.shape[-2:]
        styled = self(padded(content_1CHW, self.multiple))[..., :height, :width]
        return styled if alpha == 1 else content_1CHW + alpha * (styled - content_1CHW)


class Decoder(nn.Module):
    """Decodes activations of the encoder's layer to pixels, with the encoder's layers in reverse.

    There is no normalisation: instance or batch norm would give all pictures a common style.
    [Huang 2017, section 7.1]
    """

    def __init__(self, channels: int, config: StyleNetConfig):
        super().__init__()
        widths = config.widths
        layers: list[nn.Module] = [conv(channels, widths[-1]), nn.ReLU()]
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
        # The output starts as grey, in the middle of the sigmoid, because gradients almost vanish
        # at the sigmoid's ends.
        with torch.no_grad():
            last.weight.mul_(0.1)
            last.bias.zero_()  # type: ignore[union-attr]
        self.layers = nn.Sequential(*layers, last)

    def forward(self, f_BCHW: Tensor) -> Tensor:
        return torch.sigmoid(self.layers(f_BCHW))


class AdaINNet(nn.Module):
    """Styles a picture with any style in one pass: a fixed encoder, adaptive instance
    normalisation (AdaIN), and a trained decoder.

    The encoder's weights and calibration are part of the model. `style_side`: the shorter side of
    style pictures in training, in pixels. Departures: a sigmoid output; `untrained` features use a
    shallower layer than VGG's relu4_1, because a deep layer with random weights cannot be decoded.
    """

    def __init__(
        self,
        config: StyleNetConfig,
        encoder: ConvStack,
        style_side: int,
        about: dict[str, Any] | None = None,
    ):
        super().__init__()
        encoder.check_layers([config.encoder_layer], "--encoder-layer")
        scales = poolings_before(encoder, config.encoder_layer)
        require(
            scales >= 1,
            f"--encoder-layer {config.encoder_layer}: too shallow to restyle; use e.g. "
            f"{encoder.layers[-1]}",
        )
        require(
            len(config.widths) == scales + 1,
            f"--widths {' '.join(map(str, config.widths))}: {config.encoder_layer} lies {scales} "
            "poolings deep; give "
            f"{scales + 1} widths",
        )
        self.config, self.about = config, about or {}
        self.style_side, self.max_side, self.multiple = style_side, MAX_SIDE, 2**scales
        self.encoder = encoder
        self.decoder = Decoder(encoder.width_of(config.encoder_layer), config)

    def encode_picture(self, x_BCHW: Tensor) -> Tensor:
        """Return the activations of the encoder's layer."""
        layer = self.config.encoder_layer
        return self.encoder(x_BCHW, [layer])[layer]

    def restyled(
        self, content_BCHW: Tensor, styles: Sequence[Tensor], weights: Sequence[float], alpha: float
    ) -> Tensor:
        """Return the content's activations with the styles' statistics, mixed by `weights`.

        `alpha` 0 returns the content's activations unchanged.
        """
        mixed = sum(
            (weight * adain(content_BCHW, style) for weight, style in zip(weights, styles)),
            start=torch.zeros_like(content_BCHW),
        )
        return alpha * mixed + (1 - alpha) * content_BCHW

    def forward(self, content_BCHW: Tensor, style_BCHW: Tensor) -> Tensor:
        """Each content in its style; sides must be multiples of `multiple`."""
        return self.decoder(
            adain(self.encode_picture(content_BCHW), self.encode_picture(style_BCHW))
        )

    @torch.no_grad()
    def stylize(
        self,
        content_1CHW: Tensor,
        styles: Sequence[Tensor] = (),
        *,
        weights: Sequence[float] = (),
        alpha: float = 1.0,
    ) -> Tensor:
        """Return the content in the styles, mixed by `weights` (default: equal); [1, 3, H, W] in
        0..1.

        `alpha`: 0 decodes the content unchanged, 1 applies the full style. Styles larger than in
        training are scaled down. Raises ConfigError for wrong weights, `alpha` or sizes.
        """
        require(
            len(styles) >= 1,
            "a style_any model has no style of its own: name one or more style pictures",
        )
        check_alpha(alpha)
        mix = normalised(weights, len(styles))
        check_picture("content", content_1CHW, self.max_side)
        for number, style in enumerate(styles, 1):
            check_picture(f"style {number}", style, 8 * self.max_side)
        height, width = content_1CHW.shape[-2:]
        codes = [
            self.encode_picture(padded(self.at_training_size(style), self.multiple))
            for style in styles
        ]
        content = self.encode_picture(padded(content_1CHW, self.multiple))
        return self.decoder(self.restyled(content, codes, mix, alpha))[..., :height, :width]

    def at_training_size(self, style_1CHW: Tensor) -> Tensor:
        """Scale a style so that its shorter side is at most `style_side`, as in training."""
        height, width = style_1CHW.shape[-2:]
        if min(height, width) <= self.style_side:
            return style_1CHW
        scale = self.style_side / min(height, width)
        return resize(style_1CHW, round(height * scale), round(width * scale)).clamp(0, 1)


def poolings_before(stack: ConvStack, layer: str) -> int:
    """Return the number of poolings before `layer`; each halves the picture's sides."""
    convolutions, poolings = stack.layers.index(layer) + 1, 0
    for count in stack.counts:
        if convolutions <= count:
            break
        convolutions, poolings = convolutions - count, poolings + 1
    return poolings


def stack_up_to(stack: ConvStack, layer: str) -> ConvStack:
    """Return a copy of the stack that ends with `layer`, as part of a style model."""
    stack.check_layers([layer], "--encoder-layer")
    layers = stack.layers[: stack.layers.index(layer) + 1]
    blocks = poolings_before(stack, layer) + 1
    counts = [*stack.counts[: blocks - 1], len(layers) - sum(stack.counts[: blocks - 1])]
    config = stack.config() | {"layers": layers, "counts": counts, "widths": stack.widths[:blocks]}
    config |= {
        name: [each for each in config[name] if each in layers]
        for name in ("style_layers", "content_layers")
    }
    short = build_stack(config)
    kept = short.state_dict().keys()
    short.load_state_dict(
        {name: value.clone() for name, value in stack.state_dict().items() if name in kept}
    )
    return short


def check_alpha(alpha: float) -> None:
    require(0 <= alpha <= 1, f"--alpha {alpha:g}: must lie in 0..1 (1: the whole style)")


# -- the model store -------------------------------------------------------------------------------


def net_config(config: dict[str, Any]) -> StyleNetConfig:
    """Return the configuration that a model's config.json contains."""
    # Old models lack newer options, which then have their defaults.
    values = {name: config[name] for name in StyleNetConfig.__dataclass_fields__ if name in config}
    return StyleNetConfig(**{**values, "widths": tuple(config["widths"])})


def build_style_fast(config: dict[str, Any]) -> TransformerNet:
    """Build a model of kind "style_fast" from its config, for the model store."""
    return TransformerNet(net_config(config), config["about"])


def build_style_any(config: dict[str, Any]) -> AdaINNet:
    """Build a model of kind "style_any" from its config, for the model store."""
    return AdaINNet(
        net_config(config),
        build_stack(config["encoder"]),
        int(config["style_side"]),
        config["about"],
    )
