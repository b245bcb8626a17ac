"""Convolves the activations of a large picture one layer at a time, in horizontal strips.

Instance norm needs the statistics of a layer's whole output. Each convolution is therefore applied
to the whole picture before the next one begins: strip by strip, while the sums for the next norm
are accumulated. Norm, ReLU and upsampling are applied when a strip is read. The result is that of
one pass of the whole picture up to rounding, and no pixel is computed twice. Only one layer's input
and output are in memory.

Shapes: C channels, H height, W width, h rows of a strip. Pictures are float32 in 0..1.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genray.gen.images.style.network_parts import Residual

STRIP = 1 << 20
"""Number of values in a strip of a layer's output: 4 MiB as float32, a processor's cache."""
WHOLE = 1 << 20
"""Number of pixels up to which a picture is processed as a whole."""


@dataclass(frozen=True)
class Activations:
    """Activations with pointwise operations, which are applied when rows are read.

    The operations are, in this order: a factor and a shift for each channel, ReLU, upsampling to
    twice the sides, and the sum with other activations.
    """

    values_1CHW: Tensor
    scale: Tensor | None = None
    """[1, C, 1, 1]; None: without factor and shift."""
    shift: Tensor | None = None
    relu: bool = False
    upsampled: bool = False
    added: Callable[[int, int], Tensor] | None = None
    """Function of the first and the last row that returns other activations, [1, C, h, W]."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width after upsampling."""
        height, width = self.values_1CHW.shape[2:]
        return (2 * height, 2 * width) if self.upsampled else (height, width)

    def stored_rows(self, start: int, stop: int) -> Tensor:
        """Return rows before upsampling, [1, C, stop − start, W]; they must not be changed."""
        rows_1ChW = self.values_1CHW[..., start:stop, :]
        if self.scale is not None and self.shift is not None:
            rows_1ChW = torch.addcmul(self.shift, rows_1ChW, self.scale)
            return rows_1ChW.clamp_(min=0) if self.relu else rows_1ChW
        return rows_1ChW.clamp(min=0) if self.relu else rows_1ChW

    def rows(self, start: int, stop: int) -> Tensor:
        """Return rows after all operations, [1, C, stop − start, W]; they must not be changed."""
        if not self.upsampled:
            rows_1ChW = self.stored_rows(start, stop)
        else:
            rows_1ChW = self.stored_rows(start // 2, -(-stop // 2))
            rows_1ChW = F.interpolate(rows_1ChW, scale_factor=2, mode="nearest")
            rows_1ChW = rows_1ChW[..., start % 2 : start % 2 + stop - start, :]
        return rows_1ChW if self.added is None else rows_1ChW + self.added(start, stop)

    def stored(self, strip: int = STRIP) -> "Activations":
        """Apply the operations to the stored values, which are overwritten."""
        assert not self.upsampled and self.added is None
        if self.scale is not None or self.relu:
            for start, stop in strips_of(self.values_1CHW, strip):
                self.values_1CHW[..., start:stop, :] = self.stored_rows(start, stop)
        return Activations(self.values_1CHW)


class Moments:
    """Accumulates the mean and the variance of each channel over strips, in float64."""

    def __init__(self) -> None:
        self._count, self._mean_C, self._squares_C = 0, torch.zeros(()), torch.zeros(())

    def add(self, strip_1ChW: Tensor) -> None:
        """Add a strip. [Chan 1983, https://doi.org/10.1080/00031305.1983.10483115]"""
        # torch.var_mean would take six times as long.
        count = strip_1ChW.shape[2] * strip_1ChW.shape[3]
        mean_C = strip_1ChW.mean((0, 2, 3))
        centred_1ChW = strip_1ChW - mean_C[:, None, None]
        squares_C = torch.linalg.vector_norm(centred_1ChW, dim=(0, 2, 3)).double().square()
        mean_C = mean_C.double()
        total = self._count + count
        off_C = mean_C - self._mean_C.to(mean_C)
        self._squares_C = (
            self._squares_C.to(mean_C) + squares_C + off_C**2 * (self._count * count / total)
        )
        self._mean_C = self._mean_C.to(mean_C) + off_C * (count / total)
        self._count = total

    def mean_std(self) -> tuple[Tensor, Tensor]:
        """Return the mean and the deviation (at least 1e-5) of each channel, both [1, C, 1, 1]."""
        std_C = (self._squares_C / self._count).clamp(min=1e-10).sqrt()
        shape = (1, -1, 1, 1)
        return self._mean_C.float().view(shape), std_C.float().view(shape)

    def norm(self, layer: nn.InstanceNorm2d) -> tuple[Tensor, Tensor]:
        """Return the factor and the shift of an instance norm, both [1, C, 1, 1]."""
        scale_C = (self._squares_C / self._count + layer.eps).rsqrt()
        shift_C = -self._mean_C * scale_C
        if layer.affine:
            scale_C, shift_C = scale_C * layer.weight, shift_C * layer.weight + layer.bias
        shape = (1, -1, 1, 1)
        return scale_C.float().view(shape), shift_C.float().view(shape)


@torch.no_grad()
def transformed_in_strips(
    layers: nn.Sequential,
    skip: nn.Sequential,
    x_1CHW: Tensor,
    changes: Iterator[tuple[Tensor, Tensor]],
    strip: int = STRIP,
) -> Tensor:
    """Return what `TransformerNet.forward` returns for one picture, up to rounding.

    Args:
        layers, skip: the parts of the network.
        x_1CHW: the picture, whose sides are multiples of the network's `multiple`.
        changes: see `apply_layers`.
        strip: number of values of a layer's output that are computed together.
    """
    one = x_1CHW.new_ones(1, x_1CHW.shape[1], 1, 1)
    *inner, last = layers
    found = apply_in_strips(inner, Activations(x_1CHW, 2 * one, -one), changes, strip)
    norm, mix = skip[0], skip[1]
    assert isinstance(norm, nn.InstanceNorm2d) and isinstance(last, nn.Conv2d)
    colours = Moments()
    for start, stop in strips_of(x_1CHW, strip):
        colours.add(x_1CHW[..., start:stop, :])
    plain = _normalised(Activations(x_1CHW), colours, norm, changes)

    def finish(values_13hW: Tensor, start: int, stop: int) -> Tensor:
        return values_13hW.add_(mix(plain.rows(start, stop))).sigmoid_()

    return convolved(last, found, strip=strip, finish=finish)


def apply_in_strips(
    layers: Iterable[nn.Module],
    found: Activations,
    changes: Iterator[tuple[Tensor, Tensor]],
    strip: int = STRIP,
) -> Activations:
    """Apply convolutions, instance norms, ReLUs, upsamplings and residual blocks in order.

    `changes`: see `apply_layers`. The values of `found` may be overwritten after its first
    convolution.
    """
    moments, every = None, [*layers]
    for layer, following in zip(every, [*every[1:], None]):
        if isinstance(layer, Residual):
            found = found.stored(strip)
            assert isinstance(layer.layers, nn.Sequential)
            inner = apply_in_strips(layer.layers, found, changes, strip)
            for start, stop in strips_of(found.values_1CHW, strip):
                found.values_1CHW[..., start:stop, :].add_(inner.rows(start, stop))
        elif isinstance(layer, nn.Conv2d):
            moments = Moments() if isinstance(following, nn.InstanceNorm2d) else None
            found = Activations(convolved(layer, found, moments=moments, strip=strip))
        elif isinstance(layer, nn.InstanceNorm2d):
            assert moments is not None
            found = _normalised(found, moments, layer, changes)
        elif isinstance(layer, nn.Upsample):
            found = replace(found, upsampled=True)
        else:
            assert isinstance(layer, nn.ReLU)
            found = replace(found, relu=True)
    return found


def _normalised(
    found: Activations,
    moments: Moments,
    layer: nn.InstanceNorm2d,
    changes: Iterator[tuple[Tensor, Tensor]],
) -> Activations:
    """Return the activations followed by the norm, and by the next of `changes`, if any is left."""
    scale, shift = moments.norm(layer)
    change = next(changes, None)
    if change is not None:
        scale, shift = scale * change[0], shift * change[0] + change[1]
    return replace(found, scale=scale, shift=shift)


def convolved(
    layer: nn.Conv2d,
    found: Activations,
    *,
    moments: Moments | None = None,
    strip: int = STRIP,
    finish: Callable[[Tensor, int, int], Tensor] = lambda values, start, stop: values,
) -> Tensor:
    """Return the convolution of activations, with reflection padding.

    `moments`: gets the results. `finish`: function of a strip of the result, its first and its last
    row, which is applied to each strip.
    """
    (height, width), stride = found.size, layer.stride[0]
    out_1CHW = found.values_1CHW.new_empty(1, layer.out_channels, height // stride, width // stride)
    by_parity = found.upsampled and found.added is None and layer.kernel_size == (3, 3)
    assert layer.groups == 1 or not by_parity
    one_strip = _upsampled_strip if by_parity else _strip
    for start, stop in strips_of(out_1CHW, strip):
        values = one_strip(layer, found, start, stop)
        if moments is not None:
            moments.add(values)
        out_1CHW[..., start:stop, :] = finish(values, start, stop)
    return out_1CHW


def _strip(layer: nn.Conv2d, found: Activations, start: int, stop: int) -> Tensor:
    """Return the rows start..stop of a convolution."""
    height, pad, stride = found.size[0], layer.kernel_size[0] // 2, layer.stride[0]
    first, last = start * stride - pad, (stop - 1) * stride + pad + 1
    rows = found.rows(max(0, first), min(height, last))
    rows = F.pad(rows, (pad, pad, max(0, -first), max(0, last - height)), mode="reflect")
    return F.conv2d(rows, layer.weight, layer.bias, stride, groups=layer.groups)


def _upsampled_strip(layer: nn.Conv2d, found: Activations, start: int, stop: int) -> Tensor:
    """Return the rows start..stop, both even, of a 3x3 convolution after nearest upsampling.

    A 3x3 window covers 2x2 stored pixels, so that four convolutions with 2x2 kernels, one for each
    parity of row and column, give the same result with 4/9 of the work. Reflection padding of the
    upsampled activations is replication padding of the stored ones.
    """
    height, width = found.values_1CHW.shape[2:]
    first, last = start // 2 - 1, stop // 2 + 1
    rows = found.stored_rows(max(0, first), min(height, last))
    rows = F.pad(rows, (1, 1, max(0, -first), max(0, last - height)), mode="replicate")
    # Sums of the kernel's rows, and of its columns, that meet the same stored pixel.
    halves = torch.tensor([[[1, 0, 0], [0, 1, 1]], [[1, 1, 0], [0, 0, 1]]]).to(layer.weight)
    kernels = torch.einsum("apk,bql,oikl->oabipq", halves, halves, layer.weight)
    bias = None if layer.bias is None else layer.bias.repeat_interleave(4)
    found_1Khw = F.conv2d(rows, kernels.flatten(0, 2), bias)
    parts = found_1Khw.view(layer.out_channels, 2, 2, *found_1Khw.shape[2:])
    out = rows.new_empty(1, layer.out_channels, stop - start, 2 * width)
    for down in range(2):
        for right in range(2):
            out[0, :, down::2, right::2] = parts[
                :, down, right, down : down + (stop - start) // 2, right : right + width
            ]
    return out


def strips_of(x_1CHW: Tensor, strip: int = STRIP) -> Iterator[tuple[int, int]]:
    """Yield the first and the last row of each strip: an even number of rows, about `strip`
    values.
    """
    height = x_1CHW.shape[2]
    rows = max(2, strip // x_1CHW[0, :, 0].numel() // 2 * 2)
    for start in range(0, height, rows):
        yield start, min(start + rows, height)
