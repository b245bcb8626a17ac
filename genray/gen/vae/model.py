"""Networks of a variational autoencoder (VAE), its reconstructions and its two bounds.

The prior and the posterior are Gaussian; the decoder is Bernoulli or Gaussian with a diagonal
covariance. Bounds are in nats for each image.
[Kingma 2014, https://arxiv.org/abs/1312.6114]
Shapes: B batch, Z latent, K importance samples, C channels, H height, W width.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genray.gen.generative import GenerativeModel
from genray.gen.layers import (
    SameConv2d,
    SameConvTranspose2d,
    activation_layer,
    dropout_layers,
    fan_out,
)
from genray.gen.vae.config import VAEModelConfig
from genray.gen.vae.equations import LOG_2PI, gaussian_kl, gaussian_log_density
from genray.shapes import check_shapes

# Limit of the posterior's |log-variance|. Without a limit, exp(log-variance) could overflow in the
# first steps when the learning rate is too high.
LOG_VARIANCE_LIMIT = 20.0


class VAE(GenerativeModel):
    """The encoder and the decoder. Departure: ReLU and Adam by default, not tanh and AdaGrad.

    Args:
        config: the networks and the likelihood.
        shape: (C, H, W) of the images, whose values are in [0, 1].

    Raises:
        ConfigError: the activation is unknown.
    """

    def __init__(self, config: VAEModelConfig, shape: Sequence[int]):
        super().__init__(latent=config.latent, prior="normal", shape=shape, low=0.0, high=1.0)
        self.config = config
        build = _dense if config.network == "dense" else _convolutional
        self.encoder, self.decoder = build(config, self.shape)
        # ln σ of the Gaussian decoder: one number for all pixels, fixed or learned.
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
        """Return the mean of p(x | z), float32 [B, C, H, W]; `draw` adds the noise.

        A Bernoulli decoder's values are in [0, 1]; a Gaussian decoder's can be outside.
        """
        return self._pixels(z_BZ)[0]

    def _pixels(self, z_BZ: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean and the log-variance of each pixel given z, [B, C, H, W] each.

        The log-variance of a Gaussian decoder is a scalar; that of a Bernoulli decoder is unused.
        """
        output = self.decoder(z_BZ).float()
        if self.config.likelihood == "bernoulli":
            return output.sigmoid(), output.new_zeros(())
        if self.config.likelihood == "gaussian":
            return output, 2.0 * self.log_std
        # The decoder's second half is ln σ of each pixel, softly limited from below so that the
        # gradient does not vanish at the limit. [Rybkin 2021, section 3.3]
        mean, log_std = output.chunk(2, dim=1)
        least = math.log(self.config.least_std)
        return mean, 2.0 * (least + F.softplus(log_std - least))

    def draw(self, z_BZ: Tensor, random: torch.Generator) -> Tensor:
        """Draw images from p(x | z).

        Pixels are 0 or 1 with a Bernoulli decoder, and can be outside 0..1 with a Gaussian one.
        """
        mean, log_variance = self._pixels(z_BZ)
        if self.config.likelihood == "bernoulli":
            chance = torch.rand(mean.shape, generator=random).to(mean.device)
            return (chance < mean).float()
        noise = torch.randn(mean.shape, generator=random).to(mean.device)
        return mean + (0.5 * log_variance).exp() * noise

    def generate(self, z_BZ: Tensor) -> Tensor:
        return self.decode(z_BZ)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return reconstructions of x from the posterior's means."""
        return self.decode(self.encode(x_BCHW))

    def log_likelihood(self, x_BCHW: Tensor, z_BZ: Tensor) -> Tensor:
        """Return ln p(x | z), nats, float32 [B].

        For grey pixels, the Bernoulli value is a negative cross-entropy and not a log-likelihood.
        The Gaussian value is a log-density, which may be above 0. Bernoulli and Gaussian values are
        not comparable. Raises ValueError unless x has the model's shape.
        """
        if self.config.likelihood == "gaussian-diagonal":
            mean, log_variance = self._pixels(z_BZ)
            check_shapes(x_BCHW=x_BCHW, mean_BCHW=mean)
            return gaussian_log_density(x_BCHW, mean, log_variance).flatten(1).sum(1)
        output = self.decoder(z_BZ).float()
        check_shapes(x_BCHW=x_BCHW, output_BCHW=output)
        if self.config.likelihood == "bernoulli":
            return (
                -F.binary_cross_entropy_with_logits(output, x_BCHW, reduction="none")
                .flatten(1)
                .sum(1)
            )
        # All pixels have the same variance, so their squared errors are summed first. This order
        # needs a third of the passes over the pixels.
        square_B = F.mse_loss(output, x_BCHW, reduction="none").flatten(1).sum(1)
        log_variance = 2.0 * self.log_std
        return -0.5 * (
            x_BCHW[0].numel() * (LOG_2PI + log_variance) + square_B * (-log_variance).exp()
        )

    def elbo_terms(self, x_BCHW: Tensor, noise_BZ: Tensor) -> tuple[Tensor, Tensor]:
        """Return ln p(x | z) [B] at z = μ + σ·noise, and the KL of each latent [B, Z], nats.

        ln p(x | z) minus the sum of KL over latents estimates the ELBO with one sample of z.
        """
        mean_BZ, log_variance_BZ = self.posterior(x_BCHW)
        check_shapes(mean_BZ=mean_BZ, noise_BZ=noise_BZ)
        z_BZ = mean_BZ + (0.5 * log_variance_BZ).exp() * noise_BZ
        return self.log_likelihood(x_BCHW, z_BZ), gaussian_kl(mean_BZ, log_variance_BZ)

    def importance_bound(self, x_BCHW: Tensor, samples: int) -> Tensor:
        """Return the importance-weighted bound ln(1/K Σ p(x, z_k) / q(z_k | x)), nats, [B].

        The K = `samples` latents z_k are drawn from q(z | x). In expectation, the bound is between
        the ELBO and ln p(x).
        [Burda 2016, https://arxiv.org/abs/1509.00519]
        """
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


