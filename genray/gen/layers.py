"""Layers and their arithmetic: activations by name, SAME and VALID convolutions, pooling that
records positions.

Shapes: B batch, C channels, H height, W width, F features.
"""

import math
from collections.abc import Callable
from typing import Literal, get_args

from torch import Tensor, nn
from torch.nn import functional

from genray.errors import require

Activation = Literal["sigmoid", "tanh", "relu", "leaky", "elu", "maxout"]
ACTIVATIONS: tuple[str, ...] = get_args(Activation)
Padding = Literal["same", "valid"]


# -- activations -----------------------------------------------------------------------------------


class Maxout(nn.Module):
    """The largest of `pieces` neighbouring features: [B, pieces·F, …] → [B, F, …].

    [Goodfellow 2013, https://arxiv.org/abs/1302.4389]
    """

    def __init__(self, pieces: int = 2):
        super().__init__()
        require(pieces >= 2, f"--pieces {pieces}: a maxout unit chooses among 2 or more")
        self.pieces = pieces

    def forward(self, x: Tensor) -> Tensor:
        return x.unflatten(1, (-1, self.pieces)).amax(dim=2)

    def extra_repr(self) -> str:
        return f"pieces={self.pieces}"


def activation_layer(name: str, *, slope: float = 0.01, pieces: int = 2) -> nn.Module:
    """The activation as a module. `slope`: of leaky below 0. Raises ConfigError for an unknown
    name.

    The layer before a maxout must have `fan_out(name, width, pieces)` outputs.
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
    """Outputs that a layer needs so that `width` are left after the activation."""
    return width * pieces if name == "maxout" else width


def init_for(name: str, weight: Tensor, slope: float = 0.01) -> None:
    """Fill `weight` in place as suits the activation behind it: He's variance for the kinked
    ones, Glorot's for others.

    [He 2015, https://arxiv.org/abs/1502.01852; Glorot 2010,
    https://proceedings.mlr.press/v9/glorot10a.html] A maxout of two zero-mean pieces passes on E
    max(a, b)² = Var a: a variance of 1/fan_in keeps its size.
    """
    if name in ("relu", "elu"):
        nn.init.kaiming_normal_(weight, nonlinearity="relu")
    elif name == "leaky":
        nn.init.kaiming_normal_(weight, a=slope, nonlinearity="leaky_relu")
    elif name == "maxout":
        nn.init.kaiming_normal_(weight, nonlinearity="linear")
    else:
        nn.init.xavier_normal_(weight)


# -- arithmetic ------------------------------------------------------------------------------------


def conv_size(size: int, kernel: int, stride: int = 1, padding: Padding = "same") -> int:
    """Outputs along one axis of a convolution: SAME ⌈in/stride⌉, VALID ⌊(in − kernel)/stride⌋ + 1.

    Raises ConfigError when a VALID kernel does not fit.
    """
    if padding == "same":
        return -(-size // stride)
    require(
        kernel <= size,
        f"--kernel {kernel}: does not fit into {size} pixels without padding; use at most {size}",
    )
    return (size - kernel) // stride + 1


def transposed_size(size: int, kernel: int, stride: int = 1, padding: Padding = "same") -> int:
    """Outputs along one axis of a transposed convolution: SAME in·stride, VALID (in − 1)·stride
    + kernel.

    Departure from TensorFlow: where stride > kernel, VALID there is in·stride, with zeros that
    no input reaches.
    """
    return size * stride if padding == "same" else (size - 1) * stride + kernel


def same_padding(size: int, kernel: int, stride: int = 1) -> tuple[int, int]:
    """Zeros (before, after) along one axis, as TensorFlow's SAME has them: the odd one comes
    after.
    """
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


class SameConv2d(nn.Conv2d):
    """A convolution to ⌈in/stride⌉ pixels, padded as TensorFlow does: float32 [B, C, H, W] → [B,
    C', ⌈H/s⌉, ⌈W/s⌉].

    PyTorch's own padding is the same on both sides, and its "same" refuses strides: for DCGAN's
    5x5 at stride 2 on an even size TensorFlow pads 1 before and 2 after, so PyTorch's padding of
    2 looks at other pixels.
    """

    def __init__(
        self, channels_in: int, channels_out: int, kernel: int, stride: int = 1, bias: bool = True
    ):
        super().__init__(channels_in, channels_out, kernel, stride, bias=bias)

    def forward(self, input: Tensor) -> Tensor:
        top, bottom = same_padding(input.shape[-2], self.kernel_size[0], self.stride[0])
        left, right = same_padding(input.shape[-1], self.kernel_size[1], self.stride[1])
        if (top, left) == (bottom, right):  # no copy
            return functional.conv2d(input, self.weight, self.bias, self.stride, (top, left))
        padded = functional.pad(input, (left, right, top, bottom))
        return functional.conv2d(padded, self.weight, self.bias, self.stride)


class SameConvTranspose2d(nn.ConvTranspose2d):
    """A transposed convolution to in·stride pixels: the adjoint of `SameConv2d` with the same
    kernel and stride.
    """

    def __init__(
        self, channels_in: int, channels_out: int, kernel: int, stride: int = 1, bias: bool = True
    ):
        super().__init__(channels_in, channels_out, kernel, stride, bias=bias)

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        before, after = same_padding(stride, kernel, stride)  # of any multiple of the stride
        # Where the kernel is smaller than the stride, no input reaches the last pixels: they hold
        # the bias.
        missing = max(stride - kernel, 0)
        out = functional.conv_transpose2d(
            input, self.weight, self.bias, self.stride, before, missing
        )
        extra = after - before  # PyTorch would crop both sides alike
        return out[..., : out.shape[-2] - extra, : out.shape[-1] - extra] if extra else out


# -- pooling that records --------------------------------------------------------------------------


def max_pool(x_BCHW: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """(the largest of each size x size window, its position in the H·W plane int64): both [B, C,
    ⌊H/size⌋, ⌊W/size⌋].
    """
    return functional.max_pool2d(x_BCHW, size, return_indices=True)


def unpool(x_BChw: Tensor, position_BChw: Tensor, height: int, width: int) -> Tensor:
    """Each value back at its recorded position, zeros elsewhere: [B, C, height, width].

    The positions are part of the image that a code does not pay for: see `position_bits`.
    """
    plane = x_BChw.new_zeros(*x_BChw.shape[:2], height * width)
    filled = plane.scatter(2, position_BChw.flatten(2), x_BChw.flatten(2))
    return filled.unflatten(2, (height, width))


def position_bits(channels: int, height: int, width: int, size: int) -> float:
    """Bits that the recorded positions of one pooling can carry around the code: log2(size²) for
    each window.
    """
    return channels * (height // size) * (width // size) * math.log2(size * size)
