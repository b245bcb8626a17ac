"""Options of pix2pix and CycleGAN: data, training, networks and losses."""

from dataclasses import dataclass, field
from typing import Literal

from genray.bounds import bounded, check_bounds
from genray.errors import require
from genray.gen.data.config import DataConfig, check_name
from genray.gen.training.config import FitConfig
from genray.gen.training.optimizers import OptimizerConfig
from genray.gen.translation.losses import Loss
from genray.paths import DataName, PathOrUrl

Pairs = Literal["edges", "grey", "low", "masked"]
EdgeDetector = Literal["canny", "hed"]


@dataclass(frozen=True, kw_only=True)
class TranslatorModelConfig:
    """Networks of the generators and the discriminators."""

    network: Literal["unet", "resnet"] = "unet"
    """unet: an encoder and a decoder with skip connections; resnet: residual blocks between two
    halvings and two doublings."""
    widths: tuple[int, ...] = bounded((64, 128, 256, 512, 512, 512, 512, 512), min=1, example=64)
    """unet: channels of each layer of the encoder, each of which halves the image. resnet:
    channels of the first convolution and after each halving."""
    residual: int = bounded(9, min=0, example=9)
    """resnet: number of residual blocks."""
    dropout: float = bounded(0.5, min=0, below=1, example=0.5)
    """Probability of dropout in training, in the innermost layers of the unet's decoder, or in the
    residual blocks. Images are translated without dropout."""
    norm: Literal["instance", "batch"] = "instance"
    """instance: each channel of each image is normalised by its own mean and variance. An image
    that is nearly empty, e.g. of few edges, can then get spots; batch: by those of the batch, and
    in translation by their running averages, so that a flat image stays flat."""
    discriminator_width: int = bounded(64, min=1, example=64)
    """Channels of the discriminator's first layer; they double at each layer up to eightfold."""
    discriminator_layers: int = bounded(3, min=1, max=5, example=3)
    """Halvings of the discriminator. Each of its logits sees a patch of 16, 34, 70 (3), 142 or 286
    pixels."""

    @property
    def multiple(self) -> int:
        """Sides of images must be multiples of this number of pixels."""
        return 2 ** (len(self.widths) - (self.network == "resnet"))

    @property
    def least_side(self) -> int:
        """Shortest side that the discriminator takes: its last norm needs two pixels."""
        return 3 * 2**self.discriminator_layers

    def validate(self) -> None:
        check_bounds(self)
        least = 3 if self.network == "unet" else 1
        require(
            least <= len(self.widths) <= 10,
            f"--widths {' '.join(map(str, self.widths)) or '(none)'}: a {self.network} needs "
            f"{least} to 10 numbers, e.g. 64 128 256",
        )


