"""Trains CycleGAN: two generators between two domains of images, without pairs.

[Zhu 2017, https://arxiv.org/abs/1703.10593]
Shapes: B batch, C channels, H height, W width. Images are in −1..1. A and B are the domains.
"""

from typing import cast

import numpy as np
import torch
from torch import Tensor

from genray.errors import require
from genray.gen.data.augment import augment
from genray.gen.data.types import Data, Split
from genray.gen.evaluation.metrics import PCAFrechet
from genray.gen.generative import image_grid, to_uint8
from genray.gen.training.task import Batch, Export
from genray.gen.translation.base import TranslationTask
from genray.gen.translation.config import CycleGANConfig
from genray.gen.translation.domains import load_domains
from genray.gen.translation.evaluation import (
    EVALUATED_ROWS,
    FITTED_ROWS,
    make_recogniser,
    recognised,
    rows_of,
    translated,
)
from genray.gen.translation.losses import adversarial_loss, discriminator_loss, l1_loss
from genray.gen.translation.model import DIRECTIONS
from genray.gen.translation.networks import PatchDiscriminator, make_generator
from genray.gen.translation.pool import ImagePool

SHOWN = 6
"""Number of images of each domain in the sheet of fixed rows."""


class CycleGANTask(TranslationTask):
    """Trains two generators and two discriminators.

    An epoch is a pass over the training images of domain A; each of them is paired with a random
    image of domain B.

    Args:
        config: the configuration.
        world: this data-parallel worker.
        device: the device on which the networks are trained.
    """

    shown = ("cycle", "adversarial_loss", "discriminator_loss")
    curves = (
        ("cycle error", ("cycle", "validation_cycle")),
        ("adversarial loss", ("adversarial_loss", "discriminator_loss")),
        ("Fréchet distance", ("validation_frechet_a", "validation_frechet_b")),
    )
    config: CycleGANConfig

    @staticmethod
    def load(config: CycleGANConfig, low: float, high: float) -> Data:
        """Load both domains as one data set with the labels 0 (A) and 1 (B)."""
        return load_domains(config, low, high)

    def begin_stage(self, stage: int, data: Data, total_updates: int) -> Data:
        """Create the networks; the stage trains on the rows of domain A."""
        config, channels = self.config, data.shape[0]
        require(
            data.train.label is not None and len(data.classes) == 2,
            f"--data {data.name}: CycleGAN needs two domains; load them with CycleGANTask.load",
        )
        self._classes, self._shape = data.classes, data.shape
        self.check_images(data, channels)
        generators = {name: make_generator(config.model, channels, channels) for name in DIRECTIONS}
        discriminators = {
            f"discriminator_{domain}": PatchDiscriminator(config.model, channels) for domain in "ab"
        }
        self.add_players(generators, discriminators, total_updates)
        for domain in "ab":
            pool = ImagePool(config.pool, data.shape, self.world)
            self.networks[f"pool_{domain}"] = pool.to(self.device)
        train_a, self._train_b = self.domains(data.train)
        self._frechet = [PCAFrechet(each.first(FITTED_ROWS)) for each in (train_a, self._train_b)]
        # Keep the inputs of progress.png, whose six columns have three images of each direction.
        shown = self.domains(data.validation if len(data.validation) else data.train)
        self._fixed = [
            each.take(torch.arange(8, device=each.values.device) % len(each))[0] for each in shown
        ]
        return Data(
            data.name, train_a, data.validation, data.test, data.classes, data.licence, data.about
        )

    def domains(self, split: Split) -> tuple[Split, Split]:
        """Return the rows of domain A, and those of domain B."""
        label = cast(Tensor, split.label)
        return rows_of(split, label == 0), rows_of(split, label == 1)

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """Update the generators, then the discriminators; returns `cycle` and `identity` (mean
        absolute errors of values in 0..1) and the adversarial losses, each the mean of both
        directions.
        """
        config, count = self.config, len(self._train_b)
        drawn_B1 = self.world.uniform(len(batch.x), 1, device=self.device)
        number_B = (drawn_B1[:, 0] * count).long().clamp(max=count - 1)
        real_b = augment(self._train_b.take(number_B)[0], self._train_b.augment, self.world)
        # Translate both domains there and back.
        (fake_b, same_b), (fake_a, same_a) = (
            self._translate("a_to_b", batch.x, real_b),
            self._translate("b_to_a", real_b, batch.x),
        )
        with self.autocast():
            cycled_a = self.networks["b_to_a"](fake_b).float()
            cycled_b = self.networks["a_to_b"](fake_a).float()
            logits = [
                self.networks[f"discriminator_{domain}"](fake).float()
                for domain, fake in (("a", fake_a), ("b", fake_b))
            ]
        # Update the generators.
        fooled_a, fooled_b = (adversarial_loss(config.loss, each, True) for each in logits)
        adversarial = fooled_a + fooled_b
        cycle = l1_loss(cycled_a, batch.x) + l1_loss(cycled_b, real_b)
        total = adversarial + config.cycle_weight * cycle
        values = {"cycle": 0.25 * cycle.detach()}
        if same_a is not None and same_b is not None:
            identity = l1_loss(same_a, batch.x) + l1_loss(same_b, real_b)
            total = total + config.identity_weight * config.cycle_weight * identity
            values["identity"] = 0.25 * identity.detach()
        self.update_generators(total)
        values["adversarial_loss"] = 0.5 * adversarial.detach()
        values["discriminator_loss"] = self._update_discriminators(
            {"a": (batch.x, fake_a), "b": (real_b, fake_b)}
        )
        return values

    def _translate(
        self, direction: str, source: Tensor, target: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Return the translated `source`, and `target` after the same generator, which should not
        change it; None without identity losses.

        Both are one batch of the generator, because its norms treat each image alone.
        """
        with self.autocast():
            if not self.config.identity_weight:
                return self.networks[direction](source).float(), None
            both = self.networks[direction](torch.cat([source, target])).float()
        return both[: len(source)], both[len(source) :]

    def _update_discriminators(self, images: dict[str, tuple[Tensor, Tensor]]) -> Tensor:
        """Update both discriminators on (real, translated) images by domain; returns their mean
        loss.
        """
        losses = []
        for domain, (real, fake) in images.items():
            old = cast(ImagePool, self.networks[f"pool_{domain}"]).exchange(fake)
            discriminator = self.networks[f"discriminator_{domain}"]
            with self.autocast():
                real_logits, fake_logits = discriminator(real), discriminator(old)
            losses.append(
                discriminator_loss(self.config.loss, real_logits.float(), fake_logits.float())
            )
        total = losses[0] + losses[1]
        self.updaters["discriminator"].step(total)
        return 0.5 * total.detach()

    def evaluate(self, split: Split) -> dict[str, float]:
        """Translate the first images of both domains; returns `loss`, the mean Fréchet distance of
        translated to real images in the space of the real ones' principal components, and its
        parts `frechet_a`, `frechet_b`; `cycle`, `cycle_a` and `cycle_b`, mean absolute errors of
        values in 0..1 after both translations.
        """
        real = [each.first(EVALUATED_ROWS).all() for each in self.domains(split)]
        there = [translated(self.best(name), x) for name, x in zip(DIRECTIONS, real)]
        back = [translated(self.best(name), x) for name, x in zip(DIRECTIONS[::-1], there)]
        cycle_a, cycle_b = (0.5 * l1_loss(*pair).item() for pair in zip(back, real))
        # Images translated to B come first in `there`.
        distance_a = self._frechet[0](real[0], there[1])
        distance_b = self._frechet[1](real[1], there[0])
        return {
            "loss": 0.5 * (distance_a + distance_b),
            "frechet_a": distance_a,
            "frechet_b": distance_b,
            "cycle": 0.5 * (cycle_a + cycle_b),
            "cycle_a": cycle_a,
            "cycle_b": cycle_b,
        }

    def test(self, data: Data) -> dict[str, float]:
        """Run `evaluate` on the test split. Add `recognised_a` and `recognised_b`, the shares of
        images translated to A and to B that a classifier assigns to this domain, and
        `recognised_real`, its accuracy on real images.
        """
        figures = self.evaluate(data.test)
        extractor = self._extractor or make_recogniser(data, self.device)
        for number, (split, name) in enumerate(zip(self.domains(data.test), DIRECTIONS)):
            found = translated(self.best(name), split.all())
            label = torch.full((len(found),), 1 - number)
            figures[f"recognised_{'ba'[number]}"] = recognised(extractor, found, label)
        label_N = cast(Tensor, data.test.label)
        figures["recognised_real"] = recognised(extractor, data.test.all(), label_N)
        a, b = self._classes
        self.remark = f"A: {a}, B: {b}; recognised: by the classifier {extractor.name}"
        return figures

    def pictures(self, data: Data) -> dict[str, np.ndarray]:
        """Return a sheet of fixed test images: A, A to B, and back to A; B, B to A, and back."""
        rows = []
        for split, (there, back) in zip(self.domains(data.test), (DIRECTIONS, DIRECTIONS[::-1])):
            x = split.take(torch.arange(SHOWN, device=self.device) % len(split))[0]
            found = translated(self.best(there), x)
            rows += [x, found, translated(self.best(back), found)]
        return {"translated": image_grid(torch.cat(rows), -1.0, 1.0, SHOWN, least_side=64)}

    def progress_images(self) -> np.ndarray:
        """Return translations of 16 fixed inputs, by turns three of each direction."""
        to_b, to_a = (translated(self.best(name), x) for name, x in zip(DIRECTIONS, self._fixed))
        images = [to_b[:3], to_a[:3], to_b[3:], to_a[3:]]
        return to_uint8(torch.cat(images), -1.0, 1.0)

    def export(self) -> Export:
        """Return both generators; the discriminators and the pools are not saved."""
        a, b = self._classes
        about = {"method": "cyclegan", "input": "images", "domains": [a, b]}
        config = self.described(self._shape, self._shape[0], **about)
        config["directions"] = list(DIRECTIONS)
        tensors = {
            f"networks.{direction}.{name}": each
            for direction in DIRECTIONS
            for name, each in self.best(direction).state_dict().items()
        }
        card = (
            f"# Image translation (CycleGAN)\n\nTranslates {a} (A) to {b} (B), and back. Two "
            f"{self.config.model.network}s with widths "
            f"{' '.join(map(str, self.config.model.widths))}; images in −1..1. `loss` is the mean "
            "Fréchet distance of translated to real images in the space of principal components; "
            "`cycle` is the mean absolute error, of values in 0..1, after both translations.\n"
        )
        return Export("translator", config, tensors, card)
