"""Networks that style a picture in one pass: one style for each network (Johnson), or any style
at all (AdaIN).

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
"""Longest side that a style model takes, pixels. 2048x2048 at the CPU presets' widths, measured:
1.9 GiB more memory and 10 s of one core for style_fast, 2.0 GiB and 16 s for style_any.
"""
LEAST_SIDE = 8
"""Shortest side: reflection at a quarter of the size needs two pixels."""


@dataclass(frozen=True, kw_only=True)
class StyleNetConfig:
    """Widths and depths of both networks."""

    widths: tuple[int, ...] = (16, 32, 64)
    """Channels at full, half and quarter size; the paper's are 32 64 128. For style_any: of the
    decoder, likewise.
    """
    residual: int = 5
    """Residual blocks at the smallest size; Huang's decoder has none."""
    kernel: int = 9
    """Side of the first and last kernels of style_fast; odd."""
    modulated: bool = False
    """style_fast: let the content's mean colours and contrast, which instance norms take away,
    change what follows them.
    """
    encoder_layer: str = "conv4"
    """style_any: the layer of the features that is restyled; a deeper one has larger strokes and
    coarser contents.
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
    """With reflected edges: zeros would draw a frame around every picture."""
    return nn.Conv2d(
        channels_in, channels_out, kernel, stride, padding=kernel // 2, padding_mode="reflect"
    )


def padded(x_BCHW: Tensor, multiple: int) -> Tensor:
    """Reflected to the right and below until `multiple` divides both sides."""
    down, right = -x_BCHW.shape[-2] % multiple, -x_BCHW.shape[-1] % multiple
    return F.pad(x_BCHW, (0, right, 0, down), mode="reflect") if down or right else x_BCHW


def check_picture(what: str, x_1CHW: Tensor, max_side: int) -> None:
    """Raises ConfigError unless it is one RGB picture of a size that the models take."""
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
    """x + two 3x3 convolutions, each under instance norm where asked; no ReLU after the sum.
    [Gross 2016]
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
    """From the mean and deviation of each colour of a picture, [B, 3, H, W] in 0..1, a factor
    and a shift for each of `channels`: two [B, C, 1, 1] apiece, 1 and 0 before training.

    How strong a style suits a picture depends on its contrast. [conditional instance norm, there
    for styles: Dumoulin 2017, https://arxiv.org/abs/1610.07629; FiLM: Perez 2018,
    https://arxiv.org/abs/1709.07871]
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
        # Photographs' means lie about 1/2, their deviations about e^-1.5.
        found = self.layers(torch.cat([4 * (mean_B3 - 0.5), std_B3.log() + 1.5], 1))[
            ..., None, None
        ]
        parts = found.split(self.channels, dim=1)
        return [(1 + factor, shift) for factor, shift in zip(parts[::2], parts[1::2])]


def through(
    layers: Iterable[nn.Module], x_BCHW: Tensor, changes: Iterator[tuple[Tensor, Tensor]]
) -> Tensor:
    """`layers` one after the other, with the next factor and shift after each instance norm, as
    long as there are any.
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
    """Johnson's image transformation network: float32 [B, 3, H, W] in 0..1 to the same, in the
    one style it has learnt.

    Departures: instance norm, not batch norm; nearest-neighbour upsampling before a convolution,
    not a transposed convolution, against checkerboards [Odena 2016,
    https://doi.org/10.23915/distill.00003]; reflection at each convolution, so residual blocks
    keep their size; a sigmoid at the end.
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
        """Sides must be multiples of `multiple`."""
        changes = iter(() if self.modulation is None else self.modulation(x_BCHW))
        return torch.sigmoid(
            through(self.layers, 2 * x_BCHW - 1, changes) + through(self.skip, x_BCHW, changes)
        )

    @torch.no_grad()
    def begin_with(self, style_1CHW: Tensor) -> None:
        """Make the untrained network a transfer of colours: contents in the style's mean colour
        and colour covariance.

        A few hundred steps suffice from there; without it most of them are spent on finding the
        colours.
        """
        colours_3N = style_1CHW.transpose(0, 1).flatten(1).double()
        mean_3 = colours_3N.mean(1).clamp(0.05, 0.95)
        # A photograph's normalised channels are nearly grey: 0.85 is about how much they go
        # together.
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
        """The content in the learnt style, [1, 3, H, W] in 0..1; alpha < 1 blends it with the
        content's own pixels.

        Raises ConfigError for a style picture (there is one style inside) or a size that it does
        not take.
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
    """Activations of the encoder's layer back to pixels, about the encoder's mirror image;
    without any norm.

    Instance or batch norm would force a common style on all pictures.  [Huang 2017, section 7.1]
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
        # begins in the middle of the sigmoid, as grey: from its ends there is hardly a way back
        with torch.no_grad():
            last.weight.mul_(0.1)
            last.bias.zero_()  # type: ignore[union-attr]
        self.layers = nn.Sequential(*layers, last)

    def forward(self, f_BCHW: Tensor) -> Tensor:
        return torch.sigmoid(self.layers(f_BCHW))


class AdaINNet(nn.Module):
    """A fixed encoder, adaptive instance normalisation, a trained decoder: any style in one pass.

    The encoder's weights and calibration are part of the model. Departures: a sigmoid at the
    end; where the features are `untrained`, the layer lies shallower than VGG's relu4_1, since a
    random deep layer cannot be decoded.
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
        """The encoder layer's activations."""
        layer = self.config.encoder_layer
        return self.encoder(x_BCHW, [layer])[layer]

    def restyled(
        self, content_BCHW: Tensor, styles: Sequence[Tensor], weights: Sequence[float], alpha: float
    ) -> Tensor:
        """Activations of the content with the statistics of each style, mixed by `weights`;
        alpha 0 leaves them.
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
        """The content in the styles, mixed by `weights` (equal without any), [1, 3, H, W] in 0..1.

        alpha: 0 is what the decoder makes of the content itself, 1 the whole style. Styles of
        any size, brought to the size of the style pictures in training when they are larger.
        Raises ConfigError for what makes no sense.
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
        """A style scaled so that its shorter side is at most `style_side`: strokes as large as
        in training.
        """
        height, width = style_1CHW.shape[-2:]
        if min(height, width) <= self.style_side:
            return style_1CHW
        scale = self.style_side / min(height, width)
        return resize(style_1CHW, round(height * scale), round(width * scale)).clamp(0, 1)


def poolings_before(stack: ConvStack, layer: str) -> int:
    """How often the picture has been halved where `layer` looks at it."""
    convolutions, poolings = stack.layers.index(layer) + 1, 0
    for count in stack.counts:
        if convolutions <= count:
            break
        convolutions, poolings = convolutions - count, poolings + 1
    return poolings


def stack_up_to(stack: ConvStack, layer: str) -> ConvStack:
    """A copy of the stack that ends with `layer`: what a style model needs of it."""
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
    """From a model's config.json."""
    # A model of before an option was there has none of it.
    values = {name: config[name] for name in StyleNetConfig.__dataclass_fields__ if name in config}
    return StyleNetConfig(**{**values, "widths": tuple(config["widths"])})


def build_style_fast(config: dict[str, Any]) -> TransformerNet:
    """The model store's builder for kind "style_fast"."""
    return TransformerNet(net_config(config), config["about"])


def build_style_any(config: dict[str, Any]) -> AdaINNet:
    """The model store's builder for kind "style_any"."""
    return AdaINNet(
        net_config(config),
        build_stack(config["encoder"]),
        int(config["style_side"]),
        config["about"],
    )
