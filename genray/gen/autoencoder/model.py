"""Autoencoders as a stack of blocks: dense and convolutional, tied or not, with real or binary
codes.

A block goes one layer up (`encode`) and one layer down (`decode`). Undercomplete and denoising
autoencoders train the whole stack at once, stacked ones block by block. [Hinton 2006,
https://doi.org/10.1126/science.1127647] Shapes: B batch, C channels, H height, W width, Z
numbers of the code, K classes.
"""

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

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
    """The networks, what they are made to rebuild, and from what."""

    kind: Literal["undercomplete", "denoising", "conv", "stacked", "stacked-conv"] = "undercomplete"
    code: int = 10
    """Numbers of the code."""
    widths: tuple[int, ...] = (256, 128)
    """Dense kinds: units between data and code; conv kinds: channels, each with a 2x2 pooling.
    The decoder mirrors them.
    """
    activation: Activation = "relu"
    """Of the layers between data and code."""
    code_activation: Literal["linear", "sigmoid", "tanh", "relu"] = "linear"
    output: Literal["auto", "linear", "sigmoid", "tanh"] = "auto"
    """Activation of the output. auto: as the data's range has it (0..1 sigmoid, −1..1 tanh)."""
    reconstruction: Literal["mse", "bce", "cosine"] = "mse"
    """What is minimised between data and output; bce for data in 0..1, cosine (1 − cos) for
    text.
    """
    tied: bool = False
    """The decoder uses the encoder's weights, transposed."""
    corruption: Corruption = "auto"
    """What is done to the input, never to the target; auto: gaussian for denoising, else none.
    warp: a small random rotation, shear, scaling and shift.
    """
    corruption_strength: float = 0.3
    """gaussian: standard deviation; masking, salt-pepper: share of the values; warp: radians,
    and the rest in proportion.
    """
    upsampling: Literal["transposed", "nearest", "unpool"] = "nearest"
    """Conv kinds. unpool: back to the recorded positions, which carry much of the image around
    the code.
    """
    sparsity: float = 0.0
    """Weight of the sparsity of codes: KL to the target for sigmoid codes, else the mean of
    |code|.
    """
    sparsity_target: float = 0.05
    """How active a sigmoid unit should be on average."""
    contractive: float = 0.0
    """Weight of the squared Frobenius norm of the code's Jacobian."""
    binary: bool = False
    """Codes of −1 and 1, for semantic hashing."""
    greedy: bool = True
    """Stacked kinds: train one layer after the other first. Off: the same network from random
    weights.
    """
    whole: bool = True
    """Stacked kinds: then train all layers together to rebuild the data."""
    finetune_labels: int = 0
    """Labelled rows for a classifier on a copy of the encoder, fine-tuned with it at the end; 0:
    none.
    """
    dropout: float = 0.0
    """Of the activations of the classifier's encoder, in training."""
    batch_norm: bool = False
    """Normalise the sums of each layer between data and code over the batch, on the way up and
    down and in the classifier; never the code or the output.
    """
    finetune_rate: float = 0.1
    """The learning rate of the last stage, where the encoder learns from labels, over that of
    the others.
    """
    lbfgs: bool = False
    """Each step is one iteration of L-BFGS on all training rows, whatever the batch and the
    optimizer.
    """

    def validate(self) -> None:
        words = " ".join(map(str, self.widths)) or "(none)"
        require(self.code >= 1, f"--code {self.code}: must be ≥ 1, e.g. 10")
        require(
            min(self.widths, default=1) >= 1,
            f"--widths {words}: every layer needs ≥ 1, e.g. 256 128",
        )
        conv, strength = self.kind in CONVOLUTIONAL, self.corruption_strength
        require(
            not conv or len(self.widths) >= 1,
            f"--widths {words}: {self.kind} needs channels, e.g. 16 32",
        )
        require(strength >= 0, f"--corruption-strength {strength}: must be ≥ 0, e.g. 0.3")
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
        require(0 <= self.dropout < 1, f"--dropout {self.dropout}: must lie in [0, 1), e.g. 0.5")
        require(
            not self.dropout or self.finetune_labels > 0,
            f"--dropout {self.dropout}: is the classifier's; give --finetune-labels 100, or leave "
            "it out",
        )
        if self.batch_norm:
            self._validate_batch_norm()
        require(
            self.finetune_rate > 0, f"--finetune-rate {self.finetune_rate}: must be > 0, e.g. 0.1"
        )
        for name in ("sparsity", "contractive", "finetune_labels"):
            value = getattr(self, name)
            require(value >= 0, f"--{name.replace('_', '-')} {value}: must be ≥ 0 (0: none)")
        require(
            0 < self.sparsity_target < 1,
            f"--sparsity-target {self.sparsity_target}: must lie in (0, 1), e.g. 0.05",
        )
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
        """`corruption` with auto resolved."""
        if self.corruption == "auto":
            return "gaussian" if self.kind == "denoising" else "none"
        return self.corruption


