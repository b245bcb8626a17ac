"""EfficientNet-Lite0, a small convolutional network for ImageNet.

The network is a stem, 16 blocks and a head. Differences from EfficientNet-B0: no squeeze and
excitation, and ReLU6 instead of swish. [Tan 2019, https://arxiv.org/abs/1905.11946;
https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite]

Shapes: B batch, C channels, H height, W width, K classes.
"""

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STAGES = (
    (1, 16, 1, 3, 1),
    (6, 24, 2, 3, 2),
    (6, 40, 2, 5, 2),
    (6, 80, 3, 3, 2),
    (6, 112, 3, 5, 1),
    (6, 192, 4, 5, 2),
    (6, 320, 1, 3, 1),
)
"""(expansion, channels, blocks, kernel, stride of the first block) of each stage."""
STEM, HEAD, CLASSES = 32, 1280, 1000  # channels of the stem and of the head; number of classes


def pad_same(x_BCHW: Tensor, kernel: int, stride: int, mode: str) -> Tensor:
    """Pad as TensorFlow's "same", for an output of ceil(side / stride) pixels; of an odd number of
    rows, one more is below. `mode`: "constant" (zeros), or "reflect" for sides > kernel // 2.
    """
    pads: list[int] = []
    for side in (x_BCHW.shape[-1], x_BCHW.shape[-2]):
        total = max((-(-side // stride) - 1) * stride + kernel - side, 0)
        pads += [total // 2, total - total // 2]
    return F.pad(x_BCHW, pads, mode=mode) if any(pads) else x_BCHW


class ConvNorm(nn.Module):
    """A convolution with padding "same" and batch normalisation. `before` changes its input."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups=1):
        super().__init__()
        self.kernel, self.stride, self.padding = kernel, stride, "constant"
        # The weights are loaded later; drawing initial ones would change the global random state.
        self.conv = nn.utils.skip_init(
            nn.Conv2d, inputs, outputs, kernel, stride, groups=groups, bias=False
        )
        self.before: nn.Module = nn.Identity()
        self.norm: nn.Module = nn.BatchNorm2d(outputs, eps=1e-3)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return the normalised output of the convolution."""
        x_BCHW = pad_same(self.before(x_BCHW), self.kernel, self.stride, self.padding)
        return self.norm(self.conv(x_BCHW))

    @torch.no_grad()
    def fold(self) -> None:
        """Replace the batch normalisation by a scaled weight and a bias of the convolution."""
        norm = self.norm
        assert isinstance(norm, nn.BatchNorm2d)
        assert norm.running_var is not None and norm.running_mean is not None
        scale_C = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
        self.conv.weight.mul_(scale_C[:, None, None, None])
        self.conv.bias = nn.Parameter((norm.bias - norm.running_mean * scale_C).to(norm.bias))
        self.norm = nn.Identity()


class Block(nn.Module):
    """An inverted residual: a 1x1 convolution that expands the channels (absent for expansion 1),
    a depthwise one, and a 1x1 convolution to fewer channels, without nonlinearity. The input is
    added to the output if both have the same shape.
    """

    def __init__(self, inputs: int, outputs: int, expansion: int, kernel: int, stride: int):
        super().__init__()
        wide = inputs * expansion
        self.expand = ConvNorm(inputs, wide) if expansion > 1 else None
        self.depthwise = ConvNorm(wide, wide, kernel, stride, groups=wide)
        self.project = ConvNorm(wide, outputs)
        self.adds_input = stride == 1 and inputs == outputs


class EfficientNetLite0(nn.Module):
    """The network. `layers` maps a layer to (channels, stride, smallest side of a picture).

    The layers are "stem"; for each block N from 0, "expN" (the expansion; block 0 has none) and
    "blockN" (the output, without nonlinearity); "head". A stride is the distance of activations in
    pixels; the smallest side allows reflection padding. `activation`: ReLU6, as trained, or ReLU.
    """

    def __init__(self, activation: Callable[[Tensor], Tensor] = F.relu6):
        super().__init__()
        self.activation = activation
        self.layers: dict[str, tuple[int, int, int]] = {"stem": (STEM, 2, 2)}
        self.stem = ConvNorm(3, STEM, 3, 2)
        self.blocks = nn.ModuleList()
        inputs, scale, least = STEM, 2, 2
        for expansion, channels, count, kernel, first_stride in STAGES:
            for number in range(count):
                stride, name = 1 if number else first_stride, len(self.blocks)
                if expansion > 1:
                    self.layers[f"exp{name}"] = (inputs * expansion, scale, least)
                least = max(least, kernel // 2 * scale + 1)
                scale *= stride
                self.layers[f"block{name}"] = (channels, scale, least)
                self.blocks.append(Block(inputs, channels, expansion, kernel, stride))
                inputs = channels
        self.head: ConvNorm | None = ConvNorm(inputs, HEAD)
        self.layers["head"] = (HEAD, scale, least)
        self.classify: nn.Module | None = nn.utils.skip_init(nn.Linear, HEAD, CLASSES)

    def end_with(self, layer: str) -> None:
        """Remove everything after `layer`; the block of an expansion stays complete."""
        names = list(self.layers)
        self.layers = {name: self.layers[name] for name in names[: names.index(layer) + 1]}
        if layer != "head":
            self.head = self.classify = None
            number = layer.removeprefix("exp").removeprefix("block")
            del self.blocks[0 if layer == "stem" else int(number) + 1 :]

    def outputs(self, x_BCHW: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Yield the name and the activations of each layer, shallow to deep.

        x: [B, 3, H, W], red, green and blue, (255·value − 127) / 128 for values in 0..1.
        """
        h_BCHW = self.activation(self.stem(x_BCHW))
        yield "stem", h_BCHW
        for number, block in enumerate(self.blocks):
            assert isinstance(block, Block)
            inner = h_BCHW
            if block.expand is not None:
                inner = self.activation(block.expand(inner))
                yield f"exp{number}", inner
            inner = block.project(self.activation(block.depthwise(inner)))
            h_BCHW = h_BCHW + inner if block.adds_input else inner
            yield f"block{number}", h_BCHW
        if self.head is not None:
            yield "head", self.activation(self.head(h_BCHW))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return the classes' logits, [B, K], of pictures scaled as for `outputs`."""
        *_, (_, head_BCHW) = self.outputs(x_BCHW)
        assert self.classify is not None
        return self.classify(head_BCHW.mean((2, 3)))

    def units(self) -> list[ConvNorm]:
        """Return all convolutions with their normalisations."""
        return [module for module in self.modules() if isinstance(module, ConvNorm)]
