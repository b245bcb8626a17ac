"""Trains generative adversarial networks (GANs), dense or deep convolutional.

[Goodfellow 2014, https://arxiv.org/abs/1406.2661; DCGAN: Radford 2016,
https://arxiv.org/abs/1511.06434] Shapes: B batch, Z latent, C channels, H height, W width. The
generator and the discriminator are defined in `networks.py`, their losses in `losses.py`.
"""

import copy
from dataclasses import dataclass, field, replace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from genray.bounds import bounded, check_bounds
from genray.errors import require
from genray.gen.data.config import DataConfig
from genray.gen.data.types import Data, Split, need_images
from genray.gen.evaluation.metrics import PCAFrechet, generator_report
from genray.gen.gan import losses as gan_losses
from genray.gen.gan.diffaugment import Change, diff_augment
from genray.gen.gan.losses import Loss
from genray.gen.gan.networks import Discriminator, GANModelConfig, Generator, build_generator
from genray.gen.generative import image_grid
from genray.gen.images.classifier import load_extractor, train_extractor
from genray.gen.training.config import FitConfig
from genray.gen.training.optimizers import OptimizerConfig
from genray.gen.training.task import Batch, Export, Task
from genray.gen.training.updater import Updater
from genray.gen.training.world import ALONE, World
from genray.paths import PathOrUrl

__all__ = [
    "Discriminator",
    "GANConfig",
    "GANModelConfig",
    "GANTask",
    "Generator",
    "build_generator",
]


