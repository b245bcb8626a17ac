"""Autoencoders as a stack of blocks: dense or convolutional, with real or binary codes.

A block encodes one layer (`encode`) and decodes one layer (`decode`). Stacked autoencoders first
train block by block; the other kinds train the whole stack at once. [Hinton 2006,
https://doi.org/10.1126/science.1127647] Shapes: B batch, C channels, H height, W width, Z
dimension of the code, K classes.
"""

import copy
from collections.abc import Iterable, Sequence
from typing import Any, Self, cast

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
from genray.gen.autoencoder.config import CONVOLUTIONAL, AEModelConfig
from genray.gen.layers import position_bits


class Autoencoder(nn.Module):
    """Encodes rows of `shape` into codes [B, Z], and decodes codes into rows.

    Args:
        config: the networks.
        shape: the shape of a row, which is (C, H, W) for images.
        low, high: the range of the data's values.
        num_classes: number of classes of a classifier on a copy of the encoder; 0: no classifier.

    Raises:
        ConfigError: the configuration is invalid, or does not fit the data.
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
                cast(Block, block).forget_decoder()
            self.classifier = nn.ModuleDict(
                {"blocks": encoder, "head": nn.Linear(config.code, num_classes)}
            )
        self._outputs = nn.ModuleList(
            [activation_or_none(self.output)]
            + [activation_or_none(config.activation) for _ in config.widths]
        )
        self._fixed: tuple[nn.Module, ...] = ()

    def keep_evaluating(self, blocks: Iterable[nn.Module]) -> None:
        """Keep these blocks in evaluation mode while the other blocks train.

        The batch norms of these blocks use the moving averages and do not update them.
        """
        self._fixed = tuple(blocks)
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        for block in self._fixed:
            block.eval()
        return self

    @property
    def depth(self) -> int:
        """Number of layers between data and code, the code included."""
        return len(self.blocks)

    @property
    def position_bits(self) -> float:
        """Most bits of information that the pooling positions can contain; 0 if none are used."""
        if self.config.upsampling != "unpool" or len(self.shape) != 3:
            return 0.0
        _, height, width = self.shape
        return sum(
            position_bits(channels, height >> level, width >> level, 2)
            for level, channels in enumerate(self.config.widths)
        )

    # -- encoding and decoding some of the layers --------------------------------------------------

    def encode_layers(
        self, x: Tensor, last: int | None = None, first: int = 0
    ) -> tuple[Tensor, list[Tensor | None]]:
        """Encode from layer `first` (0: the data) to layer `last` (default: the code).

        Returns the activations of layer `last`, and the recorded positions of each pooling (None
        for a layer without pooling).
        """
        positions: list[Tensor | None] = []
        last = self.depth if last is None else last
        for block in self.blocks[first:last]:
            x, position = block.encode(x)  # type: ignore[operator]
            positions.append(position)
        return (self.as_code(x) if last == self.depth else x), positions

    def decode_layers(
        self, h: Tensor, positions: Sequence[Tensor | None], first: int = 0
    ) -> Tensor:
        """Decode from layer `first + len(positions)` to layer `first` (0: the data)."""
        for level in reversed(range(first, first + len(positions))):
            block, position = self.blocks[level], positions[level - first]
            h = self._outputs[level](block.decode(h, position))  # type: ignore[operator]
        return h

    def as_code(self, h_BZ: Tensor) -> Tensor:
        """Return `h_BZ`. Binary codes are its sign (1 for 0), with the gradient of tanh.

        [straight-through estimator: Bengio 2013, https://arxiv.org/abs/1308.3432]
        """
        if not self.config.binary:
            return h_BZ
        soft_BZ = h_BZ.tanh()
        return soft_BZ + (torch.where(h_BZ >= 0, 1.0, -1.0) - soft_BZ).detach()

    # -- public interface --------------------------------------------------------------------------

    def forward(self, x: Tensor) -> Tensor:
        """Return reconstructions in x's shape. Unpooling uses the pooling positions of x."""
        return self.decode_layers(*self.encode_layers(x))

    def encode(self, x: Tensor) -> Tensor:
        """Return codes, float32 [B, Z]. Raises ConfigError for --upsampling unpool."""
        if self.config.upsampling == "unpool":
            raise ConfigError(NO_POSITIONS)
        return self.encode_layers(x)[0].float()

    def decode(self, codes_BZ: Tensor) -> Tensor:
        """Return rows decoded from codes. Raises ConfigError for --upsampling unpool."""
        if self.config.upsampling == "unpool":
            raise ConfigError(NO_POSITIONS)
        return self.decode_layers(codes_BZ, [None] * self.depth)

    def classify(self, x: Tensor) -> Tensor:
        """Return the classifier's logits [B, K]. Raises ConfigError if there is no classifier."""
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
        # `strict=False`, because the classifier has no decoder.
        self.classifier["blocks"].load_state_dict(self.blocks.state_dict(), strict=False)


def output_activation(config: AEModelConfig, low: float, high: float) -> str:
    """Return the name of the output activation for data in `low`..`high`.

    Raises ConfigError if the configured activation cannot produce all values of this range, or if
    the reconstruction loss is bce and the activation is not sigmoid.
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
                f"--widths {' '.join(map(str, config.widths))}: rows of shape {tuple(shape)} "
                f"cannot be halved {halvings} times; use fewer layers, another --size, or, for "
                "text, --kind undercomplete",
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
