"""Styles a large picture with a network for any style: the encoder in tiles, the decoder in strips.

The codes of the whole picture are kept, because the restyling needs their statistics. The restyling
is affine, code → A·code + b, and is folded into the convolutions of the decoder that read the code.
Of lite0's expansions, which are 1x1 convolutions to six times as many channels, the input is kept.
The result is that of one pass of the whole picture up to rounding.

Shapes: C channels, H height, W width, N pixels. Pictures are float32 in 0..1.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genray.gen.images.features import Features
from genray.gen.images.features.conv_stack import ConvStack
from genray.gen.images.features.efficientnet_lite0 import Block, ConvNorm
from genray.gen.images.features.lite0_features import Lite0Features
from genray.gen.images.style.adain import add_ridge, transport
from genray.gen.images.style.adain_net import AdaINNet
from genray.gen.images.style.strips import (
    STRIP,
    Activations,
    apply_in_strips,
    convolved,
    strips_of,
)

TILE = 384
"""Side of a tile of the encoder without its halo, in pixels."""


class Covariance:
    """Accumulates the mean and the covariance of channels over tiles, in float64."""

    def __init__(self) -> None:
        self.count, self.mean_C, self.products_CC = 0, torch.zeros(()), torch.zeros(())

    def add(self, tile_1Chw: Tensor) -> None:
        """Add a tile. [Chan 1983, https://doi.org/10.1080/00031305.1983.10483115]"""
        tile_NC = tile_1Chw[0].permute(1, 2, 0).flatten(0, 1)  # the encoder's order in memory
        mean_C = tile_NC.mean(0)
        centred_NC = tile_NC - mean_C
        products_CC, mean_C = (centred_NC.T @ centred_NC).double(), mean_C.double()
        count = len(tile_NC)
        total = self.count + count
        off_C = mean_C - self.mean_C.to(mean_C)
        between_CC = off_C[:, None] * off_C * (self.count * count / total)
        self.products_CC = self.products_CC.to(mean_C) + products_CC + between_CC
        self.mean_C = self.mean_C.to(mean_C) + off_C * (count / total)
        self.count = total

    def affine(self, style_1Chw: Tensor, whole: bool) -> tuple[Tensor, Tensor]:
        """Return A, [C, C], and b, [C]: the map of these activations to the style's statistics.

        `whole`: the style's covariance; otherwise its deviations (AdaIN).
        """
        style = Covariance()
        style.add(style_1Chw)
        own_CC, wanted_CC = (each.products_CC / each.count for each in (self, style))
        if whole:
            map_CC = transport(add_ridge(own_CC), add_ridge(wanted_CC))
        else:
            std_C, wanted_C = (each.diag().clamp(min=1e-10).sqrt() for each in (own_CC, wanted_CC))
            map_CC = torch.diag(wanted_C / std_C)
        return map_CC.float(), (style.mean_C - map_CC @ self.mean_C).float()


def encoder_halo(encoder: Features) -> int | None:
    """Return how many pixels away from a pixel its activations depend on the picture; None if that
    is unknown. The value is an upper bound.
    """
    if not isinstance(encoder, Lite0Features | ConvStack):
        return None
    side = 8 * encoder.stride_of(encoder.layers[-1]) + encoder.least_side(encoder.layers)
    halo, handles = 0, []

    def see(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        nonlocal halo
        scale = -(-side // inputs[0].shape[-1])
        # A convolution of stride 2 has a blur of 3x3 pixels before it.
        blur = isinstance(module, ConvNorm) and not isinstance(module.before, nn.Identity)
        kernel = module.kernel_size[0] if isinstance(module, nn.Conv2d) else 1
        halo += (kernel // 2 + blur) * scale

    for module in encoder.modules():
        if isinstance(module, nn.Conv2d | ConvNorm):
            handles.append(module.register_forward_pre_hook(see))
    weight = next(encoder.parameters())
    encoder(torch.zeros(1, 3, side, side, device=weight.device), encoder.layers)
    for handle in handles:
        handle.remove()
    return halo


@torch.no_grad()
def restyle_in_tiles(
    net: AdaINNet,
    content_1CHW: Tensor,
    styles: Sequence[Sequence[Tensor]],
    weights: Sequence[float],
    alpha: float,
    *,
    halo: int,
    tile: int = TILE,
    strip: int = STRIP,
) -> Tensor:
    """Return the content in a mixture of styles, float32 [1, 3, H, W] in 0..1.

    The memory is that of the stored codes, and of one layer of the decoder.

    Args:
        net: the network.
        content_1CHW: the content, whose sides are multiples of `net.multiple`.
        styles: the codes of each style.
        weights: weights of the styles, with sum 1.
        alpha: strength of the style.
        halo: see `encoder_halo`.
        tile: side of a tile without its halo.
        strip: see `transformed_in_strips`.
    """
    codes, statistics = _encoded(net, content_1CHW, halo, tile)
    affine = []
    for number, found in enumerate(statistics):
        maps = [found.affine(style[number], net.config.skips) for style in styles]
        map_CC = sum(weight * each[0] for weight, each in zip(weights, maps))
        shift_C = sum(weight * each[1] for weight, each in zip(weights, maps))
        assert isinstance(map_CC, Tensor) and isinstance(shift_C, Tensor)
        map_CC = alpha * map_CC + (1 - alpha) * torch.eye(len(map_CC)).to(map_CC)
        affine.append((map_CC, alpha * shift_C))
    return _decoded(net, codes, affine, strip)


@dataclass
class _Code:
    """A code of the whole picture, which is computed from the stored values when it is read."""

    values_1CHW: Tensor
    expand: Callable[[Tensor], Tensor]

    def rows(self, start: int, stop: int) -> Tensor:
        """Return rows of the code, [1, C, stop − start, W]."""
        return self.expand(self.values_1CHW[..., start:stop, :])


def _same(h_BCHW: Tensor) -> Tensor:
    return h_BCHW


def _stored_as(encoder: Features, layer: str) -> tuple[str, Callable[[Tensor], Tensor]]:
    """Return a layer with fewer channels, and the function that computes `layer` from it."""
    if not (isinstance(encoder, Lite0Features) and layer.startswith("exp")):
        return layer, _same
    number = int(layer.removeprefix("exp"))
    block = encoder.net.blocks[number]
    assert isinstance(block, Block) and block.expand is not None
    expand, activation = block.expand, encoder.net.activation
    return f"block{number - 1}", lambda h_BCHW: activation(expand(h_BCHW))


def _encoded(
    net: AdaINNet, x_1CHW: Tensor, halo: int, tile: int
) -> tuple[list[_Code], list[Covariance]]:
    """Return the codes of the content, and their statistics, shallow to deep."""
    encoder, multiple, (height, width) = net.encoder, net.multiple, x_1CHW.shape[2:]
    side, halo = (-(-each // multiple) * multiple for each in (tile, halo))
    ways = [_stored_as(encoder, layer) for layer in net.layers]
    ways[-1] = net.layers[-1], _same  # is read with reflected borders
    scales = [encoder.stride_of(layer) for layer in net.layers]
    statistics = [Covariance() for _ in net.layers]
    stored: list[Tensor] = []
    for (top, bottom), (left, right) in product(_spans(height, side), _spans(width, side)):
        first_row, first_column = max(0, top - halo), max(0, left - halo)
        part_1Chw = x_1CHW[..., first_row : bottom + halo, first_column : right + halo]
        found = encoder(part_1Chw, list({*net.layers, *(stored_as for stored_as, _ in ways)}))
        for number, (layer, scale) in enumerate(zip(net.layers, scales)):
            rows = slice((top - first_row) // scale, (bottom - first_row) // scale)
            columns = slice((left - first_column) // scale, (right - first_column) // scale)
            statistics[number].add(found[layer][..., rows, columns])
            kept = found[ways[number][0]]
            if len(stored) == number:
                shape = (1, kept.shape[1], height // scale, width // scale)
                stored.append(kept.new_empty(shape).to(memory_format=torch.channels_last))
            stored[number][..., top // scale : bottom // scale, left // scale : right // scale] = (
                kept[..., rows, columns]
            )
    codes = [_Code(values, expand) for values, (_, expand) in zip(stored, ways)]
    if net.config.skips:
        # The picture is the first code.
        colours = Covariance()
        for start, stop in strips_of(x_1CHW):
            colours.add(x_1CHW[..., start:stop, :])
        codes, statistics = [_Code(x_1CHW, _same), *codes], [colours, *statistics]
    return codes, statistics


def _spans(length: int, side: int) -> Iterator[tuple[int, int]]:
    for start in range(0, length, side):
        yield start, min(start + side, length)


def _decoded(
    net: AdaINNet, codes: list[_Code], affine: list[tuple[Tensor, Tensor]], strip: int
) -> Tensor:
    """Return `net.decoder` of the codes after the affine maps. `codes` is emptied on the way."""
    decoder = net.decoder
    first, *layers, last = decoder.layers
    assert isinstance(first, nn.Conv2d) and isinstance(last, nn.Conv2d)
    deepest = Activations(codes.pop().values_1CHW)
    found = Activations(convolved(_folded(first, *affine[-1]), deepest, strip=strip))
    del deepest
    number = len(decoder.skips)
    for layer in layers:
        found = apply_in_strips([layer], found, iter(()), strip)
        if isinstance(layer, nn.Upsample) and number:
            skip = decoder.skips[number - 1]
            assert isinstance(skip, nn.Conv2d)
            found = replace(found, added=_reader(_folded(skip, *affine[number]), codes.pop()))
            number -= 1
    colours = None
    if decoder.colours is not None:
        coarse_1Chw = F.avg_pool2d(codes[0].values_1CHW, 4, ceil_mode=True)
        coarse_1Chw = _folded(decoder.colours, *affine[0])(coarse_1Chw)
        colours = F.interpolate(coarse_1Chw, found.size, mode="bilinear")

    def finish(values_13hW: Tensor, start: int, stop: int) -> Tensor:
        if colours is not None:
            values_13hW.add_(colours[..., start:stop, :])
        return values_13hW.sigmoid_()

    return convolved(last, found, strip=strip, finish=finish)


def _reader(layer: nn.Conv2d, code: _Code) -> Callable[[int, int], Tensor]:
    """Return a function of rows that applies a 1x1 convolution to the rows of a code."""
    return lambda start, stop: layer(code.rows(start, stop)).contiguous()


def _folded(layer: nn.Conv2d, map_CC: Tensor, shift_C: Tensor) -> nn.Conv2d:
    """Return the convolution after code → map_CC · code + shift_C."""
    assert layer.bias is not None
    folded = nn.utils.skip_init(
        nn.Conv2d, layer.in_channels, layer.out_channels, layer.kernel_size, device=shift_C.device
    )
    weight = layer.weight
    folded.weight = nn.Parameter(torch.einsum("oikl,ij->ojkl", weight, map_CC), False)
    folded.bias = nn.Parameter(layer.bias + weight.sum((2, 3)) @ shift_C, False)
    return folded
