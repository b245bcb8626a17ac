"""Trains generative adversarial networks (GANs), dense or deep convolutional.

[Goodfellow 2014, https://arxiv.org/abs/1406.2661; DCGAN: Radford 2016,
https://arxiv.org/abs/1511.06434] Shapes: B batch, Z latent, C channels, H height, W width.
`networks.py` defines the generator and the discriminator, `losses.py` their losses.
"""

from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from genray.gen.data.types import Data, Split
from genray.gen.evaluation.metrics import PCAFrechet, generator_report
from genray.gen.gan import losses as gan_losses
from genray.gen.gan.checks import check_batch, check_evaluation, check_images, check_updates
from genray.gen.gan.config import GANConfig, GANModelConfig
from genray.gen.gan.diffaugment import diff_augment
from genray.gen.gan.networks import Discriminator, Generator, build_generator
from genray.gen.generative import image_grid, to_uint8
from genray.gen.images.classifier import load_extractor, train_extractor
from genray.gen.training.moving_average import MovingAverage
from genray.gen.training.task import Batch, Export, Task
from genray.gen.training.updater import Updater
from genray.gen.training.world import ALONE, World

__all__ = [
    "Discriminator",
    "GANConfig",
    "GANModelConfig",
    "GANTask",
    "Generator",
    "build_generator",
]


