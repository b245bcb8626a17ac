"""Autoencoders as a stack of blocks: dense or convolutional, with real or binary codes.

A block encodes one layer (`encode`) and decodes one layer (`decode`). Undercomplete and denoising
autoencoders train the whole stack at once; stacked autoencoders train block by block. [Hinton 2006,
https://doi.org/10.1126/science.1127647] Shapes: B batch, C channels, H height, W width, Z
dimension of the code, K classes.
"""

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from genray.bounds import bounded, check_bounds
from genray.config import from_dict
from genray.errors import ConfigError, require
from genray.gen.autoencoder.blocks import (
    NO_POSITIONS,
    Block,
    ConvBlock,
    DenseBlock,
    activation_or_none,
)
from genray.gen.layers import Activation, position_bits

CONVOLUTIONAL = ("conv", "stacked-conv")
STACKED = ("stacked", "stacked-conv")
Corruption = Literal["auto", "none", "gaussian", "masking", "salt-pepper", "warp"]


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
    """Weight of the sparsity penalty on codes: the KL to the target for sigmoid codes, else the
    mean of |code|.
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
    """Number of labelled rows for a classifier on a copy of the encoder, which is fine-tuned at
    the end; 0: no classifier.
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
            f"--corruption-strength {strength}: a share, must lie in [0, 1], e.g. 0.3",
        )
        require(
            self.kind != "denoising" or self.corruption_kind != "none",
            "--corruption none: denoising needs one: gaussian, masking, salt-pepper or warp",
        )
        require(
            conv or self.upsampling != "unpool",
            f"--upsampling unpool: {self.kind} has no poolings; use --kind conv or stacked-conv",
        )
        require(
            not (self.tied and self.activation == "maxout"),
            "--tied: maxout has no transposed twin; use e.g. relu",
        )
        require(
            not self.dropout or self.finetune_labels > 0,
            f"--dropout {self.dropout}: is the classifier's; give --finetune-labels 100, or leave "
            "it out",
        )
        if self.batch_norm:
            self._validate_batch_norm()
        require(
            not self.binary or self.code_activation == "linear",
            f"--code-activation {self.code_activation}: binary codes have their own; leave it at "
            "linear",
        )
        require(
            not (self.binary and self.contractive),
            "--contractive: binary codes have no Jacobian; use 0 or no --binary",
        )

    def _validate_batch_norm(self) -> None:
        require(
            len(self.widths) > 0,
            "--batch-norm: no layer lies between data and code; give --widths, e.g. 256 128",
        )
        require(
            not self.lbfgs,
            "--batch-norm: --lbfgs looks at a step several times, which would move the averages",
        )
        require(
            not self.contractive,
            "--contractive: under --batch-norm a code depends on the other rows; leave one out",
        )

    @property
    def corruption_kind(self) -> str:
        """The corruption to use: `corruption`, with "auto" resolved."""
        if self.corruption == "auto":
            return "gaussian" if self.kind == "denoising" else "none"
        return self.corruption


