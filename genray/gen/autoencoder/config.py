"""Options of an autoencoder: data, training, networks, loss, penalties and the stages."""

from dataclasses import dataclass, field
from typing import Literal

from genray.bounds import bounded, check_bounds
from genray.errors import require
from genray.gen.data.config import DataConfig
from genray.gen.layers import Activation
from genray.gen.training.config import FitConfig
from genray.gen.training.optimizers import OptimizerConfig

CONVOLUTIONAL = ("conv", "stacked-conv")
STACKED = ("stacked", "stacked-conv")
Corruption = Literal["auto", "none", "gaussian", "masking", "salt-pepper", "warp"]
CLASSIFYING = ("head", "classifier")
"""Names of the stages with labels.

First the head is trained on fixed codes, and then head and encoder together, so that an untrained
head does not damage the encoder's features. [Kumar 2022, https://arxiv.org/abs/2202.10054]
"""


@dataclass(frozen=True, kw_only=True)
class AEModelConfig:
    """The networks of an autoencoder, their loss and penalties, and the input's corruption."""

    kind: Literal["undercomplete", "denoising", "conv", "stacked", "stacked-conv"] = "undercomplete"
    code: int = bounded(10, min=1, example=10)
    """Dimension of the code."""
    widths: tuple[int, ...] = bounded((256, 128), min=1, example="256 128")
    """Layers between data and code. Dense kinds: units of each; conv kinds: channels of each, with
    a 2x2 pooling. The decoder has the same layers in reverse.
    """
    activation: Activation = "relu"
    """Activation of the layers between data and code."""
    code_activation: Literal["linear", "sigmoid", "tanh", "relu"] = "linear"
    output: Literal["auto", "linear", "sigmoid", "tanh"] = "auto"
    """Activation of the output. auto: sigmoid for data in 0..1, tanh for −1..1, else linear."""
    reconstruction: Literal["mse", "bce", "cosine"] = "mse"
    """Reconstruction loss between data and output: bce for data in 0..1, cosine (1 − cos) for
    text.
    """
    tied: bool = False
    """Whether the decoder uses the encoder's weights, transposed."""
    corruption: Corruption = "auto"
    """Corruption of the input, not of the target. auto: gaussian for kind denoising, else none.
    warp: a small random rotation, shear, scaling and shift.
    """
    corruption_strength: float = bounded(0.3, min=0, example=0.3)
    """gaussian: standard deviation; masking, salt-pepper: share of the values; warp: largest
    rotation in radians, with shear, scaling and shift in proportion.
    """
    upsampling: Literal["transposed", "nearest", "unpool"] = "nearest"
    """Upsampling in the decoder of conv kinds. unpool uses the recorded pooling positions, which
    contain much of the image that the code does not.
    """
    sparsity: float = bounded(0.0, min=0, note="(0: none)")
    """Weight of the sparsity penalty on codes, and on each layer's output while it is trained
    alone: the KL to the target for sigmoid activations, else the mean of the absolute values.
    """
    sparsity_target: float = bounded(0.05, above=0, below=1, example=0.05)
    """Target of the mean activity of a sigmoid unit."""
    contractive: float = bounded(0.0, min=0, note="(0: none)")
    """Weight of the contractive penalty, the squared Frobenius norm of the code's Jacobian."""
    binary: bool = False
    """Whether codes consist of −1 and 1, for semantic hashing."""
    greedy: bool = True
    """Stacked kinds: first train one layer after another. Off: start from random weights."""
    whole: bool = True
    """Stacked kinds: then train all layers together to reconstruct the data."""
    finetune_labels: int = bounded(0, min=0, note="(0: none)")
    """Number of labelled rows for a classifier on a copy of the encoder. The classifier is trained
    at the end; 0: no classifier.
    """
    dropout: float = bounded(0.0, min=0, below=1, example=0.5)
    """Dropout probability of the activations in the classifier's encoder, in training."""
    batch_norm: bool = False
    """Batch norm before the activation of each layer between data and code, in encoder, decoder
    and classifier; not for the code or the output.
    """
    finetune_rate: float = bounded(0.1, above=0, example=0.1)
    """Factor on the learning rate in the last stage, in which the encoder learns from labels."""
    lbfgs: bool = False
    """Each step is one iteration of L-BFGS on all training rows; batch size and optimizer are
    ignored.
    """

    def validate(self) -> None:
        check_bounds(self)
        conv, strength = self.kind in CONVOLUTIONAL, self.corruption_strength
        require(
            not conv or len(self.widths) >= 1,
            f"--widths (none): {self.kind} needs channels, e.g. 16 32",
        )
        share = self.corruption_kind in ("masking", "salt-pepper")
        require(
            not share or strength <= 1,
            f"--corruption-strength {strength}: a share of the values must lie in [0, 1], e.g. 0.3",
        )
        require(
            self.kind != "denoising" or self.corruption_kind != "none",
            "--corruption none: denoising needs gaussian, masking, salt-pepper or warp",
        )
        require(
            conv or self.upsampling != "unpool",
            f"--upsampling unpool: {self.kind} has no pooling; use --kind conv or stacked-conv",
        )
        require(
            not (self.tied and self.activation == "maxout"),
            "--tied: the weights of maxout cannot be transposed; use e.g. --activation relu",
        )
        require(
            not self.dropout or self.finetune_labels > 0,
            f"--dropout {self.dropout}: only the classifier has dropout; give --finetune-labels "
            "100, or leave out --dropout",
        )
        if self.batch_norm:
            self._validate_batch_norm()
        require(
            not self.binary or self.code_activation == "linear",
            f"--code-activation {self.code_activation}: binary codes have their own activation; "
            "use linear",
        )
        require(
            not (self.binary and self.contractive),
            "--contractive: binary codes have no Jacobian; leave out --contractive or --binary",
        )

    def _validate_batch_norm(self) -> None:
        require(
            len(self.widths) > 0,
            "--batch-norm: there is no layer between data and code; give --widths, e.g. 256 128",
        )
        require(
            not self.lbfgs,
            "--batch-norm: --lbfgs computes a step's loss several times, and each time would "
            "change the averages; leave out one of them",
        )
        require(
            not self.contractive,
            "--contractive: with --batch-norm, a code depends on all rows of the batch; leave out "
            "one of them",
        )

    @property
    def corruption_kind(self) -> str:
        """The corruption to use: `corruption`, with "auto" resolved."""
        if self.corruption == "auto":
            return "gaussian" if self.kind == "denoising" else "none"
        return self.corruption