class GANTask(Task):
    """Trains a generator and a discriminator.

    Each step trains the discriminator. The generator is trained with every
    `discriminator_steps`-th update of the discriminator. `begin_stage` raises ConfigError for data
    or batch sizes that do not fit.

    Args:
        config: the GAN's configuration.
        world: this data-parallel worker.
        device: the device on which the networks are trained.
    """

    shown = ("discriminator_loss", "generator_loss", "real_accuracy", "fake_accuracy")
    curves = (
        ("loss", ("discriminator_loss", "generator_loss")),
        ("accuracy of the discriminator", ("real_accuracy", "fake_accuracy")),
    )
    value_range = (-1.0, 1.0)

    def __init__(self, config: GANConfig, world: World = ALONE, device: torch.device | str = "cpu"):
        config.validate()
        super().__init__(world, device, config.fit.amp)
        self.config = config
        self._extractor = (
            load_extractor(config.extractor, self.device) if config.extractor else None
        )

    @property
    def generator(self) -> Generator:
        """The generator that samples are drawn from: the moving average if there is one."""
        return cast(Generator, self.networks["average" if self.config.ema else "generator"])

    def begin_stage(self, stage: int, data: Data, total_updates: int) -> Data:
        config = self.config
        # Raise ConfigError now for options that would fail later in the run.
        check_images(config, data)
        check_updates(config, total_updates)
        check_evaluation(config, data, self._extractor)
        check_batch(config, data, self.world.size)
        # Create the networks.
        generator = Generator(config.model, data.shape).to(self.device)
        discriminator = Discriminator(config.model, data.shape).to(self.device)
        self._pair = generator, discriminator
        self.networks["generator"], self.networks["discriminator"] = self._pair
        if config.ema:
            self._average = MovingAverage(generator, config.ema)
            self.networks["average"] = self._average.network
        # Create the updaters, which may have different learning rates and numbers of updates.
        common: dict[str, Any] = {
            "accumulate": config.fit.accumulate,
            "amp": config.fit.amp,
            "world": self.world,
        }
        self.updaters["generator"] = Updater(
            generator.parameters(),
            config.optimizer,
            total_updates=total_updates // config.discriminator_steps,
            **common,
        )
        rate = config.discriminator_learning_rate or config.optimizer.learning_rate
        self.updaters["discriminator"] = Updater(
            discriminator.parameters(),
            replace(config.optimizer, learning_rate=rate),
            total_updates=total_updates,
            **common,
        )
        # Fit the PCA of the validation loss to real images.
        self._frechet = PCAFrechet(data.train.first(5000))
        return data

    def draw(self, count: int) -> Tensor:
        """Draw z from the prior; returns float32 [count, Z]."""
        if self.config.model.prior == "normal":
            return self.world.normal(count, self.config.model.latent, device=self.device)
        return (
            self.world.uniform(count, self.config.model.latent, device=self.device)
            .mul_(2.0)
            .sub_(1.0)
        )

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """Update the discriminator and, when due, the generator on the same z.

        `generator_loss` is 0 in steps without an update of the generator, and multiplied by
        `discriminator_steps` in the other steps, so that its mean over steps is the mean loss.
        """
        config = self.config
        generator, discriminator = self._pair
        generator_updater = self.updaters["generator"]
        discriminator_updater = self.updaters["discriminator"]
        updates = discriminator_updater.updates
        due = updates % config.discriminator_steps == config.discriminator_steps - 1
        penalised = config.r1 > 0 and updates % config.r1_every == 0
        # Generate images, and classify real and generated images.
        with self.autocast():
            # Both updates use the same generated images: one forward pass of the generator.
            with torch.set_grad_enabled(due):
                fake = generator(self.draw(len(batch.x)))
            # Real and generated images are separate batches, with separate batch statistics.
            real_B = discriminator(self._augmented(batch.x)).float()
            fake_B = discriminator(self._augmented(fake.detach())).float()
        # Update the discriminator, with its gradient penalties if any.
        loss = gan_losses.discriminator_loss(config.loss, real_B, fake_B, config.label_smoothing)
        total = loss
        if penalised:
            total = total + 0.5 * config.r1 * config.r1_every * self._r1(batch.x)
        if config.loss == "wgan-gp":
            mix_B = self.world.uniform(len(batch.x), device=self.device)
            penalty = gan_losses.gradient_penalty(self._logits, batch.x, fake.float(), mix_B)
            total = total + config.gradient_penalty * penalty
        discriminator_updater.step(total)
        values = {"discriminator_loss": loss.detach(), "generator_loss": torch.zeros_like(loss)}
        with torch.no_grad():
            values["real_accuracy"], values["fake_accuracy"] = gan_losses.accuracies(
                config.loss, real_B, fake_B
            )
        # Update the generator, then its moving average. With --accumulate, only some steps make
        # an update.
        if due:
            with self.autocast():
                new_fake_B = discriminator(self._augmented(fake)).float()
            loss = gan_losses.generator_loss(config.loss, new_fake_B)
            before = generator_updater.updates
            generator_updater.step(loss)
            values["generator_loss"] = loss.detach() * config.discriminator_steps
            if config.ema and generator_updater.updates > before:
                self._average.update(generator_updater.updates)
        return values

    def _augmented(self, x_BCHW: Tensor) -> Tensor:
        """Return the images with DiffAugment's changes, as the discriminator receives them."""
        return (
            diff_augment(x_BCHW, self.config.diffaugment, self.world)
            if self.config.diffaugment
            else x_BCHW
        )

    def _r1(self, x_BCHW: Tensor) -> Tensor:
        # The penalty of a logit is the sum over its `pack` images. Return the mean over logits.
        return gan_losses.squared_gradient(self._logits, x_BCHW).mean() * self.config.model.pack

    def _logits(self, x_BCHW: Tensor) -> Tensor:
        return self._pair[1](self._augmented(x_BCHW)).float()

    def evaluate(self, split: Split) -> dict[str, float]:
        """Evaluate new samples: `loss` (a Fréchet distance to the split) and the discriminator's
        accuracies on the split's images and on the samples.

        The distance is `fcd` (in the features of --extractor's classifier) or `pca_frechet`.
        """
        fake = self._generated(max(1000, min(len(split), 5000)))
        if self._extractor is not None:
            loss = self._extractor.distance(split.all(), fake, -1.0, 1.0).value
            figures = {"loss": loss, "fcd": loss}
        else:
            loss = self._frechet(split.all(), fake)
            figures = {"loss": loss, "pca_frechet": loss}
        discriminator = self._pair[1]
        logits = [
            torch.cat([discriminator(x) for x in images.split(256)])
            for images in (split.all(), fake)
        ]
        real, false = gan_losses.accuracies(self.config.loss, *logits)
        return {**figures, "real_accuracy": real.item(), "fake_accuracy": false.item()}

    def test(self, data: Data) -> dict[str, float]:
        """Run `evaluate` on the test split. With a classifier, add FCD, KID, precision, recall and
        the number of modes.
        """
        figures = self.evaluate(data.test)
        # Without --extractor, train a small classifier if the data have labels of two classes or
        # more. The option --without removes classes, and can leave a single one.
        extractor = self._extractor
        label = data.train.label
        if (
            extractor is None
            and len(data.classes) >= 2
            and label is not None
            and label.unique().numel() >= 2
        ):
            extractor = train_extractor(data, self.device)
        if extractor is not None:
            figures |= generator_report(
                extractor, data.test.all(), self._generated(max(1000, len(data.test))), -1.0, 1.0
            )
            self.remark = (
                f"fcd: {figures['fcd_generated']:,} samples against {figures['fcd_real']:,} test "
                f"images, features of the classifier {extractor.name}"
            )
        return figures

    def _generated(self, count: int) -> Tensor:
        return torch.cat(
            [
                self.generator.generate(self.draw(min(250, count - at)))
                for at in range(0, count, 250)
            ]
        )

    def pictures(self, data: Data) -> dict[str, np.ndarray]:
        """Return a grid of 64 samples. `Fit.pictures` sets the seed, so z is always the same."""
        return {"samples": image_grid(self.generator.generate(self.draw(64)), -1.0, 1.0)}

    def progress_images(self) -> np.ndarray:
        """Return 16 samples. `Fit.progress_images` sets the seed, so z is always the same."""
        return to_uint8(self.generator.generate(self.draw(16)), -1.0, 1.0)

    def export(self) -> Export:
        """Return the generator; the discriminator is not saved."""
        model = self.config.model
        names = ["network", "latent", "prior", "kernel", "slope", "generator_norm"]
        names.append("generator_dropout")
        config = {name: getattr(model, name) for name in names}
        config |= {
            "generator_widths": list(model.generator_widths),
            "shape": list(self.generator.shape),
        }
        config |= {"low": -1.0, "high": 1.0, "loss": self.config.loss, "ema": self.config.ema}
        prior = "U(−1, 1)" if model.prior == "uniform" else "N(0, 1)"
        card = (
            f"# Generator of a GAN\n\n{model.network}, z: {model.latent} numbers from {prior}, "
            "images in −1..1. "
            f"Trained with the {self.config.loss} loss"
            + (
                f"; weights are a moving average of decay {self.config.ema:g}"
                if self.config.ema
                else ""
            )
            + ". The discriminator was not saved.\n"
        )
        return Export("gan", config, dict(self.generator.state_dict()), card)