class Autoencoder(nn.Module):
    """Rows of `shape` in low..high to codes [B, Z] and back. With `num_classes`, a classifier on
    a copy of the encoder.

    Raises ConfigError for data that the configuration does not fit.
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
                cast(Block, block).forget_decoder()  # a classifier never goes down
            self.classifier = nn.ModuleDict(
                {"blocks": encoder, "head": nn.Linear(config.code, num_classes)}
            )
        self._outputs = nn.ModuleList(
            [activation_or_none(self.output)]
            + [activation_or_none(config.activation) for _ in config.widths]
        )
        self._held: tuple[nn.Module, ...] = ()

    def hold(self, blocks: Iterable[nn.Module]) -> None:
        """Keep these blocks as in evaluation while the rest trains: batch norm's averages stand
        still there, and count.
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
        """Bits that recorded pool positions can carry around the code; 0 where none are
        recorded.
        """
        if self.config.upsampling != "unpool" or len(self.shape) != 3:
            return 0.0
        _, height, width = self.shape
        return sum(
            position_bits(channels, height >> level, width >> level, 2)
            for level, channels in enumerate(self.config.widths)
        )

    # -- some layers up, and down again ------------------------------------------------------------

    def up(
        self, x: Tensor, top: int | None = None, floor: int = 0
    ) -> tuple[Tensor, list[Tensor | None]]:
        """(activations of layer `top`, the code by default; positions of each pooling) from
        those of layer `floor`.
        """
        positions: list[Tensor | None] = []
        top = self.depth if top is None else top
        for block in self.blocks[floor:top]:
            x, position = block.encode(x)  # type: ignore[operator]
            positions.append(position)
        return (self.as_code(x) if top == self.depth else x), positions

    def down(self, h: Tensor, positions: Sequence[Tensor | None], floor: int = 0) -> Tensor:
        """The activations of layer `floor` (0: the data) rebuilt from those of layer floor +
        len(positions).
        """
        for level in reversed(range(floor, floor + len(positions))):
            block, position = self.blocks[level], positions[level - floor]
            h = self._outputs[level](block.decode(h, position))  # type: ignore[operator]
        return h

    def as_code(self, h_BZ: Tensor) -> Tensor:
        """Binary codes: the sign, with tanh's gradient.  [straight-through:
        https://arxiv.org/abs/1308.3432]
        """
        if not self.config.binary:
            return h_BZ
        soft_BZ = h_BZ.tanh()
        return soft_BZ + (torch.where(h_BZ >= 0, 1.0, -1.0) - soft_BZ).detach()

    # -- what people use ---------------------------------------------------------------------------

    def forward(self, x: Tensor) -> Tensor:
        """Reconstructions, of x's shape and range; with recorded positions, these are used."""
        return self.down(*self.up(x))

    def encode(self, x: Tensor) -> Tensor:
        """Codes, float32 [B, Z]. Raises ConfigError where recorded positions hold what the codes
        lack.
        """
        if self.config.upsampling == "unpool":
            raise ConfigError(NO_POSITIONS)
        return self.up(x)[0].float()

    def decode(self, codes_BZ: Tensor) -> Tensor:
        """Data from codes alone. Raises ConfigError with recorded positions."""
        if self.config.upsampling == "unpool":
            raise ConfigError(NO_POSITIONS)
        return self.down(codes_BZ, [None] * self.depth)

    def classify(self, x: Tensor) -> Tensor:
        """Logits [B, K] of the fine-tuned classifier. Raises ConfigError where none was trained."""
        if self.classifier is None:
            raise ConfigError(
                "this autoencoder has no classifier: train with --finetune-labels 100"
            )
        for block in cast(Any, self.classifier["blocks"]):
            x, _ = block.encode(x)
            x = functional.dropout(x, self.config.dropout, self.training)
        return cast(nn.Linear, self.classifier["head"])(self.as_code(x))

    def start_classifier(self) -> None:
        """Put the encoder's weights into the classifier's."""
        assert self.classifier is not None
        # Not strict: the way down stays behind.
        self.classifier["blocks"].load_state_dict(self.blocks.state_dict(), strict=False)


def output_activation(config: AEModelConfig, low: float, high: float) -> str:
    """The output activation, by the data's range. Raises ConfigError where the one asked for
    cannot reach it.
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
    """The builder of kind "autoencoder" for the model store."""
    return Autoencoder(
        from_dict(AEModelConfig, config["model"]),
        config["shape"],
        config["low"],
        config["high"],
        config["num_classes"],
    )
