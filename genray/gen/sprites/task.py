"""Trains sprite models: maximises the likelihood of the training screens' tokens.

Shapes: B batch, T tokens, H height, W width.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from typing import cast

import numpy as np
import torch
from torch import Tensor

from genray.errors import require
from genray.gen.data.types import Data, Split
from genray.gen.generative import image_grid
from genray.gen.sprites.calibration import calibrate
from genray.gen.sprites.config import SpriteConfig
from genray.gen.sprites.model import SpriteModel, pad_tokens
from genray.gen.sprites.network import FIELDS
from genray.gen.sprites.palette import PaletteBuilder
from genray.gen.sprites.rows import encode_whole
from genray.gen.sprites.tokens import Language, Token, learn_language
from genray.gen.training.moving_average import MovingAverage
from genray.gen.training.task import Batch, Export, Task
from genray.gen.training.updater import Updater
from genray.gen.training.world import ALONE, World

CHUNK = 256
"""Number of screens that are evaluated at a time."""
MOST_LOGITS = 2**25
"""Fewer screens are evaluated at a time if the shapes' logits would be more than this, 134 MB."""


class SpriteTask(Task):
    """Learns the language of the training screens, and trains the transformer on their tokens.

    Args:
        config: the sprite model's configuration.
        world: this data-parallel worker.
        device: the device on which the network is trained.
    """

    shown = ("loss",)
    value_range = (0.0, 1.0)

    def __init__(
        self, config: SpriteConfig, world: World = ALONE, device: torch.device | str = "cpu"
    ):
        config.validate()
        super().__init__(world, device, config.fit.amp)
        self.config = config
        self._train_tokens: list[list[Token]] = []

    @property
    def model(self) -> SpriteModel:
        """The model with the averaged weights, or with the trained ones without an average."""
        return cast(SpriteModel, self.networks["average" if self.config.ema else "model"])

    def begin_stage(self, stage: int, data: Data, total_updates: int) -> Data:
        """Learn the language, create the networks, and return the data as tokens.

        Raises ConfigError unless the data are colour images of few colours, of which sprites move
        in front of a background.
        """
        config = self.config
        require(
            len(data.shape) == 3 and data.shape[0] == 3,
            f"--data {data.name}: a sprite model needs colour images; "
            + ("leave out --grey, or " if config.data.grey else "")
            + "use e.g. --data screens:road_runner",
        )
        # Learn the language from the training screens.
        builder = PaletteBuilder(f"--data {data.name}")
        screens_NHW = _indices(data.train, builder)
        language = learn_language(
            screens_NHW, builder.palette_P3, rare=config.model.rare,
            most_shapes=config.model.most_shapes, name=data.name,
            most_backgrounds=config.model.most_backgrounds,
        )  # fmt: skip
        encode = encode_whole if config.model.whole_rows else Language.encode
        tokens = [encode(language, screen_HW) for screen_HW in screens_NHW]
        self._train_tokens = tokens
        # Create the networks. The average and the trained network share the language.
        model = SpriteModel.of_language(config.model, language, tokens).to(self.device)
        self.networks["model"] = model
        if config.ema:
            self._average = MovingAverage(model, config.ema)
            self.networks["average"] = self._average.network
        self.updaters["model"] = Updater(
            model.parameters(), config.optimizer, total_updates=total_updates,
            accumulate=config.fit.accumulate, amp=config.fit.amp, world=self.world,
        )  # fmt: skip
        # The rows of the stage are tokens.
        return replace(
            data,
            train=self._tokens(data.train, tokens),
            validation=self._tokens(data.validation),
            test=data.test if data.is_sealed else self._tokens(data.test),
        )

    def _tokens(self, split: Split, tokens: Sequence[Sequence[Token]] | None = None) -> Split:
        """Return the split with padded tokens, int16 [N, T, 5], instead of images."""
        model = cast(SpriteModel, self.networks["model"])
        if tokens is None:
            tokens = [each for x in _chunks(split) for each in model.screen_tokens(x)]
        return replace(split, values=pad_tokens(tokens, model.network.end, np.int16))

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """Update the network; returns `loss` in nats for each screen."""
        model = cast(SpriteModel, self.networks["model"])
        with self.autocast():
            loss = -model.network.log_likelihood(batch.x.long()).mean()
        updater = self.updaters["model"]
        updater.step(loss)
        if self.config.ema:
            self._average.update(updater.updates)
        return {"loss": loss.detach()}

    def evaluate(self, split: Split) -> dict[str, float]:
        """Return `loss`, −ln p of a screen's tokens in nats, and its parts: the loss of all groups
        and ends, coordinates, shapes and runs.
        """
        total = torch.zeros(FIELDS, dtype=torch.float64, device=self.device)
        tokens = split.values.shape[1] + 1
        chunk = min(CHUNK, max(1, MOST_LOGITS // (tokens * self.model.sizes.shapes)))
        for rows in torch.arange(len(split), device=self.device).split(chunk):
            tokens_BT5 = split.take(rows)[0].long()
            total -= self.model.network.field_log_likelihoods(tokens_BT5).sum(0).double()
        group, y, x, shape, run = (total / len(split)).tolist()
        return {
            "loss": group + y + x + shape + run,
            "groups": group,
            "places": y + x,
            "shapes": shape,
            "runs": run,
        }

    def test(self, data: Data) -> dict[str, float]:
        """Correct the shares of the groups (see calibration.py), run `evaluate` on the test split,
        and add figures of the tokenizer.

        `exact`: share of screens that are decoded exactly. `lost`: wrong pixels of decoded screens,
        as a share of the pixels that differ from the background.
        """
        model, exact, wrong, moving = self.model, 0, 0, 0
        if self._train_tokens:
            calibrate(model, pad_tokens(self._train_tokens, model.network.end))
        for x in _chunks(data.test):
            screens_BHW = model.indices(x)
            decoded_BHW = model.paint(model.pad(model.screen_tokens(x)))
            exact += int((decoded_BHW == screens_BHW).all((1, 2)).sum())
            wrong += int((decoded_BHW != screens_BHW).sum())
            moving += int(model.language.moving(screens_BHW).sum())
        return {
            **self.evaluate(self._tokens(data.test)),
            "exact": exact / len(data.test),
            "lost": wrong / max(1, moving),
        }

    def pictures(self, data: Data) -> dict[str, np.ndarray]:
        """Return 12 samples from fixed random numbers."""
        return {"samples": image_grid(self.model.sample(12, self.config.fit.seed), 0.0, 1.0, 4)}

    def export(self) -> Export:
        model = self.model
        height, width = model.sizes.height, model.sizes.width
        config = {
            "model": asdict(self.config.model),
            "sizes": list(model.sizes),
            "longest": model.longest,
            "colours": len(model.palette),
            "pixels": len(model.shape_pixels),
            "shape": [3, height, width],
        }
        card = (
            f"# Sprite model\n\nGenerates screens of {width}x{height} pixels as a background and a "
            f"sequence of sprites. {model.sizes.shapes:,} shapes of {model.sizes.groups} groups of "
            f"colours, at most {model.longest} tokens a screen. Shapes come from the training "
            "screens: the model cannot draw a shape that it has not seen. `loss` is −ln p of a "
            "screen's tokens in nats.\n"
        )
        return Export("sprites", config, dict(model.state_dict()), card)


def _chunks(split: Split) -> Iterator[Tensor]:
    """Yield the split's images, CHUNK at a time."""
    for rows in torch.arange(len(split), device=split.values.device).split(CHUNK):
        yield split.take(rows)[0]


def _indices(split: Split, builder: PaletteBuilder) -> np.ndarray:
    """Return the palette indices of all images, uint8 [N, H, W]."""
    parts = []
    for values in split.values.split(CHUNK):
        if values.dtype != torch.uint8:
            values = values.mul(255).round().to(torch.uint8)
        parts.append(builder.indices(values.permute(0, 2, 3, 1).cpu().numpy()))
    return np.concatenate(parts)