@dataclass(frozen=True, kw_only=True)
class GANConfig:
    """Configuration of a generative adversarial network on images."""

    data: DataConfig = field(default_factory=DataConfig)
    fit: FitConfig = field(default_factory=FitConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """Optimizer of the generator; the discriminator's differs only in its learning rate."""
    model: GANModelConfig = field(default_factory=GANModelConfig)
    loss: Loss = "non-saturating"
    label_smoothing: float = bounded(0.0, min=0, below=0.5)
    """One-sided label smoothing: the label of real images is 1 minus this."""
    discriminator_learning_rate: float = bounded(0.0, min=0, note="(0: --learning-rate)")
    """Learning rate of the discriminator; 0: the generator's.
    [two time-scales: Heusel 2017, https://arxiv.org/abs/1706.08500]"""
    discriminator_steps: int = bounded(1, min=1)
    """Steps of the discriminator, each on a new batch, for each step of the generator."""
    gradient_penalty: float = bounded(10.0, min=0, example=10)
    """Weight of WGAN-GP's gradient penalty."""
    r1: float = bounded(0.0, min=0, example=1)
    """γ of the R1 penalty γ/2 ‖∇D(x)‖² on real images; 0: no penalty."""
    r1_every: int = bounded(1, min=1, example=16)
    """Updates of the discriminator between R1 penalties; each penalty is multiplied by this.
    [lazy regularisation: Karras 2020, https://arxiv.org/abs/1912.04958]"""
    ema: float = bounded(0.0, min=0, below=1, example=0.999)
    """Decay of a moving average of the generator's weights, e.g. 0.999; the average is evaluated
    and saved in place of the generator. 0: no average.
    """
    diffaugment: tuple[Change, ...] = ()
    """Random changes of every image before the discriminator: color, translation, cutout."""
    extractor: PathOrUrl = ""
    """Model directory of a classifier, whose Fréchet classifier distance is the validation loss.
    Empty: the validation loss is a Fréchet distance in PCA space, and the final test trains a
    small classifier when the data have labels.
    """

    def validate(self) -> None:
        for part in (self.data, self.fit, self.optimizer, self.model):
            part.validate()
        check_bounds(self)
        require(
            self.loss not in ("hinge", "wgan-gp") or not self.label_smoothing,
            f"--label-smoothing {self.label_smoothing}: {self.loss} has no labels to smooth; use 0",
        )
        require(
            self.loss != "wgan-gp" or self.model.discriminator_norm != "batch",
            "--discriminator-norm batch: wgan-gp's penalty is one image's own; use none or "
            "spectral",
        )
        require(
            self.loss != "wgan-gp" or self.model.pack == 1,
            f"--pack {self.model.pack}: wgan-gp's penalty is one image's own; use 1",
        )


class GANTask(Task):
    """Trains a generator and a discriminator.

    Each step updates the discriminator; every `discriminator_steps`-th step also updates the
    generator. `begin_stage` raises ConfigError for data or batch sizes that do not fit."""

    shown = ("discriminator_loss", "generator_loss", "real_accuracy", "fake_accuracy")
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
        config, model = self.config, self.config.model
        layers = max(len(model.generator_widths), len(model.discriminator_widths))
        if model.network == "conv":
            need_images(data, f"a GAN with {layers} convolutions of stride 2", 2**layers)
        else:
            need_images(data, "a GAN")
        shape = data.shape
        require(
            (data.train.low, data.train.high) == self.value_range,
            f"--data {data.name}: its values lie in {data.train.low:g}..{data.train.high:g}; tanh "
            "needs −1..1",
        )
        require(
            total_updates >= config.discriminator_steps,
            f"--discriminator-steps {config.discriminator_steps}: the run makes {total_updates} "
            "updates, so that the "
            f"generator would never be trained; use at most {total_updates}, or more --steps",
        )
        self._check_evaluation(data)
        share = config.fit.batch_size // self.world.size
        require(
            share % model.pack == 0,
            f"--pack {model.pack}: does not divide the {share} rows of a "
            f"{'worker' if self.world.size > 1 else 'batch'}; "
            f"use --batch-size {max(1, round(share / model.pack)) * model.pack * self.world.size}",
        )
        self._check_batch_norms(share, shape[1])
        self._pair = (
            Generator(model, shape).to(self.device),
            Discriminator(model, shape).to(self.device),
        )
        self.networks["generator"], self.networks["discriminator"] = self._pair
        if config.ema:
            self.networks["average"] = copy.deepcopy(self._pair[0]).requires_grad_(False)
            self._averaged = _floating(self.networks["average"]), _floating(self._pair[0])
        rate = config.discriminator_learning_rate or config.optimizer.learning_rate
        common: dict[str, Any] = {
            "accumulate": config.fit.accumulate,
            "amp": config.fit.amp,
            "world": self.world,
        }
        self.updaters["generator"] = Updater(
            self._pair[0].parameters(),
            config.optimizer,
            total_updates=total_updates // config.discriminator_steps,
            **common,
        )
        self.updaters["discriminator"] = Updater(
            self._pair[1].parameters(),
            replace(config.optimizer, learning_rate=rate),
            total_updates=total_updates,
            **common,
        )
        self._frechet = PCAFrechet(data.train.first(5000))
        return data

    def _check_evaluation(self, data: Data) -> None:
        """Raise ConfigError, before training, for data on which `evaluate` would fail."""
        require(
            len(data.validation) != 1,
            f"--data {data.name}: one validation image, and a Fréchet distance needs two; use "
            "--validation 0 or more images",
        )
        require(
            data.is_sealed or len(data.test) >= 2,
            f"--data {data.name}: too few test images for a Fréchet distance, which needs two; "
            "give more images",
        )
        if self._extractor is not None:
            wanted = tuple(self._extractor.classifier.shape)
            require(
                wanted == data.shape,
                f"--extractor {self.config.extractor}: it judges images of shape {wanted}, and "
                f"{data.name} has "
                f"{data.shape}; train one on the like",
            )

    def _check_batch_norms(self, share: int, side: int) -> None:
        """Raise ConfigError when a worker's `share` rows give a batch norm a single value.

        `side`: height of the images in pixels."""
        model = self.config.model
        # The discriminator's first layer has no norm.
        discriminator_norm = (
            model.discriminator_norm if len(model.discriminator_widths) > 1 else "none"
        )
        for network, norm, widths, rows in (
            ("generator", model.generator_norm, model.generator_widths, share),
            ("discriminator", discriminator_norm, model.discriminator_widths, share // model.pack),
        ):
            # pixels of the smallest feature map
            pixels = (side >> len(widths)) ** 2 if model.network == "conv" else 1
            require(
                norm != "batch" or rows * pixels >= 2,
                f"--batch-size {self.config.fit.batch_size}: --{network}-norm batch needs more "
                "than one row for each worker; "
                f"use {2 * model.pack * self.world.size} or more",
            )

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
        `discriminator_steps` in the rest, so that its mean over steps is the mean loss.
        """
        config = self.config
        generator, discriminator = self._pair
        generator_updater = self.updaters["generator"]
        discriminator_updater = self.updaters["discriminator"]
        updates = discriminator_updater.updates
        due = updates % config.discriminator_steps == config.discriminator_steps - 1
        penalised = config.r1 > 0 and updates % config.r1_every == 0
        with self.autocast():
            # Both updates use the same generated images: one forward pass of the generator.
            with torch.set_grad_enabled(due):
                fake = generator(self.draw(len(batch.x)))
            # Real and generated images are separate batches, with separate batch statistics.
            real_B = discriminator(self._seen(batch.x)).float()
            fake_B = discriminator(self._seen(fake.detach())).float()
        # Update the discriminator, with its gradient penalties.
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
        # Update the generator, then its moving average (float16 may have skipped the update).
        if due:
            with self.autocast():
                fooled_B = discriminator(self._seen(fake)).float()
            loss = gan_losses.generator_loss(config.loss, fooled_B)
            before = generator_updater.updates
            generator_updater.step(loss)
            values["generator_loss"] = loss.detach() * config.discriminator_steps
            if config.ema and generator_updater.updates > before:
                self._average(generator_updater.updates)
        return values

    def _seen(self, x_BCHW: Tensor) -> Tensor:
        """Return the images as the discriminator receives them: augmented by DiffAugment."""
        return (
            diff_augment(x_BCHW, self.config.diffaugment, self.world)
            if self.config.diffaugment
            else x_BCHW
        )

    def _r1(self, x_BCHW: Tensor) -> Tensor:
        # A logit's penalty is the sum over its `pack` images; this is the mean over logits.
        return gan_losses.squared_gradient(self._logits, x_BCHW).mean() * self.config.model.pack

    def _logits(self, x_BCHW: Tensor) -> Tensor:
        return self._pair[1](self._seen(x_BCHW)).float()

    @torch.no_grad()
    def _average(self, updates: int) -> None:
        # The decay grows over the first updates, so that the average forgets the random initial
        # weights. The statistics of batch norms are averaged too, because they belong to the
        # weights; counters are not averaged.
        decay = min(self.config.ema, (1 + updates) / (10 + updates))
        average, present = self._averaged
        get_ema_multi_avg_fn(decay)(average, present, updates)

    def evaluate(self, split: Split) -> dict[str, float]:
        """Evaluate new samples: `loss` (a Fréchet distance to the split) and the discriminator's
        accuracies on the split's images and on the samples.
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
        extractor = self._extractor
        label = data.train.label  # may have a single class, because of `--without`
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
        return figures

    def _generated(self, count: int) -> Tensor:
        return torch.cat(
            [
                self.generator.generate(self.draw(min(250, count - at)))
                for at in range(0, count, 250)
            ]
        )

    def pictures(self, data: Data) -> dict[str, np.ndarray]:
        """Return a grid of 64 samples, always from the same z."""
        return {"samples": image_grid(self.generator.generate(self.draw(64)), -1.0, 1.0)}

    def export(self) -> Export:
        """Return the generator; the discriminator is not saved."""
        model = self.config.model
        names = ["network", "latent", "prior", "kernel", "slope", "generator_norm"]
        config = {name: getattr(model, name) for name in names}
        config |= {
            "generator_widths": list(model.generator_widths),
            "shape": list(self.generator.shape),
        }
        config |= {"low": -1.0, "high": 1.0, "loss": self.config.loss, "ema": self.config.ema}
        prior = "U(−1, 1)" if model.prior == "uniform" else "N(0, 1)"
        card = (
            f"# Generator of a GAN\n\n{model.network}, z ~ {prior} of {model.latent} numbers, "
            "images in −1..1. "
            f"Trained with the {self.config.loss} loss"
            + (
                f"; weights are a moving average of decay {self.config.ema:g}"
                if self.config.ema
                else ""
            )
            + ". The discriminator is not kept.\n"
        )
        return Export("gan", config, dict(self.generator.state_dict()), card)


def _floating(network: nn.Module) -> list[Tensor]:
    """Return the floating-point weights and statistics of a network, in a fixed order."""
    return [
        tensor
        for tensor in (*network.parameters(), *network.buffers())
        if tensor.is_floating_point()
    ]