def _decoder_channels(config: VAEModelConfig, shape: tuple[int, int, int]) -> int:
    """Return the channels of the decoder's output: means, and ln σ of a diagonal Gaussian."""
    return shape[0] * (2 if config.likelihood == "gaussian-diagonal" else 1)


def _dense(config: VAEModelConfig, shape: tuple[int, int, int]) -> tuple[nn.Module, nn.Module]:
    pixels, kind = math.prod(shape), config.activation
    encoder: list[nn.Module] = [nn.Flatten()]
    decoder: list[nn.Module] = []
    for inputs, outputs in zip((pixels, *config.widths), config.widths):
        encoder += [nn.Linear(inputs, fan_out(kind, outputs)), activation_layer(kind)]
        encoder += dropout_layers(config.dropout)
    widths = config.widths[::-1]
    for inputs, outputs in zip((config.latent, *widths), widths):
        decoder += [nn.Linear(inputs, fan_out(kind, outputs)), activation_layer(kind)]
        decoder += dropout_layers(config.dropout)
    encoder.append(nn.Linear(config.widths[-1], 2 * config.latent))
    output = (_decoder_channels(config, shape), *shape[1:])
    decoder += [nn.Linear(widths[-1], math.prod(output)), nn.Unflatten(1, output)]
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
        encoder += dropout_layers(config.dropout)
    encoder += [nn.Flatten(), nn.Linear(config.widths[-1] * height * width, 2 * config.latent)]
    back = config.widths[::-1]
    first = fan_out(kind, back[0])
    decoder: list[nn.Module] = [
        nn.Linear(config.latent, first * height * width),
        nn.Unflatten(1, (first, height, width)),
    ]
    last = _decoder_channels(config, shape)
    for inputs, outputs in zip(back, (*(fan_out(kind, width) for width in back[1:]), last)):
        decoder += [activation_layer(kind), *dropout_layers(config.dropout)]
        decoder.append(SameConvTranspose2d(inputs, outputs, 3, stride=2))
    return nn.Sequential(*encoder), nn.Sequential(*decoder)


def build_vae(config: dict[str, Any]) -> VAE:
    """Build the VAE that a saved model's `config` describes, for the model store (kind "vae")."""
    # The config of a model of an older version lacks some options, which have their defaults.
    values = {name: config[name] for name in VAEModelConfig.__dataclass_fields__ if name in config}
    return VAE(VAEModelConfig(**{**values, "widths": tuple(config["widths"])}), config["shape"])
