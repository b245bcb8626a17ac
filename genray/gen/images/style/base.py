"""What the trainings of all style networks share: options, features, batches of judged pictures.

Shapes: B batch, C channels, H height, W width. Pictures are float32 in 0..1.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from genray.errors import require
from genray.gen.data.config import DataConfig
from genray.gen.data.types import Data, Split, need_images
from genray.gen.images.features import Features, open_features
from genray.gen.images.style.networks import MAX_SIDE, StyleNetConfig
from genray.gen.images.style.optimise import resize
from genray.gen.images.style.sources import check_style, check_styles
from genray.gen.training.fit import FitConfig, Task
from genray.gen.training.optimizers import OptimizerConfig, Updater
from genray.gen.training.world import ALONE, World
from genray.paths import FeaturesName, StyleName, StylesName

CALIBRATION = 16
"""Training pictures that untrained features are calibrated on, beside the styles."""
JUDGED = 96
"""Held-out pictures that a look is at, at most."""


@dataclass(frozen=True, kw_only=True)
class StyleTrainConfig:
    """A feed-forward style model: `style_fast` learns one style, `style_any` any."""

    data: DataConfig = field(default_factory=lambda: DataConfig(data="photos", size=96))
    fit: FitConfig = field(default_factory=FitConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    model: StyleNetConfig = field(default_factory=StyleNetConfig)
    method: Literal["style_fast", "style_any"] = "style_fast"
    style: StyleName = "pattern:7"
    """style_fast: the picture whose style is learnt, a JPEG, PNG or WebP, or pattern:SEED of our
    own.
    """
    styles: StylesName = "patterns"
    """style_any: what it learns from, our own patterns or folder:PATH of paintings."""
    num_styles: int = 120
    """style_any: how many patterns."""
    style_size: int = 0
    """Longest side of the style pictures in training, pixels: larger gives larger strokes. 0: as
    --size.
    """
    features: FeaturesName = "auto"
    """auto (vgg19 if its file is at hand, else untrained), untrained, vgg19, or (style_fast)
    model:PATH.
    """
    style_layers: tuple[str, ...] = ()
    """Where styles are compared; the features' own choice without any."""
    content_layers: tuple[str, ...] = ()
    """style_fast: where contents are compared."""
    content_weight: float = 0.3
    """Against a style weight of 1: larger keeps more of the content. Optimisation's default is
    0.15; a network that has seen few steps needs more of it.
    """
    tv: float = 5.0
    """Weight of the total variation: larger is smoother."""
    statistics: Literal["moments", "gram"] = "moments"
    """style_any: what the style loss compares, each channel's mean and deviation (the paper) or
    Gram matrices.
    """
    identity_weight: float = 1.0
    """style_any: of the decoder's error on contents and styles left as they are, so that --alpha
    0 gives them back; not in the paper.
    """

    def validate(self) -> None:
        for part in (self.data, self.fit, self.optimizer, self.model):
            part.validate()
        if self.method == "style_fast":
            check_style(self.style)
        else:
            check_styles(self.styles, self.num_styles)
        for name in ("content_weight", "tv", "identity_weight"):
            value = getattr(self, name)
            require(0 <= value < 1e9, f"--{name.replace('_', '-')} {value:g}: must be ≥ 0")
        require(not self.data.grey, "--grey: styles are about colours; leave it out")
        require(
            self.style_size == 0 or 16 <= self.style_size <= 1024,
            f"--style-size {self.style_size}: must lie in 16..1024 pixels, or 0 for as --size",
        )


class StyleTask(Task):
    """What both methods share: features, batches of judged pictures, the model's description."""

    shown: Sequence[str] = ("loss", "style", "content")
    config: StyleTrainConfig

    def __init__(
        self, config: StyleTrainConfig, world: World = ALONE, device: torch.device | str = "cpu"
    ):
        config.validate()
        super().__init__(world, device, config.fit.amp)
        self.config = config

    @property
    def model(self) -> Any:
        return self.networks["model"]

    @property
    def features(self) -> Features:
        return cast(Features, self.networks["features"])

    def open_features(self, data: Data, styles: Sequence[Tensor]) -> None:
        """Calibrated on the styles and a few training pictures; kept with the checkpoint, so
        that resuming is exact.
        """
        shape = data.shape
        need_images(data, "a style", self.multiple)
        require(
            shape[0] == 3,
            f"--data {data.name}: {shape[0]} channel; styles are about colours, so give RGB "
            "pictures",
        )
        rows = (
            torch.linspace(0, len(data.train) - 1, min(CALIBRATION, len(data.train))).round().long()
        )
        contents = data.train.take(rows.to(data.train.values.device))[0].cpu()
        features = open_features(
            self.config.features, seed=self.config.fit.seed, calibrate=[*styles, contents]
        )
        for option, layers in (
            ("style", self.config.style_layers),
            ("content", self.config.content_layers),
        ):
            features.check_layers(layers, f"--{option}-layers")
        require(
            shape[1] >= features.min_side,
            f"--size {shape[1]}: {features.name} needs pictures of at least {features.min_side} "
            "pixels",
        )
        self.style_layers = self.config.style_layers or features.style_layers
        self.content_layers = self.config.content_layers or features.content_layers
        self.layers = tuple(dict.fromkeys((*self.style_layers, *self.content_layers)))
        self.networks["features"] = features.to(self.device)

    @property
    def multiple(self) -> int:
        """What the model needs to divide the training pictures' sides."""
        return 2 ** (len(self.config.model.widths) - 1)

    def look(self, x_BCHW: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        """Activations, in float32: Gram matrices of half precision lose the loss."""
        with self.autocast():
            found = self.features(x_BCHW, layers)
        return {layer: f_BCHW.float() for layer, f_BCHW in found.items()}

    def updater(self, parameters, total_updates: int) -> Updater:
        fit = self.config.fit
        return Updater(
            parameters,
            self.config.optimizer,
            total_updates=total_updates,
            accumulate=fit.accumulate,
            amp=fit.amp,
            world=self.world,
        )

    def averaged(self, split: Split, figures) -> dict[str, float]:
        """The mean of `figures(x_BCHW, rows)` over the first `JUDGED` rows, each picture by
        itself.
        """
        count = min(JUDGED, len(split))
        sums: dict[str, float] = {}
        for row in range(count):
            x_1CHW = split.take(torch.tensor([row], device=split.values.device))[0].to(self.device)
            for name, value in figures(x_1CHW, row).items():
                sums[name] = sums.get(name, 0.0) + float(value)
        return {name: value / count for name, value in sums.items()}

    def described(self, **more: Any) -> dict[str, Any]:
        """What both kinds keep in config.json."""
        config = {
            name: getattr(self.config.model, name) for name in StyleNetConfig.__dataclass_fields__
        }
        config["widths"] = list(self.config.model.widths)
        return {
            **config,
            "max_side": MAX_SIDE,
            "about": {"method": self.config.method, **self.features.about, **more},
        }


def squared(x_1CHW: Tensor, side: int) -> Tensor:
    """Scaled to fit into a square of that side, on black."""
    height, width = x_1CHW.shape[-2:]
    scale = side / max(height, width)
    small = resize(x_1CHW, max(1, round(height * scale)), max(1, round(width * scale))).clamp(0, 1)
    return F.pad(small, (0, side - small.shape[-1], 0, side - small.shape[-2]))
