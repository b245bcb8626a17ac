"""Translates pictures of any size; large ones in overlapping tiles, with the result of a whole.

Instance norms use the mean and the variance of the whole picture. For a picture of several tiles,
these are found first, one norm after the other: all tiles are passed through the network up to this
norm. Batch norms use running averages and need no such passes. Tiles overlap by the network's halo,
so that the pixels of a tile's core depend on pixels inside the tile only.

Shapes: C channels, H height, W width. Images are float32 in −1..1.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor, nn

from genray.errors import require
from genray.gen.images.style.network_parts import pad_to_multiple
from genray.gen.translation.networks import Norm, ResNet, UNet

TILE = 512
"""Default side of the core of a tile, in pixels."""


class _Span(NamedTuple):
    """One side of a tile, in pixels of the picture: its core, and the core with the halo."""

    core_start: int
    core_stop: int
    start: int
    stop: int


class _Found(Exception):
    """Ends the pass of a tile after the norm whose statistics are wanted."""


@torch.no_grad()
def translate_picture(network: UNet | ResNet, x_1CHW: Tensor, tile: int = TILE) -> Tensor:
    """Return the translation of one picture, float32 [1, C', H, W] on the CPU.

    A picture of which both sides have at most `tile` pixels and twice the network's halo is
    translated as a whole. For a larger one the memory depends on the tile, not on the picture; the
    work is that of about (norms + 1)/2 + 1 passes, and that of the halos. The two results differ by
    rounding only.

    Args:
        network: a generator in evaluation mode; its device is used.
        x_1CHW: the picture.
        tile: side of a tile's core, which is rounded up to a multiple of `network.multiple`.

    Raises:
        ConfigError: other channels than the network takes, or a side of half of
            `network.multiple` or less.
    """
    first = next(each for each in network.modules() if isinstance(each, nn.Conv2d))
    channels, (height, width) = x_1CHW.shape[1], x_1CHW.shape[2:]
    require(
        channels == first.in_channels,
        f"the picture has {channels} channel{'' if channels == 1 else 's'}, and the model takes "
        f"{first.in_channels}",
    )
    least = max(network.multiple // 2 + 1, 4)
    require(
        min(height, width) >= least,
        f"the picture has {width}x{height} pixels; this model takes sides of {least} or more",
    )
    require(tile >= 1, f"--tile {tile}: must be ≥ 1, e.g. {TILE}")
    device = first.weight.device
    padded = pad_to_multiple(x_1CHW, network.multiple)
    side = -(-tile // network.multiple) * network.multiple
    if max(padded.shape[2:]) <= side + 2 * network.halo:
        return network(padded.to(device)).float().cpu()[..., :height, :width]
    spans = [list(_spans(length, side, network.halo)) for length in padded.shape[2:]]
    norms = _norms_in_order(network, first.in_channels, device)
    out = None
    try:
        for norm in norms:
            norm.statistics = _statistics(network, norm, padded, spans)
        for rows, columns in product(*spans):
            part = _cut(network(_take(padded, rows, columns).to(device)), rows, columns, 1)
            if out is None:
                out = torch.empty(1, part.shape[1], *padded.shape[2:])
            out[..., _core(rows), _core(columns)] = part.float().cpu()
    finally:
        for norm in norms:
            norm.statistics = None
    assert out is not None
    return out[..., :height, :width]


def _spans(length: int, side: int, halo: int) -> Iterator[_Span]:
    """Yield the tiles along one side of the picture."""
    for start in range(0, length, side):
        stop = min(start + side, length)
        yield _Span(start, stop, max(0, start - halo), min(length, stop + halo))


def _take(x_1CHW: Tensor, rows: _Span, columns: _Span) -> Tensor:
    """Return a tile with its halo."""
    return x_1CHW[..., rows.start : rows.stop, columns.start : columns.stop]


def _core(span: _Span) -> slice:
    return slice(span.core_start, span.core_stop)


def _cut(x_1Chw: Tensor, rows: _Span, columns: _Span, scale: int) -> Tensor:
    """Return the core of a tile's feature map, whose pixels have `scale` pixels a side."""
    top, left = (rows.core_start - rows.start) // scale, (columns.core_start - columns.start)
    height = (rows.core_stop - rows.core_start) // scale
    width = (columns.core_stop - columns.core_start) // scale
    return x_1Chw[..., top : top + height, left // scale : left // scale + width]


def _norms_in_order(network: nn.Module, channels: int, device: torch.device) -> list[Norm]:
    """Return the norms in the order in which a pass calls them."""
    found: list[Norm] = []
    norms = [each for each in network.modules() if isinstance(each, Norm)]
    handles = [norm.register_forward_pre_hook(lambda each, x: found.append(each)) for norm in norms]
    side = 2 * int(network.multiple)  # type: ignore[arg-type]
    network(torch.zeros(1, channels, side, side, device=device))
    for handle in handles:
        handle.remove()
    return found


def _statistics(
    network: nn.Module, norm: Norm, x_1CHW: Tensor, spans: list[list[_Span]]
) -> tuple[Tensor, Tensor]:
    """Return the mean and the variance of the inputs of a norm, both [C], over the whole picture.

    Norms before this one have their statistics already.
    """
    device = norm.weight.device
    sums_2C = torch.zeros(2, norm.num_features, dtype=torch.float64, device=device)
    pixels = 0
    for rows, columns in product(*spans):
        tile = _take(x_1CHW, rows, columns).to(device)
        with _input_of(norm) as seen, _ended_by_found():
            network(tile)
        [x_1Chw] = seen
        core = _cut(x_1Chw, rows, columns, tile.shape[2] // x_1Chw.shape[2]).double()
        sums_2C += torch.stack([core.sum((0, 2, 3)), core.square().sum((0, 2, 3))])
        pixels += core.shape[2] * core.shape[3]
    mean_C, square_C = sums_2C / pixels
    return mean_C.float(), (square_C - mean_C.square()).clamp(min=0).float()


@contextmanager
def _input_of(norm: Norm) -> Iterator[list[Tensor]]:
    """Append the input of a norm to the yielded list, and end the pass there."""
    seen: list[Tensor] = []

    def see(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen.append(inputs[0])
        raise _Found

    handle = norm.register_forward_pre_hook(see)
    try:
        yield seen
    finally:
        handle.remove()


@contextmanager
def _ended_by_found() -> Iterator[None]:
    try:
        yield
    except _Found:
        return
