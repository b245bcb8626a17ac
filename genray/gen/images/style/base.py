"""Defines the options and the base class of the tasks that train style networks.

Shapes: B batch, C channels, H height, W width. Pictures are float32 in 0..1.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from genray.bounds import bounded, check_bounds
from genray.errors import require
from genray.gen.data.config import DataConfig
from genray.gen.data.types import Data, Split, need_images
from genray.gen.images.features import Features, open_features
from genray.gen.images.style.network_config import StyleNetConfig
from genray.gen.images.style.network_parts import MAX_SIDE
from genray.gen.images.style.sizes import resize
from genray.gen.images.style.sources import check_style, check_styles
from genray.gen.images.style.steadiness import disturb
from genray.gen.training.fit import FitConfig, Task
from genray.gen.training.optimizers import OptimizerConfig
from genray.gen.training.updater import Updater
from genray.gen.training.world import ALONE, World
from genray.paths import FeaturesName, StyleName, StylesName

CALIBRATION = 16
"""Largest number of training pictures, and of style pictures, that calibrate untrained features."""
EVALUATED_ROWS = 96
"""Largest number of held-out pictures in one evaluation."""


@dataclass(frozen=True, kw_only=True)
class StyleTrainConfig:
    """Configuration of a style network. `style_fast` learns one style; `style_any` (AdaIN) and
    `style_micro` (MicroAST) learn to apply any style.
    """

    data: DataConfig = field(default_factory=lambda: DataConfig(data="photos", size=96))
    fit: FitConfig = field(default_factory=FitConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    model: StyleNetConfig = field(default_factory=StyleNetConfig)
    method: Literal["style_fast", "style_any", "style_micro"] = "style_fast"
    style: StyleName = "pattern:7"
    """style_fast: the style picture, a JPEG, PNG or WebP file, or pattern:SEED for a procedural
    pattern.
    """
    styles: StylesName = "patterns"
    """style_any, style_micro: the training styles, patterns (procedural) or folder:PATH of
    paintings.
    """
    num_styles: int = 120
    """style_any, style_micro: number of patterns."""
    style_size: int = 0
    """Longest side of the style pictures in training, in pixels; larger gives larger strokes. 0:
    the same as --size.
    """
    features: FeaturesName = "auto"
    """Feature extractor: auto (vgg19 if its file is cached, else lite0), vgg19, lite0, untrained,
    or model:PATH.
    """
    style_layers: tuple[str, ...] = ()
    """Layers of the style loss; empty: the features' default."""
    content_layers: tuple[str, ...] = ()
    """style_fast, style_micro: layers of the content loss; empty: the features' default."""
    content_weight: float | None = bounded(None, min=0, below=math.inf)
    """Weight of the content loss, relative to the style loss; a larger weight keeps more of the
    content. None: 0.1 for lite0, 0.3 for other features.
    """
    tv: float = bounded(5.0, min=0, below=math.inf)
    """Weight of the total variation; larger gives smoother pictures."""
    steadiness: float = bounded(0.0, min=0, below=math.inf, example=0.1)
    """Weight of the change of the result when the content is disturbed by noise, and elsewhere by
    another object; reduces the flicker of clips, and takes some strength from the style.
    """
    statistics: Literal["moments", "gram"] = "moments"
    """style_any, style_micro: statistics in the style loss, moments (each channel's mean and
    deviation, as in the papers) or gram (Gram matrices).
    """
    identity_weight: float = bounded(1.0, min=0, below=math.inf)
    """style_any, style_micro: weight of the decoder's error on unchanged contents and styles, so
    that --alpha 0 reproduces the content; not in the papers.
    """
    contrastive_weight: float = bounded(0.1, min=0, below=math.inf)
    """style_micro: weight of the style signal contrastive loss, which makes the signals of a result
    more like those of its own style than like those of the batch's other styles.
    """

    def validate(self) -> None:
        """Raise ConfigError for invalid options of any part."""
        for part in (self.data, self.fit, self.optimizer, self.model):
            part.validate()
        if self.method == "style_fast":
            check_style(self.style)
        else:
            check_styles(self.styles, self.num_styles)
        check_bounds(self)
        require(not self.data.grey, "--grey: a style needs colours; leave the option out")
        require(
            self.style_size == 0 or 16 <= self.style_size <= 1024,
            f"--style-size {self.style_size}: must lie in 16..1024 pixels, or 0 for the value of "
            "--size",
        )


