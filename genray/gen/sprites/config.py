"""Options of a sprite model: data, training, the language and the transformer."""

from dataclasses import dataclass, field

from genray.bounds import bounded, check_bounds
from genray.errors import require
from genray.gen.data.config import DataConfig
from genray.gen.training.config import FitConfig
from genray.gen.training.optimizers import OptimizerConfig


@dataclass(frozen=True, kw_only=True)
class SpriteModelConfig:
    """The language of sprites, and the transformer that generates it."""

    rare: int = bounded(8, min=1, example=8)
    """Shapes that occur fewer times in the training screens are put together from frequent ones,
    if that is possible."""
    most_shapes: int = bounded(4096, min=1, example=4096)
    """Largest number of shapes; a game with more is refused."""
    most_backgrounds: int = bounded(1, min=1, max=64, example=8)
    """Largest number of backgrounds. A game may have one for each level; 1: the most frequent
    colour of each pixel, on all screens."""
    whole_rows: bool = False
    """Rows of equal shapes, e.g. the dashes of a road, are completed behind the sprites that cover
    them. Otherwise the network learns rows that are cut wherever a character stands."""
    width: int = bounded(96, min=8, example=96)
    """Width of the transformer; a multiple of --heads."""
    layers: int = bounded(3, min=1, example=3)
    heads: int = bounded(4, min=1, example=4)
    """Number of attention heads."""
    dropout: float = bounded(0.25, min=0, below=1, example=0.25)
    wrong_tokens: float = bounded(0.1, min=0, below=1, example=0.1)
    """Share of the tokens that the network reads changed in training: moved by a few pixels, or
    with another shape. It makes drawn screens robust to the model's own errors."""

    def validate(self) -> None:
        check_bounds(self)
        require(
            self.width % self.heads == 0,
            f"--width {self.width}: must be a multiple of --heads {self.heads}, e.g. "
            f"{self.heads * max(2, round(self.width / self.heads))}",
        )


@dataclass(frozen=True, kw_only=True)
class SpriteConfig:
    """Configuration of a sprite model: a generator of game screens at full resolution."""

    data: DataConfig = field(default_factory=lambda: DataConfig(data="screens:road_runner"))
    fit: FitConfig = field(default_factory=FitConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    model: SpriteModelConfig = field(default_factory=SpriteModelConfig)
    ema: float = bounded(0.98, min=0, below=1, example=0.98)
    """Decay of the moving average of the weights, which is evaluated and saved; 0: none."""

    def validate(self) -> None:
        for part in (self.data, self.fit, self.optimizer, self.model):
            part.validate()
        check_bounds(self)
        require(
            not self.data.augment,
            f"--augment {' '.join(self.data.augment)}: not for screens; leave it out",
        )
        require(
            not self.data.is_text,
            f"--data {self.data.data}: a sprite model needs screens, e.g. screens:road_runner",
        )


def sprites() -> SpriteConfig:
    """Configure a sprite model of Road Runner's screens. Run `genray data screens` first.

    450 steps of 64 screens take about 60 s on one core.
    """
    return SpriteConfig(
        fit=FitConfig(steps=450, batch_size=64, validate_every=50, patience=4),
        optimizer=OptimizerConfig(
            optimizer="adamw", learning_rate=2e-3, l2=0.3, beta2=0.98, grad_clip=1.0,
            warmup_updates=30, schedule="cosine",
        ),
        # Runs of earlier versions lack these options, and get their defaults.
        model=SpriteModelConfig(most_backgrounds=8, whole_rows=True),
    )  # fmt: skip
