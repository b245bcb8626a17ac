"""Trains pix2pix: a conditional GAN with an L1 loss, on pairs of an input and its target.

[Isola 2017, https://arxiv.org/abs/1611.07004]
Shapes: B batch, C channels, H height, W width. Images are in −1..1.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from genray.errors import require
from genray.gen.data.types import Data, Split
from genray.gen.evaluation.metrics import PCAFrechet
from genray.gen.generative import image_grid, to_uint8
from genray.gen.training.task import Batch, Export
from genray.gen.translation.base import TranslationTask
from genray.gen.translation.config import Pix2PixConfig
from genray.gen.translation.evaluation import (
    EVALUATED_ROWS,
    FITTED_ROWS,
    as_rgb,
    colour_distance,
    make_recogniser,
    recognised,
    translated,
    with_channels,
)
from genray.gen.translation.losses import adversarial_loss, discriminator_loss, l1_loss
from genray.gen.translation.networks import PatchDiscriminator, make_generator
from genray.gen.translation.pairs import INPUT_OPTIONS, load_pairs

SHOWN = 6
"""Number of pairs in the sheet of fixed rows."""


class Pix2PixTask(TranslationTask):
    """Trains a generator with L1 and a discriminator of pairs.

    Departures from the paper: translations without dropout; instance norm, which equals the paper's
    batch norm for batches of one image, or batch norm with running averages in translation.

    Args:
        config: the configuration.
        world: this data-parallel worker.
        device: the device on which the networks are trained.
    """

    shown = ("l1", "adversarial_loss", "discriminator_loss")
    curves = (
        ("L1", ("l1", "validation_l1")),
        ("adversarial loss", ("adversarial_loss", "discriminator_loss")),
    )
    config: Pix2PixConfig

    @staticmethod
    def load(config: Pix2PixConfig, low: float, high: float) -> Data:
        """Load the pairs, whose rows have the channels of the input and of the target."""
        return load_pairs(config, low, high)

    def begin_stage(self, stage: int, data: Data, total_updates: int) -> Data:
        """Create the networks. Raises ConfigError for data that are no pairs, or do not fit."""
        config = self.config
        require(
            "pairs" in data.about,
            f"--data {data.name}: pix2pix needs pairs; load them with Pix2PixTask.load",
        )
        self._pairs: dict[str, Any] = data.about["pairs"]
        self._channels = channels_in, channels_out = tuple(self._pairs["channels"])
        self._classes, self._shape = data.classes, (channels_in, *data.shape[1:])
        self.check_images(data, channels_out)
        discriminators = {}
        if config.adversarial_weight:
            discriminators["discriminator"] = PatchDiscriminator(
                config.model, channels_in + channels_out
            )
        generator = make_generator(config.model, channels_in, channels_out)
        self.add_players({"generator": generator}, discriminators, total_updates)
        # Fit the principal components of the distance to training targets; keep 16 inputs.
        targets = with_channels(data, slice(channels_in, None)).train
        self._frechet = PCAFrechet(targets.first(FITTED_ROWS))
        shown = data.validation if len(data.validation) else data.train
        rows = torch.arange(16, device=shown.values.device) % len(shown)
        self._fixed = self.halves(shown.take(rows)[0])[0]
        return data

    def halves(self, x_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Split rows of pairs into (inputs, targets)."""
        return x_BCHW[:, : self._channels[0]], x_BCHW[:, self._channels[0] :]

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """Update the discriminator, then the generator; returns `l1` (of values in 0..1) and the
        adversarial losses.
        """
        config, (a, b) = self.config, self.halves(batch.x)
        values: dict[str, Tensor] = {}
        with self.autocast():
            fake = self.networks["generator"](a)
        l1 = l1_loss(fake.float(), b)
        total = config.l1_weight * l1
        if config.adversarial_weight:
            discriminator = self.networks["discriminator"]
            # Update the discriminator on the real pair, and on the input with its translation.
            with self.autocast():
                real_logits = discriminator(torch.cat([a, b], 1)).float()
                fake_logits = discriminator(torch.cat([a, fake.detach().float()], 1)).float()
            loss = discriminator_loss(config.loss, real_logits, fake_logits)
            self.updaters["discriminator"].step(loss)
            values["discriminator_loss"] = loss.detach()
            # The updated discriminator classifies the translation again, for the generator.
            with self.autocast():
                logits = discriminator(torch.cat([a, fake.float()], 1)).float()
            adversarial = adversarial_loss(config.loss, logits, True)
            values["adversarial_loss"] = adversarial.detach()
            total = total + config.adversarial_weight * adversarial
        self.update_generators(total)
        return {"l1": 0.5 * l1.detach(), **values}

    def evaluate(self, split: Split) -> dict[str, float]:
        """Translate the first rows of a split; returns `loss`, the mean absolute error of values in
        0..1 (also as `l1`), `pca_frechet` and `colour_frechet` (see evaluation.py).
        """
        inputs, targets = self.halves(split.first(EVALUATED_ROWS).all())
        found = translated(self.best("generator"), inputs)
        error = 0.5 * l1_loss(found, targets).item()
        figures = {"loss": error, "l1": error}
        if len(targets) >= 2:
            figures["pca_frechet"] = self._frechet(targets, found)
            figures["colour_frechet"] = colour_distance(targets, found)
        return figures

    def test(self, data: Data) -> dict[str, float]:
        """Run `evaluate` on the test split. With a classifier, add the shares of translated and of
        real targets that it assigns to their class: `recognised`, `recognised_real`.
        """
        figures = self.evaluate(data.test)
        label = data.train.label
        if label is None or len(data.classes) < 2 or label.unique().numel() < 2:
            return figures
        inputs, targets = self.halves(data.test.all())
        extractor = self._extractor or make_recogniser(
            with_channels(data, slice(self._channels[0], None)), self.device
        )
        assert data.test.label is not None
        found = translated(self.best("generator"), inputs)
        figures["recognised"] = recognised(extractor, found, data.test.label)
        figures["recognised_real"] = recognised(extractor, targets, data.test.label)
        self.remark = (
            f"recognised: the class of {len(found):,} translated test images, by the classifier "
            f"{extractor.name}"
        )
        return figures

    def pictures(self, data: Data) -> dict[str, np.ndarray]:
        """Return a sheet of fixed test pairs: inputs, translations and targets, a row each."""
        a, b = self.halves(data.test.first(SHOWN).all())
        rows = [a, translated(self.best("generator"), a), b]
        if 3 in (a.shape[1], b.shape[1]):
            rows = [as_rgb(each) for each in rows]
        return {"translated": image_grid(torch.cat(rows), -1.0, 1.0, len(a), least_side=64)}

    def progress_images(self) -> np.ndarray:
        """Return the translations of 16 fixed inputs."""
        return to_uint8(translated(self.best("generator"), self._fixed), -1.0, 1.0)

    def export(self) -> Export:
        """Return the generator; the discriminator is not saved."""
        kind = self._pairs["kind"]
        made = {
            "edges": f"black edges on white (--edge-detector {self.config.edge_detector})",
            "grey": "a grey picture",
            "low": f"a picture of 1/{self.config.factor} of the resolution",
            "masked": "a picture with a grey square", "files": "the other half of a pair",
        }[kind]  # fmt: skip
        about = {"method": "pix2pix", "input": kind, "pairs": dict(self._pairs)}
        about |= {name: getattr(self.config, name) for name in INPUT_OPTIONS}
        config = self.described(self._shape, self._channels[1], **about)
        config["directions"] = ["a_to_b"]
        card = (
            f"# Image translation (pix2pix)\n\nThe input is {made}. A {self.config.model.network} "
            f"with widths {' '.join(map(str, self.config.model.widths))}; images in −1..1. "
            "`loss` is the mean absolute error of values in 0..1. The discriminator was not "
            "saved.\n"
        )
        tensors = {
            f"networks.a_to_b.{name}": each
            for name, each in self.best("generator").state_dict().items()
        }
        return Export("translator", config, tensors, card)