class Autoencoder(nn.Module):
    """Encodes rows of `shape` into codes [B, Z], and decodes codes into rows.

    `low`, `high`: range of the data. `num_classes`: 0, or the classes of a classifier on a copy of
    the encoder. Raises ConfigError for data that the configuration does not fit.
    """

    def __init__(
        self,
        config: AEModelConfig,
        shape: Sequence[int],
        low: float = 0.0,
        high: float = 1.0,
        num_classes: int = 0,
    ):
        super().__init__()
        config.validate()
        self.config, self.shape, self.low, self.high = config, tuple(shape), low, high
        self.output = output_activation(config, low, high)
        self.blocks = nn.ModuleList(_blocks(config, self.shape, self.output))
        self.classifier: nn.ModuleDict | None = None
        if num_classes:
            encoder = copy.deepcopy(self.blocks)
            for block in encoder:
                cast(Block, block).forget_decoder()  # a classifier never decodes
            self.classifier = nn.ModuleDict(
                {"blocks": encoder, "head": nn.Linear(config.code, num_classes)}
            )
        self._outputs = nn.ModuleList(
            [activation_or_none(self.output)]
            + [activation_or_none(config.activation) for _ in config.widths]
        )
        self._held: tuple[nn.Module, ...] = ()

    def hold(self, blocks: Iterable[nn.Module]) -> None:
        """Keep these blocks in evaluation mode while the rest trains: their batch norms use the
        moving averages and do not update them.
        """
        self._held = tuple(blocks)
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        for block in self._held:
            block.eval()
        return self

    @property
    def depth(self) -> int:
        return len(self.blocks)

    @property
    def position_bits(self) -> float:
        """Bits that recorded pooling positions can transmit in addition to the code; 0 if none."""
        if self.config.upsampling != "unpool" or len(self.shape) != 3:
            return 0.0
        _, height, width = self.shape
        return sum(
            position_bits(channels, height >> level, width >> level, 2)
            for level, channels in enumerate(self.config.widths)
        )

    # -- encoding and decoding some of the layers --------------------------------------------------

    def up(
        self, x: Tensor, top: int | None = None, floor: int = 0
    ) -> tuple[Tensor, list[Tensor | None]]:
        """Encode from layer `floor` (0: the data) to layer `top` (default: the code).

        Returns the activations of layer `top`, and the recorded positions of each pooling.
        """
        positions: list[Tensor | None] = []
        top = self.depth if top is None else top
        for block in self.blocks[floor:top]:
            x, position = block.encode(x)  # type: ignore[operator]
            positions.append(position)
        return (self.as_code(x) if top == self.depth else x), positions

    def down(self, h: Tensor, positions: Sequence[Tensor | None], floor: int = 0) -> Tensor:
        """Decode from layer `floor + len(positions)` to layer `floor` (0: the data)."""
        for level in reversed(range(floor, floor + len(positions))):
            block, position = self.blocks[level], positions[level - floor]
            h = self._outputs[level](block.decode(h, position))  # type: ignore[operator]
        return h

    def as_code(self, h_BZ: Tensor) -> Tensor:
        """Return `h_BZ`, or for binary codes its sign, with the gradient of tanh.
        [straight-through estimator: https://arxiv.org/abs/1308.3432]
        """
        if not self.config.binary:
            return h_BZ
        soft_BZ = h_BZ.tanh()
        return soft_BZ + (torch.where(h_BZ >= 0, 1.0, -1.0) - soft_BZ).detach()

    # -- public interface --------------------------------------------------------------------------

    def forward(self, x: Tensor) -> Tensor:
        """Return reconstructions in x's shape and range, using recorded positions if any."""
        return self.down(*self.up(x))

    def encode(self, x: Tensor) -> Tensor:
        """Return codes, float32 [B, Z]. Raises ConfigError for --upsampling unpool."""
        if self.config.upsampling == "unpool":
            raise ConfigError(NO_POSITIONS)
        return self.up(x)[0].float()

    def decode(self, codes_BZ: Tensor) -> Tensor:
        """Return rows decoded from codes. Raises ConfigError for --upsampling unpool."""
        if self.config.upsampling == "unpool":
            raise ConfigError(NO_POSITIONS)
        return self.down(codes_BZ, [None] * self.depth)

    def classify(self, x: Tensor) -> Tensor:
        """Return the classifier's logits [B, K]. Raises ConfigError without a classifier."""
        if self.classifier is None:
            raise ConfigError(
                "this autoencoder has no classifier: train with --finetune-labels 100"
            )
        for block in cast(Any, self.classifier["blocks"]):
            x, _ = block.encode(x)
            x = functional.dropout(x, self.config.dropout, self.training)
        return cast(nn.Linear, self.classifier["head"])(self.as_code(x))

    def start_classifier(self) -> None:
        """Copy the encoder's weights into the classifier."""
        assert self.classifier is not None
        # Not strict: the classifier has no decoder.
        self.classifier["blocks"].load_state_dict(self.blocks.state_dict(), strict=False)


def output_activation(config: AEModelConfig, low: float, high: float) -> str:
    """Return the name of the output activation for data in `low`..`high`.

    Raises ConfigError when the configured activation cannot produce values of this range.
    """
    reach = {(0.0, 1.0): "sigmoid", (-1.0, 1.0): "tanh"}
    name = reach.get((low, high), "linear") if config.output == "auto" else config.output
    require(
        name == "linear" or ({"sigmoid": 0.0, "tanh": -1.0}[name] <= low and high <= 1.0),
        f"--output {name}: cannot reach data in {low:g}..{high:g}; use auto or linear",
    )
    require(
        config.reconstruction != "bce" or name == "sigmoid",
        f"--reconstruction bce: needs outputs in 0..1, not {name}; use mse",
    )
    return name


def _blocks(config: AEModelConfig, shape: tuple[int, ...], output: str) -> list[Block]:
    blocks: list[Block] = []
    below = output
    for width in config.widths:
        norms = (config.batch_norm, config.batch_norm and len(blocks) > 0)
        if config.kind in CONVOLUTIONAL:
            halvings = len(config.widths)
            require(
                len(shape) == 3
                and all(side % 2 ** (halvings - len(blocks)) == 0 for side in shape[1:]),
                f"--widths {' '.join(map(str, config.widths))}: {halvings} poolings do not halve "
                "rows of shape "
                f"{tuple(shape)} evenly; use fewer layers, --size, or --kind undercomplete for "
                "text",
            )
            blocks.append(
                ConvBlock(
                    shape, width, config.activation, below, config.tied, config.upsampling, norms
                )
            )
            shape = (width, shape[1] // 2, shape[2] // 2)
        else:
            blocks.append(DenseBlock(shape, width, config.activation, below, config.tied, norms))
            shape = (width,)
        below = config.activation
    norms = (False, config.batch_norm)
    blocks.append(DenseBlock(shape, config.code, config.code_activation, below, config.tied, norms))
    return blocks


def build_autoencoder(config: dict[str, Any]) -> Autoencoder:
    """Build the autoencoder that a saved model's `config` describes, for the model store."""
    return Autoencoder(
        from_dict(AEModelConfig, config["model"]),
        config["shape"],
        config["low"],
        config["high"],
        config["num_classes"],
    )
