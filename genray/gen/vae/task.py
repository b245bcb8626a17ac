"""Trains variational autoencoders: maximises the evidence lower bound (ELBO).

Shapes: B batch, Z latent, C channels, H height, W width.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import cast

import numpy as np
import torch
from torch import Tensor

from genray.errors import require
from genray.gen.data.types import Data, Split, need_images
from genray.gen.generative import image_grid, to_uint8
from genray.gen.training.task import Batch, Export, Task
from genray.gen.training.updater import Updater
from genray.gen.training.world import ALONE, World
from genray.gen.vae.config import Binarisation, VAEConfig, VAEModelConfig
from genray.gen.vae.equations import binarised
from genray.gen.vae.model import VAE


class VAETask(Task):
    """Trains a VAE: maximises E ln p(x | z) − β KL, with free bits.

    `begin_stage` raises ConfigError unless the data are square images in 0..1. For a convolutional
    network, the side must also be divisible by 2 once for each layer.

    Args:
        config: the VAE's configuration.
        world: this data-parallel worker.
        device: the device on which the network is trained.
    """

    shown = ("loss", "reconstruction", "kl")
    curves = (
        ("−ELBO, nats an image", ("loss", "validation_loss")),
        ("KL, nats an image", ("kl", "validation_kl")),
    )
    value_range = (0.0, 1.0)

    def __init__(self, config: VAEConfig, world: World = ALONE, device: torch.device | str = "cpu"):
        config.validate()
        super().__init__(world, device, config.fit.amp)
        self.config = config

    @property
    def vae(self) -> VAE:
        """The network, which `begin_stage` creates."""
        return cast(VAE, self.networks["vae"])

    def begin_stage(self, stage: int, data: Data, total_updates: int) -> Data:
        # Refuse data that the network cannot take.
        config = self.config
        halvings = len(config.model.widths) if config.model.network == "conv" else 0
        need_images(
            data,
            f"a VAE with {halvings} convolutions of stride 2" if halvings else "a VAE",
            2**halvings,
        )
        require(
            (data.train.low, data.train.high) == self.value_range,
            f"--data {data.name}: its values lie in {data.train.low:g}..{data.train.high:g}; a VAE "
            "needs 0..1",
        )
        # Create the network and its updater.
        self.networks["vae"] = VAE(config.model, data.shape).to(self.device)
        learned = [parameter for parameter in self.vae.parameters() if parameter.requires_grad]
        self.updaters["vae"] = Updater(
            learned,
            config.optimizer,
            total_updates=total_updates,
            accumulate=config.fit.accumulate,
            amp=config.fit.amp,
            world=self.world,
        )
        # Binarise all splits once, if this is the configured kind of binarisation.
        if config.model.binarise in ("threshold", "fixed"):
            how = config.model.binarise
            return replace(
                data,
                train=_binarised_once(data.train, how),
                validation=_binarised_once(data.validation, how),
                test=data.test if data.is_sealed else _binarised_once(data.test, how),
            )
        return data

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """Update the network; returns `loss`, `reconstruction` and `kl`, in nats for each image."""
        x_BCHW, config = batch.x, self.config
        # Draw binary pixels and the noise of the latents.
        if config.model.binarise == "dynamic":
            chance = self.world.uniform(len(x_BCHW), *x_BCHW.shape[1:], device=self.device)
            x_BCHW = binarised(x_BCHW, "dynamic", chance)
        noise_BZ = self.world.normal(len(x_BCHW), config.model.latent, device=self.device)
        # Compute the two terms of the ELBO, and the loss −E ln p(x | z) + β KL. Latents whose KL is
        # below the free bits have no gradient from the KL.
        with self.autocast():
            likelihood_B, kl_BZ = self.vae.elbo_terms(x_BCHW, noise_BZ)
        reconstruction, kl_Z = -likelihood_B.mean(), kl_BZ.mean(0)
        penalty = kl_Z.clamp(min=config.free_bits).sum() if config.free_bits else kl_Z.sum()
        loss = reconstruction + config.beta * penalty
        self.updaters["vae"].step(loss)
        return {
            "loss": loss.detach(),
            "reconstruction": reconstruction.detach(),
            "kl": kl_Z.detach().sum(),
        }

    def evaluate(self, split: Split) -> dict[str, float]:
        """Return `loss`, its two terms `reconstruction` and `kl`, and `mse`.

        `loss` is −ELBO (β = 1, no free bits) in nats for each image. `mse` is the error of
        reconstructions from the posterior's means.
        """
        sums = torch.zeros(3, dtype=torch.float64, device=self.device)
        for x_BCHW in self._chunks(split):
            noise_BZ = torch.randn(len(x_BCHW), self.config.model.latent, device=self.device)
            likelihood_B, kl_BZ = self.vae.elbo_terms(x_BCHW, noise_BZ)
            error = (self.vae(x_BCHW) - x_BCHW).square().flatten(1).mean(1)
            sums += torch.stack([-likelihood_B.sum(), kl_BZ.sum(), error.sum()])
        reconstruction, kl, mse = (sums / len(split)).tolist()
        return {"loss": reconstruction + kl, "reconstruction": reconstruction, "kl": kl, "mse": mse}

    def test(self, data: Data) -> dict[str, float]:
        """Run `evaluate` on the test split, and add `negative_iwae_K`.

        This is the negative of the importance-weighted bound with K samples, in nats for each
        image.
        """
        samples = self.config.importance_samples
        split = data.test
        if self.config.model.binarise == "fixed":
            split = _binarised_once(split, "fixed")
        self.remark = (
            f"loss and negative_iwae_{samples}: nats an image, {len(split):,} test images, "
            f"binarisation {self.config.model.binarise}, {self.config.model.likelihood} decoder"
        )
        total = sum(self.vae.importance_bound(x, samples).sum().item() for x in self._chunks(split))
        return {**self.evaluate(split), f"negative_iwae_{samples}": -total / len(split)}

    def pictures(self, data: Data) -> dict[str, np.ndarray]:
        """Return 64 samples from fixed noise, and 16 validation images (if there are any) with
        their reconstructions.
        """
        z_BZ = torch.randn(64, self.config.model.latent, device=self.device)
        pictures = {"samples": image_grid(self.vae.generate(z_BZ), 0.0, 1.0)}
        if len(data.validation):
            x_BCHW = next(self._chunks(data.validation.first(16)))
            rows = [
                part for half in zip(x_BCHW.split(8), self.vae(x_BCHW).split(8)) for part in half
            ]
            pictures["reconstructions"] = image_grid(torch.cat(rows), 0.0, 1.0)
        return pictures

    def progress_images(self) -> np.ndarray:
        """Return 16 samples from fixed noise."""
        z_BZ = torch.randn(16, self.config.model.latent, device=self.device)
        return to_uint8(self.vae.generate(z_BZ), 0.0, 1.0)

    def _chunks(self, split: Split, size: int = 1000) -> Iterator[Tensor]:
        """Yield the split's images, `size` at a time, binarised.

        Images that are binary already stay unchanged.
        """
        for rows in torch.arange(len(split), device=self.device).split(size):
            x_BCHW = split.take(rows)[0]
            yield binarised(x_BCHW, self.config.model.binarise, torch.rand_like(x_BCHW))

    def export(self) -> Export:
        model = self.config.model
        config = {name: getattr(model, name) for name in VAEModelConfig.__dataclass_fields__}
        config |= {
            "widths": list(model.widths),
            "shape": list(self.vae.shape),
            "low": 0.0,
            "high": 1.0,
        }
        config |= {"prior": "normal", "beta": self.config.beta}
        card = (
            f"# Variational autoencoder\n\n{model.network}, {model.latent} latents, prior N(0, I), "
            f"{model.likelihood} "
            f"decoder, β = {self.config.beta:g}, free bits {self.config.free_bits:g}. Bounds are "
            "in nats an image, "
            f"binarisation: {model.binarise}.\n"
        )
        return Export("vae", config, dict(self.vae.state_dict()), card)


def _binarised_once(split: Split, how: Binarisation) -> Split:
    """Binarise the split; "fixed" draws with seed 0, so that all runs have the same images."""
    chance = None
    if how == "fixed":
        chance = torch.rand(split.values.shape, generator=torch.Generator().manual_seed(0)).to(
            split.values.device
        )
    values = binarised(split.all(), how, chance)
    if split.values.dtype == torch.uint8:
        values = values.mul_(255).to(torch.uint8)
    return replace(split, values=values)
