"""Configuration of style transfer by optimisation, and the weights of several styles."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from genray.bounds import bounded, check_bounds
from genray.errors import require
from genray.paths import FeaturesName


@dataclass(frozen=True, kw_only=True)
class StyleConfig:
    """Configuration of style transfer by optimisation."""

    size: int = bounded(256, min=16, max=2048, note="pixels", example=256)
    """Longest side of the result, in pixels."""
    scales: int = bounded(3, min=1, max=6, example=3)
    """Number of sizes at which the picture is optimised, each half the next; small sizes create the
    large strokes.
    """
    steps: int = bounded(100, min=1, example=100)
    """Steps of the optimizer at each scale."""
    optimizer: Literal["lbfgs", "adam"] = "lbfgs"
    """Optimizer of the pixels; L-BFGS needs fewer steps than Adam."""
    learning_rate: float = bounded(0.03, above=0, below=math.inf, example=0.03)
    """Learning rate of Adam."""
    weights: tuple[float, ...] = ()
    """Weights of the styles, in their order (default: equal). Only proportions matter."""
    content_weight: float | None = bounded(None, min=0, below=math.inf, example=0.3)
    """Weight of the content loss, relative to the style loss; a larger weight keeps more of the
    content. None: 0.3 for lite0, 0.15 for other features.
    """
    tv: float = bounded(4.0, min=0, below=math.inf)
    """Weight of the total variation; a larger weight gives a smoother picture."""
    box: float = bounded(100.0, min=0, below=math.inf)
    """Weight of the penalty on values outside 0..1."""
    style_scale: float = bounded(1.0, min=0.1, max=4, example=1)
    """Size of the style picture relative to the result; a larger size gives larger strokes."""
    style_layers: tuple[str, ...] = ()
    """Layers of the style loss; empty: the features' default."""
    content_layers: tuple[str, ...] = ()
    """Layers of the content loss; empty: the features' default."""
    recolour: bool = True
    """Before the optimisation, give the content the style's mean and covariance of colours, which
    makes the optimisation easier and keeps light areas light.
    """
    centred: bool = True
    """Compare Gram matrices of activations minus the style's means, so that texture has more
    weight relative to colour.
    """
    start: Literal["content", "noise"] = "content"
    """Initial picture: the content, or noise."""
    keep_colours: bool = False
    """Combine the luminance of the result with the colours of the content."""
    features: FeaturesName = "auto"
    """Feature extractor: auto (vgg19 if its file is cached, else lite0), vgg19, lite0, untrained,
    or model:PATH of a classifier.
    """
    seed: int = 0
    """Seed of the noise of `start`, and of untrained features."""

    def validate(self, styles: int | None = None) -> None:
        """Raise ConfigError for invalid options.

        `styles`: the number of styles, for which the weights are checked; None: the weights are not
        checked.
        """
        check_bounds(self)
        require(
            self.optimizer in ("lbfgs", "adam"), f"--optimizer {self.optimizer}: use lbfgs or adam"
        )
        require(self.start in ("content", "noise"), f"--start {self.start}: use content or noise")
        if styles is not None:
            normalise_weights(self.weights, styles)


def normalise_weights(weights: Sequence[float], styles: int) -> tuple[float, ...]:
    """Scale the styles' weights to sum 1; no weights: equal weights.

    Raises ConfigError for a wrong number of weights, for weights that are negative or not finite,
    or for a sum of 0.
    """
    shown = " ".join(f"{weight:g}" for weight in weights)
    require(styles >= 1, "style: name one or more style pictures")
    require(
        len(weights) in (0, styles),
        f"--weights {shown}: {len(weights)} weights for {styles} styles; give one for each",
    )
    weights = weights or (1.0,) * styles
    usable = (
        all(math.isfinite(weight) and weight >= 0 for weight in weights)
        and 0 < sum(weights) < math.inf
    )
    require(
        usable, f"--weights {shown}: must be ≥ 0 and not all 0, e.g. {' '.join(['1'] * styles)}"
    )
    return tuple(weight / sum(weights) for weight in weights)
