"""Layers of networks: activations by name, convolutions with TensorFlow's SAME padding, and pooling
with recorded positions.

Shapes: B batch, C channels, C' output channels, H height, W width, F features. s is a stride.
"""

import math
from collections.abc import Callable
from typing import Literal, get_args

from torch import Tensor, nn
from torch.nn import functional

from genray.errors import require

Activation = Literal["sigmoid", "tanh", "relu", "leaky", "elu", "maxout"]
ACTIVATIONS: tuple[str, ...] = get_args(Activation)


# -- activations -----------------------------------------------------------------------------------


class Maxout(nn.Module):
    """Takes the maximum of every `pieces` neighbouring features: [B, pieces·F, …] → [B, F, …].

    [Goodfellow 2013, https://arxiv.org/abs/1302.4389]

    Args:
        pieces: number of features of which one unit takes the maximum, 2 or more.

    Raises:
        ConfigError: `pieces` is below 2.
    """

    def __init__(self, pieces: int = 2):
        super().__init__()
        require(pieces >= 2, f"--pieces {pieces}: must be ≥ 2, e.g. 2")
        self.pieces = pieces

    def forward(self, x: Tensor) -> Tensor:
        return x.unflatten(1, (-1, self.pieces)).amax(dim=2)

    def extra_repr(self) -> str:
        return f"pieces={self.pieces}"


def activation_layer(name: str, *, slope: float = 0.01, pieces: int = 2) -> nn.Module:
    """Return the activation `name` as a module.

    `slope`: slope of "leaky" below 0. `pieces`: number of features for each maxout unit. For
    `width` features, the layer before the activation must have `fan_out(name, width, pieces)`
    outputs. Raises ConfigError for an unknown name, or for fewer than two `pieces` of maxout.
    """
    makers: dict[str, Callable[[], nn.Module]] = {
        "sigmoid": nn.Sigmoid,
        "tanh": nn.Tanh,
        "relu": nn.ReLU,
        "leaky": lambda: nn.LeakyReLU(slope),
        "elu": nn.ELU,  # [Clevert 2016, https://arxiv.org/abs/1511.07289], α = 1
        "maxout": lambda: Maxout(pieces),
    }
    require(
        name in makers, f"--activation {name}: no such activation; there are {', '.join(makers)}"
    )
    return makers[name]()


def fan_out(name: str, width: int, pieces: int = 2) -> int:
    """Return the number of outputs that a layer needs so that its activation has `width` features.

    `name` is the activation; `pieces` is the number of features for each maxout unit.
    """
    return width * pieces if name == "maxout" else width


def dropout_layers(share: float) -> list[nn.Module]:
    """Return a dropout layer that drops `share` of the features in training; none for 0.

    Without the layer, the numbers of the other layers, and so the names of the weights, are those
    of a network without the option. Each pixel of a convolution's channels is dropped on its own.
    [Srivastava 2014, https://jmlr.org/papers/v15/srivastava14a.html]
    """
    return [nn.Dropout(share)] if share else []


def init_for(name: str, weight: Tensor, slope: float = 0.01) -> None:
    """Initialise `weight` in place for the activation `name` that follows.

    Weights have He's variance for relu, elu and leaky (`slope`: slope below 0), and Glorot's
    variance for sigmoid, tanh and linear. For maxout the variance is 1/fan_in: two independent
    pieces a and b with a symmetric distribution have E max(a, b)² = Var a, so the mean square of
    the activations stays the same from layer to layer.
    [He 2015, https://arxiv.org/abs/1502.01852; Glorot 2010,
    https://proceedings.mlr.press/v9/glorot10a.html]
    """
    if name in ("relu", "elu"):
        nn.init.kaiming_normal_(weight, nonlinearity="relu")
    elif name == "leaky":
        nn.init.kaiming_normal_(weight, a=slope, nonlinearity="leaky_relu")
    elif name == "maxout":
        nn.init.kaiming_normal_(weight, nonlinearity="linear")
    else:
        nn.init.xavier_normal_(weight)


# -- convolutions with TensorFlow's SAME padding ---------------------------------------------------


def same_padding(size: int, kernel: int, stride: int = 1) -> tuple[int, int]:
    """Return the numbers of zeros (before, after) that TensorFlow's SAME adds along one axis.

    If the total is odd, the extra zero comes after.
    """
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


class SameConv2d(nn.Conv2d):
    """A convolution with TensorFlow's SAME padding: float32 [B, C, H, W] → [B, C', ⌈H/s⌉, ⌈W/s⌉].

    PyTorch pads both sides equally, and PyTorch's "same" does not support strides. Example: for
    DCGAN's 5x5 kernel with stride 2 on an even size, TensorFlow pads 1 before and 2 after, so
    PyTorch's padding of 2 would use other pixels.
    """

    def __init__(
        self, channels_in: int, channels_out: int, kernel: int, stride: int = 1, bias: bool = True
    ):
        super().__init__(channels_in, channels_out, kernel, stride, bias=bias)

    def forward(self, input: Tensor) -> Tensor:
        top, bottom = same_padding(input.shape[-2], self.kernel_size[0], self.stride[0])
        left, right = same_padding(input.shape[-1], self.kernel_size[1], self.stride[1])
        # With equal padding on both sides, the convolution itself pads, without a copy.
        if (top, left) == (bottom, right):
            return functional.conv2d(input, self.weight, self.bias, self.stride, (top, left))
        padded = functional.pad(input, (left, right, top, bottom))
        return functional.conv2d(padded, self.weight, self.bias, self.stride)


class SameConvTranspose2d(nn.ConvTranspose2d):
    """A transposed convolution: float32 [B, C, H, W] → [B, C', H·s, W·s].

    Without the biases, it is the adjoint of `SameConv2d` with the same kernel and stride.
    """

    def __init__(
        self, channels_in: int, channels_out: int, kernel: int, stride: int = 1, bias: bool = True
    ):
        super().__init__(channels_in, channels_out, kernel, stride, bias=bias)

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        # The padding is the same for any size that is a multiple of the stride.
        before, after = same_padding(stride, kernel, stride)
        # If the kernel is smaller than the stride, the last pixels depend on no input and are equal
        # to the bias.
        missing = max(stride - kernel, 0)
        out = functional.conv_transpose2d(
            input, self.weight, self.bias, self.stride, before, missing
        )
        # PyTorch crops both sides equally; crop the extra pixels at the end here.
        extra = after - before
        return out[..., : out.shape[-2] - extra, : out.shape[-1] - extra] if extra else out


# -- pooling with recorded positions ---------------------------------------------------------------


def max_pool(x_BCHW: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Return the maximum of each size x size window, and its position (int64 index into H·W).

    Both have shape [B, C, ⌊H/size⌋, ⌊W/size⌋].
    """
    return functional.max_pool2d(x_BCHW, size, return_indices=True)


def unpool(x_BChw: Tensor, position_BChw: Tensor, height: int, width: int) -> Tensor:
    """Put each value at its recorded position, and 0 elsewhere; returns [B, C, height, width].

    The positions contain information about the image that is not in the code. `position_bits`
    returns how much.
    """
    plane = x_BChw.new_zeros(*x_BChw.shape[:2], height * width)
    filled = plane.scatter(2, position_BChw.flatten(2), x_BChw.flatten(2))
    return filled.unflatten(2, (height, width))


def position_bits(channels: int, height: int, width: int, size: int) -> float:
    """Return the largest possible information, in bits, in the recorded positions of one pooling.

    Each window of size x size pixels has log2(size²) bits.
    """
    return channels * (height // size) * (width // size) * math.log2(size * size)