@dataclass(frozen=True, kw_only=True)
class AEConfig:
    """Configuration of an autoencoder: undercomplete, denoising, convolutional, or stacked."""

    data: DataConfig = field(default_factory=DataConfig)
    fit: FitConfig = field(default_factory=FitConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    model: AEModelConfig = field(default_factory=AEModelConfig)

    def validate(self) -> None:
        for part in (self.data, self.fit, self.optimizer, self.model):
            part.validate()
        require(
            not self.model.lbfgs or (self.fit.accumulate == 1 and self.fit.amp == "off"),
            "--lbfgs: each step uses all rows in full precision; leave out --accumulate and --amp",
        )


def stage_names(config: AEModelConfig) -> tuple[str, ...]:
    """Return the names of the stages, in the order of training.

    Stacked kinds have layer-1 … layer-n if `greedy` and whole if `whole`; the other kinds have
    train. With `finetune_labels`, head and classifier follow. Raises ConfigError if no stage is
    left.
    """
    stages: tuple[str, ...] = ("train",)
    if config.kind in STACKED:
        layers = tuple(f"layer-{number + 1}" for number in range(len(config.widths) + 1))
        stages = (layers if config.greedy else ()) + (("whole",) if config.whole else ())
    if config.finetune_labels:
        stages += CLASSIFYING
    require(
        len(stages) > 0,
        "--no-greedy --no-whole: nothing is left to train; leave out one of them, or give "
        "--finetune-labels 100",
    )
    return stages
