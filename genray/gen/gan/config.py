"""Options of a GAN: data, training, networks, losses and penalties."""

from dataclasses import dataclass, field
from typing import Literal

from genray.bounds import bounded, check_bounds
from genray.errors import require
from genray.gen.data.config import DataConfig
from genray.gen.gan.diffaugment import Change
from genray.gen.gan.losses import Loss
from genray.gen.generative import Prior
from genray.gen.training.config import FitConfig
from genray.gen.training.optimizers import OptimizerConfig
from genray.paths import PathOrUrl


@dataclass(frozen=True, kw_only=True)
class GANModelConfig:
    """Configuration of the generator's and the discriminator's networks."""

    network: Literal["dense", "conv"] = "dense"
    latent: int = bounded(100, min=1, example=100)
    """Dimension of the latent z."""
    prior: Prior = "uniform"
    """Prior of z: U(−1, 1) or N(0, 1)."""
    generator_widths: tuple[int, ...] = bounded((128,), min=1, example=128)
    """dense: units of each hidden layer. conv: channels of each layer, smallest image first; each
    layer doubles height and width.
    """
    discriminator_widths: tuple[int, ...] = bounded((128,), min=1, example=128)
    """dense: units of each hidden layer. conv: channels of each layer; each layer halves height
    and width.
    """
    pack: int = bounded(1, min=1, example=4)
    """Number of images, stacked as channels, that the discriminator classifies together. More
    than 1 lets the discriminator detect mode collapse.
    [PacGAN: Lin 2018, https://arxiv.org/abs/1712.04086]
    """
    kernel: int = bounded(5, min=2, example=5)
    """Side of the convolutions' kernels in pixels (conv)."""
    slope: float = bounded(0.01, min=0, below=1, example=0.2)
    """Slope of the leaky ReLU below 0."""
    generator_norm: Literal["none", "batch"] = "none"
    """Batch norm in every layer of the generator except the output."""
    discriminator_norm: Literal["none", "batch", "spectral"] = "none"
    """Batch norm in every layer except the first and the output, or spectral norm in all layers.
    [Miyato 2018, https://arxiv.org/abs/1802.05957]"""

    generator_dropout: float = bounded(0.0, min=0, below=1, example=0.1)
    """Dropout probability of each hidden layer of the generator, in training. Samples are drawn
    without dropout.
    """
    discriminator_dropout: float = bounded(0.0, min=0, below=1, example=0.3)
    """Dropout probability of each hidden layer of the discriminator, in training."""

    def validate(self) -> None:
        check_bounds(self)
        for name, widths in (
            ("generator", self.generator_widths),
            ("discriminator", self.discriminator_widths),
        ):
            require(len(widths) >= 1, f"--{name}-widths (none): give one layer or more, e.g. 128")


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
    """One-sided label smoothing: the label of real images is 1 minus this number."""
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
    """Updates of the discriminator between R1 penalties, and the factor of each penalty.
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
            "--discriminator-norm batch: wgan-gp penalises each image alone; use none or spectral",
        )
        require(
            self.loss != "wgan-gp" or self.model.pack == 1,
            f"--pack {self.model.pack}: wgan-gp penalises each image alone; use 1",
        )
