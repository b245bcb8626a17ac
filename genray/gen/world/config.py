"""Options of a world model: data, training, the language of sprites and the network."""

from dataclasses import dataclass, field

from genray.bounds import bounded, check_bounds
from genray.errors import require
from genray.gen.data.config import DataConfig
from genray.gen.training.config import FitConfig
from genray.gen.training.optimizers import OptimizerConfig
from genray.gen.world.tracks import MEMORY


@dataclass(frozen=True, kw_only=True)
class WorldModelConfig:
    """The language of sprites, and the network that predicts the next screen."""

    rare: int = bounded(8, min=1, example=8)
    """Shapes that occur fewer times in the training screens are put together from frequent ones,
    if that is possible."""
    most_shapes: int = bounded(4096, min=1, example=4096)
    """Largest number of shapes; a game with more is refused."""
    most_backgrounds: int = bounded(8, min=1, max=64, example=8)
    """Largest number of backgrounds. A game may have one for each level."""
    most_moves: int = bounded(174, min=1, max=1000, example=174)
    """Largest number of different moves of a sprite in one step; the most frequent ones."""
    width: int = bounded(96, min=8, example=96)
    """Width of the network; a multiple of --heads."""
    layers: int = bounded(2, min=1, example=2)
    """Number of layers in which sprites see each other in both directions. One causal layer
    follows."""
    heads: int = bounded(4, min=1, example=4)
    """Number of attention heads."""
    dropout: float = bounded(0.1, min=0, below=1, example=0.1)
    memory: int = bounded(3, min=1, max=MEMORY, example=3)
    """Number of last moves of a sprite that the network reads. It reads one action more."""
    track_clocks: bool = False
    """The network reads how many steps ago a sprite changed its look and its y. Many games move
    their sprites only in every few steps."""
    events_first: bool = False
    """Reward, lost life and ending are decided before what becomes of the sprites, which then know
    them. Otherwise they are decided last."""
    event_weight: float = bounded(1.0, above=0, max=1000, example=8.0)
    """Weight of the events' part of the loss. Events are few: a larger weight makes the network
    learn them sooner, and changes no probability that it tends to."""
    starts: int = bounded(32, min=1, max=4096, example=256)
    """Number of training episodes whose first screens are kept in the model. Each dream begins with
    those of one of them."""
    wrong_tracks: float = bounded(0.1, min=0, below=1, example=0.1)
    """Share of the sprites that the network reads changed in training: moved by a pixel, without
    their last moves, or with another look. It makes dreams robust to the model's own errors."""
    repeat_events: int = bounded(4, min=1, max=64, example=4)
    """How many times an epoch contains a step with a reward, a lost life or an ending."""

    def validate(self) -> None:
        check_bounds(self)
        require(
            self.width % self.heads == 0,
            f"--width {self.width}: must be a multiple of --heads {self.heads}, e.g. "
            f"{self.heads * max(2, round(self.width / self.heads))}",
        )


@dataclass(frozen=True, kw_only=True)
class WorldConfig:
    """Configuration of a world model: a game that runs inside a network."""

    data: DataConfig = field(default_factory=lambda: DataConfig(data="episodes:road_runner"))
    fit: FitConfig = field(default_factory=FitConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    model: WorldModelConfig = field(default_factory=WorldModelConfig)
    ema: float = bounded(0.99, min=0, below=1, example=0.99)
    """Decay of the moving average of the weights, which is evaluated and saved; 0: none."""

    def validate(self) -> None:
        for part in (self.data, self.fit, self.optimizer, self.model):
            part.validate()
        check_bounds(self)
        kind = self.data.data.partition(":")[0]
        require(
            kind != "screens",
            f"--data {self.data.data}: has screens without actions, and a world model needs them; "
            "record episodes with `genray data episodes`",
        )
        require(
            self.data.is_episodes,
            f"--data {self.data.data}: a world model needs episodes, e.g. episodes:road_runner",
        )
        require(
            not self.data.augment,
            f"--augment {' '.join(self.data.augment)}: not for episodes; leave it out",
        )


def world() -> WorldConfig:
    """Configure a world model of Road Runner. Run `genray data episodes` first.

    A step of 32 game steps took 0.26 s of CPU on a slow, busy core; 3,000 steps are 13 minutes of
    such a core. Preparation takes another minute.
    """
    return WorldConfig(
        # Runs of earlier versions lack these options, and get their defaults.
        model=WorldModelConfig(
            memory=MEMORY, track_clocks=True, events_first=True, event_weight=8.0, starts=256
        ),
        fit=FitConfig(steps=3000, batch_size=32, validate_every=500, patience=2),
        optimizer=OptimizerConfig(
            optimizer="adamw", learning_rate=1.5e-3, l2=0.2, beta2=0.98, grad_clip=1.0,
            warmup_updates=50, schedule="cosine",
        ),
    )  # fmt: skip
