"""Configuration of the style networks: widths, depths, kernels."""

from dataclasses import dataclass
from typing import Any

from genray.bounds import bounded, check_bounds
from genray.errors import require


@dataclass(frozen=True, kw_only=True)
class StyleNetConfig:
    """Widths, depths and kernels of the networks of style_fast, style_any and style_micro."""

    widths: tuple[int, ...] = (16, 32, 64)
    """Channels at full, half and quarter size (the paper: 32 64 128); for style_any, channels of
    the decoder.
    """
    residual: int = bounded(5, min=0, max=20, example=5)
    """Number of residual blocks at the smallest size; the decoder in Huang's paper has none.
    style_micro: of each encoder and of the decoder, as many as stages with signals of the style.
    """
    kernel: int = 9
    """style_fast, style_micro: side of the kernels of the first and last convolution; odd, 3..9."""
    modulated: bool = False
    """style_fast: scale and shift the output of each instance norm by functions of the content's
    mean colours and contrast, because instance norm removes this information.
    """
    encoder_layer: str = ""
    """style_any: the layer of the features whose statistics are replaced; a deeper layer gives
    larger strokes and less detail of the content. Empty: the deepest layer of the size that the
    number of --widths implies.
    """

    skips: bool = False
    """style_any: also replace the statistics of the pixels, and of a shallower layer at each size,
    and give them to the decoder, which then keeps details and needs fewer steps. style_micro: add
    the content's colours, moved to the style's statistics, to the output at a quarter of the size.
    """
    separable: bool = False
    """style_micro: residual blocks of depthwise and 1x1 convolutions, with an eighth of the work.
    """

    def validate(self) -> None:
        """Raise ConfigError for invalid options."""
        shown = " ".join(map(str, self.widths)) or "(none)"
        require(
            2 <= len(self.widths) <= 5 and min(self.widths) >= 1,
            f"--widths {shown}: 2 to 5 numbers of channels ≥ 1, e.g. 16 32 64",
        )
        check_bounds(self)
        require(
            self.kernel % 2 == 1 and 3 <= self.kernel <= 9,
            f"--kernel {self.kernel}: must be odd, 3..9 (the paper: 9)",
        )


def net_config(config: dict[str, Any]) -> StyleNetConfig:
    """Return the configuration that a model's config.json contains."""
    # The config of a model of an older version lacks newer options, which get their defaults.
    values = {name: config[name] for name in StyleNetConfig.__dataclass_fields__ if name in config}
    return StyleNetConfig(**{**values, "widths": tuple(config["widths"])})
