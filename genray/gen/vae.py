"""Variational autoencoders (VAE): Gaussian prior and posterior, Bernoulli or Gaussian decoder.

Bounds are in nats for each image.
[Kingma 2014, https://arxiv.org/abs/1312.6114]
Shapes: B batch, Z latent, K importance samples, C channels, H height, W width.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genray.bounds import bounded, check_bounds
from genray.errors import require
from genray.gen.data.config import DataConfig
from genray.gen.data.types import Data, Split, need_images
from genray.gen.generative import GenerativeModel, image_grid
from genray.gen.layers import SameConv2d, SameConvTranspose2d, activation_layer, fan_out
from genray.gen.training.config import FitConfig
from genray.gen.training.optimizers import OptimizerConfig
from genray.gen.training.task import Batch, Export, Task
from genray.gen.training.updater import Updater
from genray.gen.training.world import ALONE, World
from genray.shapes import check_equal_shapes, check_shapes

Binarisation = Literal["none", "threshold", "fixed", "dynamic"]
LOG_2PI = math.log(2 * math.pi)
# Bound of the posterior's |log-variance|: with a learning rate that is too high, the first steps
# would overflow beyond e^20.
LOG_VARIANCE_LIMIT = 20.0


@dataclass(frozen=True, kw_only=True)
class VAEModelConfig:
    """The encoder's and decoder's networks, and the likelihood of the data."""

    network: Literal["dense", "conv"] = "dense"
    latent: int = bounded(20, min=1, example=20)
    """Dimension of the latent code."""
    widths: tuple[int, ...] = bounded((400,), min=1, example=400)
    """dense: units of each hidden layer. conv: channels of each 3x3 convolution of stride 2. The
    decoder has the same widths in reverse.
    """
    activation: str = "relu"
    likelihood: Literal["bernoulli", "gaussian"] = "bernoulli"
    decoder_std: float = bounded(0.0, min=0, note="(0: learned)", example=0.1)
    """Standard deviation of the Gaussian decoder; 0: learn one value for all pixels."""
    binarise: Binarisation = "none"
    """Whether pixels become 0 or 1. threshold: at 1/2; fixed: drawn once, with the pixel's value
    as probability of 1; dynamic: drawn anew at each step. Bounds are only comparable between
    models with the same binarisation."""

    def validate(self) -> None:
        check_bounds(self)
        require(len(self.widths) >= 1, "--widths (none): give one layer or more, e.g. 400")
        require(
            self.likelihood == "bernoulli" or self.binarise == "none",
            f"--binarise {self.binarise}: pixels of 0 and 1 want --likelihood bernoulli",
        )


@dataclass(frozen=True, kw_only=True)
class VAEConfig:
    """Configuration of a variational autoencoder on images."""

    data: DataConfig = field(default_factory=DataConfig)
    fit: FitConfig = field(default_factory=FitConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    model: VAEModelConfig = field(default_factory=VAEModelConfig)
    beta: float = bounded(1.0, min=0, example=1)
    """Weight of the KL term. [Higgins 2017, https://openreview.net/forum?id=Sy2fzU9gl]"""
    free_bits: float = bounded(0.0, min=0, example=0.1)
    """KL of each latent (nats, mean over the batch) below which the loss does not penalise it.
    [Kingma 2016, https://arxiv.org/abs/1606.04934]"""
    importance_samples: int = bounded(50, min=1, example=50)
    """Samples (K) of the importance-weighted bound on the test split.
    [Burda 2016, https://arxiv.org/abs/1509.00519]"""

    def validate(self) -> None:
        for part in (self.data, self.fit, self.optimizer, self.model):
            part.validate()
        check_bounds(self)


# -- the equations ---------------------------------------------------------------------------------


def gaussian_kl(mean_BZ: Tensor, log_variance_BZ: Tensor) -> Tensor:
    """Return KL(N(μ, σ²) ‖ N(0, 1)) = ½ (μ² + σ² − 1 − ln σ²) of each latent, nats, [B, Z].
    [Kingma 2014, appendix B]"""
    check_shapes(mean_BZ=mean_BZ, log_variance_BZ=log_variance_BZ)
    return 0.5 * (mean_BZ.square() + log_variance_BZ.exp() - 1.0 - log_variance_BZ)


def gaussian_log_density(x: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """Return ln N(x; μ, σ²) of each element, nats. The three tensors have one shape."""
    check_equal_shapes(x=x, mean=mean, log_variance=log_variance)
    return -0.5 * (LOG_2PI + log_variance + (x - mean).square() * (-log_variance).exp())


def binarised(x: Tensor, how: Binarisation, chance: Tensor | None = None) -> Tensor:
    """Turn pixels in [0, 1] into 0 or 1. `chance`: U[0, 1) in x's shape, for drawn pixels."""
    if how == "none":
        return x
    if chance is not None:
        check_equal_shapes(x=x, chance=chance)
    return (x > (0.5 if how == "threshold" or chance is None else chance)).to(x.dtype)


# -- the model -------------------------------------------------------------------------------------


class VAE(GenerativeModel):
    """The encoder and decoder. Departure: by default ReLU and Adam; the paper has tanh and AdaGrad.

    `config`: the networks. `shape`: (C, H, W) of the images, whose values are in [0, 1]."""

    def __init__(self, config: VAEModelConfig, shape: Sequence[int]):
        super().__init__(latent=config.latent, prior="normal", shape=shape, low=0.0, high=1.0)
        self.config = config
        build = _dense if config.network == "dense" else _convolutional
        self.encoder, self.decoder = build(config, self.shape)
        # ln σ of the Gaussian decoder, one number, fixed or learned.
        # [σ-VAE: Rybkin 2021, https://arxiv.org/abs/2006.13202]
        log_std = (
            torch.tensor(math.log(config.decoder_std)) if config.decoder_std else torch.tensor(0.0)
        )
        learned = config.likelihood == "gaussian" and not config.decoder_std
        self.log_std = nn.Parameter(log_std, requires_grad=learned)

    def posterior(self, x_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean and log-variance of q(z | x), float32 [B, Z] each; x in [0, 1]."""
        mean_BZ, log_variance_BZ = self.encoder(x_BCHW).float().chunk(2, dim=1)
        return mean_BZ, log_variance_BZ.clamp(-LOG_VARIANCE_LIMIT, LOG_VARIANCE_LIMIT)

    def encode(self, x_BCHW: Tensor) -> Tensor:
        """Return the codes, which are the posterior's means, float32 [B, Z]."""
        return self.posterior(x_BCHW)[0]

    def decode(self, z_BZ: Tensor) -> Tensor:
        """Return the mean of p(x | z), float32 [B, C, H, W].

        A Bernoulli decoder's values are in [0, 1]; a Gaussian decoder's may lie outside."""
        output = self.decoder(z_BZ).float()
        return output.sigmoid() if self.config.likelihood == "bernoulli" else output

    def generate(self, z_BZ: Tensor) -> Tensor:
        return self.decode(z_BZ)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return reconstructions of x from the posterior's means."""
        return self.decode(self.encode(x_BCHW))

    def log_likelihood(self, x_BCHW: Tensor, z_BZ: Tensor) -> Tensor:
        """Return ln p(x | z), nats, float32 [B]. Raises ValueError unless x has the model's shape.

        For grey pixels, the Bernoulli value is a cross-entropy and not a likelihood. The Gaussian
        value is a log-density, which may be above 0. The two kinds are not comparable.
        """
        output = self.decoder(z_BZ).float()
        check_shapes(x_BCHW=x_BCHW, output_BCHW=output)
        if self.config.likelihood == "bernoulli":
            return (
                -F.binary_cross_entropy_with_logits(output, x_BCHW, reduction="none")
                .flatten(1)
                .sum(1)
            )
        # All pixels have the same variance, so their squared errors are summed first. This takes
        # a third of the passes over the pixels.
        square_B = F.mse_loss(output, x_BCHW, reduction="none").flatten(1).sum(1)
        log_variance = 2.0 * self.log_std
        return -0.5 * (
            x_BCHW[0].numel() * (LOG_2PI + log_variance) + square_B * (-log_variance).exp()
        )

    def elbo_terms(self, x_BCHW: Tensor, noise_BZ: Tensor) -> tuple[Tensor, Tensor]:
        """Return ln p(x | z) [B] at z = μ + σ·noise, and the KL of each latent [B, Z], nats.

        The ELBO is ln p(x | z) minus the sum of KL over latents."""
        mean_BZ, log_variance_BZ = self.posterior(x_BCHW)
        check_shapes(mean_BZ=mean_BZ, noise_BZ=noise_BZ)
        z_BZ = mean_BZ + (0.5 * log_variance_BZ).exp() * noise_BZ
        return self.log_likelihood(x_BCHW, z_BZ), gaussian_kl(mean_BZ, log_variance_BZ)

    def importance_bound(self, x_BCHW: Tensor, samples: int) -> Tensor:
        """Return the importance-weighted bound ln 1/K Σ p(x, z_k) / q(z_k | x), z_k ~ q, nats, [B].

        In expectation, the bound is between the ELBO and ln p(x). [Burda 2016]"""
        mean_BZ, log_variance_BZ = self.posterior(x_BCHW)
        log_weights = []
        for _ in range(samples):
            z_BZ = mean_BZ + (0.5 * log_variance_BZ).exp() * torch.randn_like(mean_BZ)
            prior_B = gaussian_log_density(
                z_BZ, torch.zeros_like(z_BZ), torch.zeros_like(z_BZ)
            ).sum(1)
            posterior_B = gaussian_log_density(z_BZ, mean_BZ, log_variance_BZ).sum(1)
            log_weights.append(self.log_likelihood(x_BCHW, z_BZ) + prior_B - posterior_B)
        return torch.stack(log_weights).logsumexp(0) - math.log(samples)


def _dense(config: VAEModelConfig, shape: tuple[int, int, int]) -> tuple[nn.Module, nn.Module]:
    pixels, kind = math.prod(shape), config.activation
    encoder: list[nn.Module] = [nn.Flatten()]
    decoder: list[nn.Module] = []
    for inputs, outputs in zip((pixels, *config.widths), config.widths):
        encoder += [nn.Linear(inputs, fan_out(kind, outputs)), activation_layer(kind)]
    widths = config.widths[::-1]
    for inputs, outputs in zip((config.latent, *widths), widths):
        decoder += [nn.Linear(inputs, fan_out(kind, outputs)), activation_layer(kind)]
    encoder.append(nn.Linear(config.widths[-1], 2 * config.latent))
    decoder += [nn.Linear(widths[-1], pixels), nn.Unflatten(1, shape)]
    return nn.Sequential(*encoder), nn.Sequential(*decoder)


def _convolutional(
    config: VAEModelConfig, shape: tuple[int, int, int]
) -> tuple[nn.Module, nn.Module]:
    (channels, height, width), kind = shape, config.activation
    halvings = len(config.widths)
    height, width = height >> halvings, width >> halvings
    encoder: list[nn.Module] = []
    for inputs, outputs in zip((channels, *config.widths), config.widths):
        encoder += [SameConv2d(inputs, fan_out(kind, outputs), 3, stride=2), activation_layer(kind)]
    encoder += [nn.Flatten(), nn.Linear(config.widths[-1] * height * width, 2 * config.latent)]
    back = config.widths[::-1]
    first = fan_out(kind, back[0])
    decoder = [
        nn.Linear(config.latent, first * height * width),
        nn.Unflatten(1, (first, height, width)),
    ]
    for inputs, outputs in zip(back, (*(fan_out(kind, width) for width in back[1:]), channels)):
        decoder += [activation_layer(kind), SameConvTranspose2d(inputs, outputs, 3, stride=2)]
    return nn.Sequential(*encoder), nn.Sequential(*decoder)


def build_vae(config: dict[str, Any]) -> VAE:
    """Build the VAE that a saved model's `config` describes, for the model store (kind "vae")."""
    names = VAEModelConfig.__dataclass_fields__
    values = {name: config[name] for name in names}
    return VAE(VAEModelConfig(**{**values, "widths": tuple(config["widths"])}), config["shape"])


# -- training --------------------------------------------------------------------------------------


class VAETask(Task):
    """Trains a VAE: maximises E ln p(x | z) − β KL."""

    shown = ("loss", "reconstruction", "kl")
    value_range = (0.0, 1.0)

    def __init__(self, config: VAEConfig, world: World = ALONE, device: torch.device | str = "cpu"):
        config.validate()
        super().__init__(world, device, config.fit.amp)
        self.config = config

    @property
    def vae(self) -> VAE:
        return cast(VAE, self.networks["vae"])

    def begin_stage(self, stage: int, data: Data, total_updates: int) -> Data:
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
        x_BCHW, config = batch.x, self.config
        if config.model.binarise == "dynamic":
            chance = self.world.uniform(len(x_BCHW), *x_BCHW.shape[1:], device=self.device)
            x_BCHW = binarised(x_BCHW, "dynamic", chance)
        noise_BZ = self.world.normal(len(x_BCHW), config.model.latent, device=self.device)
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
        """Evaluate: `loss` is −ELBO (β = 1, no free bits), in nats an image; then its two terms
        and the MSE of reconstructions from the means.
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
        """Run `evaluate` on the test split, and add −(importance-weighted bound), nats an image."""
        samples = self.config.importance_samples
        split = data.test
        if self.config.model.binarise == "fixed":
            split = _binarised_once(split, "fixed")
        total = sum(self.vae.importance_bound(x, samples).sum().item() for x in self._chunks(split))
        return {**self.evaluate(split), f"negative_iwae_{samples}": -total / len(split)}

    def pictures(self, data: Data) -> dict[str, np.ndarray]:
        """Return 64 samples from fixed noise, and 16 validation images with reconstructions."""
        z_BZ = torch.randn(64, self.config.model.latent, device=self.device)
        pictures = {"samples": image_grid(self.vae.generate(z_BZ), 0.0, 1.0)}
        if len(data.validation):
            x_BCHW = next(self._chunks(data.validation.first(16)))
            rows = [
                part for half in zip(x_BCHW.split(8), self.vae(x_BCHW).split(8)) for part in half
            ]
            pictures["reconstructions"] = image_grid(torch.cat(rows), 0.0, 1.0)
        return pictures

    def _chunks(self, split: Split, size: int = 1000):
        """Yield the split's images, binarised; images that are binary already do not change."""
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
    """Binarise the whole split; "fixed" draws with seed 0, so that all runs have equal images."""
    chance = None
    if how == "fixed":
        chance = torch.rand(split.values.shape, generator=torch.Generator().manual_seed(0)).to(
            split.values.device
        )
    values = binarised(split.all(), how, chance)
    if split.values.dtype == torch.uint8:
        values = values.mul_(255).to(torch.uint8)
    return replace(split, values=values)
