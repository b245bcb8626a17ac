"""Styles a large picture with `MicroNet`, layer by layer in horizontal strips.

AdaIN needs the statistics of a stage's whole activations. They are computed at the smallest size,
after the strips of the stage before. The modulated filters are computed once, as the weights of
convolutions. The result is that of one pass of the whole picture up to rounding.

Shapes: C channels, H height, W width. Pictures are float32 in 0..1.
"""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genray.gen.images.style.micro_net import MicroCode, MicroNet
from genray.gen.images.style.network_parts import Residual
from genray.gen.images.style.strips import (
    STRIP,
    Activations,
    Moments,
    apply_in_strips,
    convolved,
    strips_of,
)


@torch.no_grad()
def restyle_in_strips(
    net: MicroNet, content_1CHW: Tensor, code: MicroCode, strip: int = STRIP
) -> Tensor:
    """Return the content with the signals and the colours of `code`, float32 [1, 3, H, W] in 0..1.

    Args:
        net: the network.
        content_1CHW: the content, whose sides are multiples of `net.multiple`.
        code: see `MicroNet.mixed`.
        strip: see `transformed_in_strips`.
    """
    encoder, decoder = net.content_encoder, net.decoder
    one = content_1CHW.new_ones(1, 3, 1, 1)
    layers = [*encoder.down, *encoder.blocks]
    found = apply_in_strips(layers, Activations(content_1CHW, 2 * one, -one), iter(()), strip)
    for block, signal_1KC11 in zip(decoder.blocks, reversed(code.signals), strict=True):
        mean_1C11, std_1C11, *filters = signal_1KC11.unbind(1)
        moments = Moments()
        for start, stop in strips_of(found.values_1CHW, strip):
            moments.add(found.values_1CHW[..., start:stop, :])
        own_mean_1C11, own_std_1C11 = moments.mean_std()
        scale_1C11 = std_1C11 / own_std_1C11
        found = replace(found, scale=scale_1C11, shift=mean_1C11 - scale_1C11 * own_mean_1C11)
        assert isinstance(block, Residual)
        found = apply_in_strips([with_filters(block, filters)], found, iter(()), strip)
    *inner, last = decoder.up
    assert isinstance(last, nn.Conv2d)
    found = apply_in_strips(inner, found, iter(()), strip)
    colours_13HW = None
    if decoder.colours is not None and code.coarse_BCHW is not None:
        coarse_13hw = decoder.colours(code.coarse_BCHW)
        colours_13HW = F.interpolate(coarse_13hw, found.size, mode="bilinear")

    def finish(values_13hW: Tensor, start: int, stop: int) -> Tensor:
        if colours_13HW is not None:
            values_13hW.add_(colours_13HW[..., start:stop, :])
        return values_13hW.sigmoid_()

    return convolved(last, found, strip=strip, finish=finish)


def with_filters(block: Residual, filters: Sequence[Tensor]) -> Residual:
    """Return a copy of a block with modulated filters; see `modulated`."""
    block, left = deepcopy(block), list(filters)
    assert isinstance(block.layers, nn.Sequential)
    for layer in block.layers:
        if isinstance(layer, nn.Conv2d) and layer.groups == 1:
            factor_C, bias_C = left.pop(0).flatten(), left.pop(0).flatten()
            assert layer.bias is not None
            layer.weight.mul_(factor_C[:, None, None, None])
            layer.bias.mul_(factor_C).add_(bias_C)
    return block