@dataclass(frozen=True, kw_only=True)
class TranslationConfig:
    """Options that pix2pix and CycleGAN share."""

    data: DataConfig = field(default_factory=lambda: DataConfig(data="photos", size=64))
    fit: FitConfig = field(default_factory=FitConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """Optimizer of the generators, and of the discriminators."""
    model: TranslatorModelConfig = field(default_factory=TranslatorModelConfig)
    loss: Loss = "non-saturating"
    """Adversarial loss: non-saturating (cross-entropy) or lsgan (squared error)."""
    ema: float = bounded(0.0, min=0, below=1, example=0.99)
    """Decay of a moving average of the generators' weights, which is evaluated and saved; 0: no
    average."""
    extractor: PathOrUrl = ""
    """Model directory of a classifier, which the final test lets recognise translated images.
    Empty: the final test trains a small classifier when the data have labels."""

    def validate(self) -> None:
        for part in (self.data, self.fit, self.optimizer, self.model):
            part.validate()
        check_bounds(self)
        require(
            not self.data.is_text,
            f"--data {self.data.data}: a translation needs images, e.g. photos",
        )


@dataclass(frozen=True, kw_only=True)
class Pix2PixConfig(TranslationConfig):
    """Configuration of pix2pix, which learns from pairs of an input and its target."""

    pairs: Pairs = "grey"
    """How inputs are made from the images of --data, which are the targets. edges: black edges on
    white; grey: luma; low: a low resolution, scaled up again; masked: a square is missing.
    Files of --data pairs:DIR are pairs already."""
    edge_detector: EdgeDetector = "canny"
    """edges: Canny's detector, or the network HED, which finds outlines rather than texture and
    needs two more packages."""
    edge_sigma: float = bounded(1.0, min=0, max=10, example=1)
    """edges: standard deviation in pixels of the Gaussian blur before Canny's detector."""
    edge_threshold: float = bounded(0.1, min=0, below=1, example=0.1)
    """edges: the lowest probability of an edge of HED, whose edges are thinned to lines; 0: soft
    grey edges, the probabilities themselves."""
    factor: int = bounded(4, min=2, max=16, example=4)
    """low: the input has 1/factor of the target's resolution."""
    direction: Literal["a_to_b", "b_to_a"] = "a_to_b"
    """Of --data pairs:DIR: which side is the input, A or B."""
    adversarial_weight: float = bounded(1.0, min=0, example=1)
    """Weight of the adversarial loss; 0: train with L1 alone, without a discriminator."""
    l1_weight: float = bounded(100.0, min=0, example=100)
    """Weight λ of the mean absolute error, of values in −1..1."""

    @property
    def pairs_kind(self) -> str:
        """How inputs are made: "files" for --data pairs:DIR, otherwise the option --pairs."""
        return "files" if self.data.data.startswith("pairs:") else self.pairs

    def validate(self) -> None:
        super().validate()
        require(
            self.adversarial_weight > 0 or self.l1_weight > 0,
            "--l1-weight 0: with --adversarial-weight 0 nothing is trained; use e.g. 100",
        )
        require(
            self.edge_detector == "canny" or self.pairs_kind != "files",
            f"--edge-detector {self.edge_detector}: --data {self.data.data} has inputs already; "
            "leave it out",
        )
        require(
            self.edge_detector == "canny" or self.pairs_kind == "edges",
            f"--edge-detector {self.edge_detector}: --pairs {self.pairs} has no edges; use --pairs "
            "edges, or leave it out",
        )
        require(
            "colour" not in self.data.augment,
            "--augment colour: would mix the channels of an input and its target; leave it out",
        )
        require(
            not (self.data.grey and self.pairs_kind == "grey"),
            "--grey: inputs of --pairs grey are grey, and their targets need colours; leave it out",
        )


@dataclass(frozen=True, kw_only=True)
class CycleGANConfig(TranslationConfig):
    """Configuration of CycleGAN, which learns from two domains of images without pairs."""

    to: DataName = ""
    """Data set of domain B, e.g. paintings; --data is then domain A. Empty: both domains are
    classes of --data."""
    domains: tuple[str, ...] = ()
    """Two classes of --data, A and B, e.g. two games. Empty: --data has two classes, such as a
    folder with two subfolders."""
    loss: Loss = "lsgan"
    """Adversarial loss: non-saturating (cross-entropy) or lsgan (squared error)."""
    cycle_weight: float = bounded(10.0, min=0, example=10)
    """Weight λ of the cycle losses, of values in −1..1."""
    identity_weight: float = bounded(0.5, min=0, example=0.5)
    """Weight of the identity losses, times λ; 0: none, which saves a third of the work."""
    pool: int = bounded(50, min=0, note="(0: no pool)", example=50)
    """Number of earlier translated images that each discriminator is trained on; 0: no pool."""

    def validate(self) -> None:
        super().validate()
        require(
            not self.data.data.startswith("pairs:"),
            f"--data {self.data.data}: pairs are for `genray train pix2pix`; use e.g. "
            f"folder:{self.data.data.partition(':')[2]}",
        )
        require(
            self.model.norm == "instance",
            "--norm batch: a batch of CycleGAN has images of two domains, which must not share "
            "their means; use --norm instance",
        )
        if self.to:
            check_name(self.to)
            require(
                not self.domains,
                f"--domains {' '.join(self.domains)}: --to {self.to} is domain B; leave one out",
            )
            require(
                not self.to.startswith("pairs:") and not _is_text(self.to),
                f"--to {self.to}: a domain needs images, e.g. paintings",
            )
        require(
            not self.domains or (len(self.domains) == 2 and len({*self.domains}) == 2),
            f"--domains {' '.join(self.domains)}: give two classes, e.g. pong breakout",
        )


def _is_text(name: str) -> bool:
    return DataConfig(data=name).is_text
