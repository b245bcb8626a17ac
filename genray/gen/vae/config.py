"""Options of a variational autoencoder: data, training, networks and the objective."""

from dataclasses import dataclass, field
from typing import Literal

from genray.bounds import bounded, check_bounds
from genray.errors import require
from genray.gen.data.config import DataConfig
from genray.gen.training.config import FitConfig
from genray.gen.training.optimizers import OptimizerConfig

Binarisation = Literal["none", "threshold", "fixed", "dynamic"]


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
    dropout: float = bounded(0.0, min=0, below=1, example=0.1)
    """Dropout probability of each hidden layer of both networks, in training."""
    likelihood: Literal["bernoulli", "gaussian", "gaussian-diagonal"] = "bernoulli"
    """Distribution of the pixels given z. gaussian: one standard deviation for all pixels and
    images; gaussian-diagonal: the decoder gives each pixel of each image its own.
    """
    decoder_std: float = bounded(0.0, min=0, note="(0: learned)", example=0.1)
    """Standard deviation of the Gaussian decoder; 0: learn one value for all pixels."""
    least_std: float = bounded(0.05, above=0, example=0.05)
    """Least standard deviation of a pixel with --likelihood gaussian-diagonal. Without a limit,
    the density of pixels that never change, such as the margins of digits, would have no bound.
    """
    binarise: Binarisation = "none"
    """Whether pixels become 0 or 1. threshold: at 1/2; fixed: drawn once, with the pixel's value
    as probability of 1; dynamic: drawn anew at each step. Bounds are only comparable between
    models with the same binarisation."""

    def validate(self) -> None:
        check_bounds(self)
        require(len(self.widths) >= 1, "--widths (none): give one layer or more, e.g. 400")
        require(
            self.likelihood == "bernoulli" or self.binarise == "none",
            f"--binarise {self.binarise}: pixels of 0 and 1 need --likelihood bernoulli",
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
    """KL of each latent (nats, mean over the batch) up to which the loss does not penalise the KL.
    [Kingma 2016, https://arxiv.org/abs/1606.04934]"""
    importance_samples: int = bounded(50, min=1, example=50)
    """Number of samples (K) of the importance-weighted bound on the test split.
    [Burda 2016, https://arxiv.org/abs/1509.00519]"""

    def validate(self) -> None:
        for part in (self.data, self.fit, self.optimizer, self.model):
            part.validate()
        check_bounds(self)
        # Before texts are read, which takes seconds.
        require(
            not self.data.is_text,
            f"--data {self.data.data}: a VAE needs images; choose e.g. --data digits",
        )