class StyleTask(Task):
    """Base class of the tasks of style networks.

    The class opens the features, averages evaluations, and describes the model.

    Args:
        config: the configuration of the run.
        world: the workers of the run.
        device: the device of the networks.
    """

    shown: Sequence[str] = ("loss", "style", "content")
    needs_same_rows = False
    config: StyleTrainConfig

    def __init__(
        self, config: StyleTrainConfig, world: World = ALONE, device: torch.device | str = "cpu"
    ):
        config.validate()
        super().__init__(world, device, config.fit.amp)
        self.config = config

    @property
    def model(self) -> Any:
        """The style network in training."""
        return self.networks["model"]

    @property
    def content_weight(self) -> float:
        """The weight of the content loss: the option's value, or the features' default."""
        weight = self.config.content_weight
        return self.features.network_content_weight if weight is None else weight

    @property
    def features(self) -> Features:
        """The feature extractor of the losses."""
        return cast(Features, self.networks["features"])

    def open_features(self, data: Data, styles: Sequence[Tensor]) -> None:
        """Open the feature extractor, calibrated on the styles and a few training pictures.

        Checkpoints contain the features, so that resuming is exact. Raises ConfigError for data
        that do not suit a style, or unknown layers.
        """
        shape = data.shape
        need_images(data, "a style", self.multiple)
        require(
            shape[0] == 3,
            f"--data {data.name}: {shape[0]} channel; a style needs colours, so give RGB pictures",
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
        """The sides of the training pictures must be multiples of this number."""
        return 2 ** (len(self.config.model.widths) - 1)

    def activations(self, x_BCHW: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        """Return activations as float32, because Gram matrices need more than half precision."""
        with self.autocast():
            found = self.features(x_BCHW, layers)
        return {layer: f_BCHW.float() for layer, f_BCHW in found.items()}

    def disturbed(self, x_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Return the contents with noise and another object, and where the object is not,
        [B, 1, H, W].
        """
        return disturb(x_BCHW, self.world)

    def updater(self, parameters, total_updates: int) -> Updater:
        """Return the updater of the parameters, with the run's optimizer and schedule."""
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
        """Return the means of the figures of the split's first rows, at most EVALUATED_ROWS.

        `figures`: function of a picture and its row number that returns the picture's figures.
        """
        count = min(EVALUATED_ROWS, len(split))
        sums: dict[str, float] = {}
        for row in range(count):
            x_1CHW = split.take(torch.tensor([row], device=split.values.device))[0].to(self.device)
            for name, value in figures(x_1CHW, row).items():
                sums[name] = sums.get(name, 0.0) + float(value)
        return {name: value / count for name, value in sums.items()}

    def described(self, **more: Any) -> dict[str, Any]:
        """Return the entries of config.json that all style models have in common.

        `more`: further entries of "about".
        """
        config = {
            name: getattr(self.config.model, name) for name in StyleNetConfig.__dataclass_fields__
        }
        config["widths"] = list(self.config.model.widths)
        return {
            **config,
            "max_side": MAX_SIDE,
            "about": {"method": self.config.method, **self.features.about, **more},
        }


def fit_square(x_1CHW: Tensor, side: int) -> Tensor:
    """Scale a picture to a longest side of `side` pixels, and pad it with black to a square."""
    height, width = x_1CHW.shape[-2:]
    scale = side / max(height, width)
    small = resize(x_1CHW, max(1, round(height * scale)), max(1, round(width * scale))).clamp(0, 1)
    return F.pad(small, (0, side - small.shape[-1], 0, side - small.shape[-2]))
