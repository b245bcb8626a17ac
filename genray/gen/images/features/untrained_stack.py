"""Makes a feature extractor without training: random weights, normalised on some pictures.

Shapes: B batch, C channels, H height, W width.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genray.gen.images.features.conv_stack import ConvStack

UNTRAINED = "untrained features: colour and texture, not semantics"
UNTRAINED_COUNTS, UNTRAINED_WIDTHS = (2, 2, 3, 2), (32, 64, 128, 256)


@torch.no_grad()
def untrained(
    seed: int = 0, calibrate: Sequence[Tensor] = (), palette: Sequence[Tensor] = ()
) -> ConvStack:
    """Return a smaller stack like VGG's with orthogonal random weights, normalised on `calibrate`.

    The stack has nine convolutions of half VGG's widths. On the pictures of `calibrate`, each
    channel has mean 0 and variance 1 before the ReLU.

    `calibrate`: pictures [B, 3, H, W] in 0..1 of any size, all with the same weight; by default,
    random clouds with a photograph's spectrum. Random weights suffice for textures if all channels
    have the same scale. With He's initialisation and no normalisation, a few channels dominate and
    the result is noise. The normalisation becomes part of the weights and biases.

    `palette`: pictures whose colours define the weights of colour differences. A direction in
    which the colours of these pictures vary little has more weight (by variance^-¼, halfway to
    whitening), so that an optimised picture keeps to their colours and has no speckle.
    [Saxe 2014, https://arxiv.org/abs/1312.6120; He 2016, https://arxiv.org/abs/1606.04801]
    """
    # Prepare the pictures of the calibration, the weights of colour differences, and an empty
    # stack.
    generator = torch.Generator().manual_seed(seed)
    names = [f"conv{index}" for index in range(sum(UNTRAINED_COUNTS))]
    pictures = [picture.detach().float().cpu() for picture in calibrate] or [
        clouds(generator=generator)
    ]
    weigh = _colour_weighting(palette) if palette else torch.eye(3)
    # The mean and deviation are computed over all calibration pictures together, so that dark or
    # pale pictures also get variance 1.
    pixels = torch.cat([_spaced_pixels(picture) for picture in pictures], dim=1)
    mean, std = pixels.mean(1), (weigh @ pixels).std().clamp(min=0.05).expand(3)
    stack = ConvStack(
        "untrained", names, UNTRAINED_COUNTS, UNTRAINED_WIDTHS, mean=mean.tolist(), std=std.tolist()
    )
    stack.style_layers, stack.content_layers = (
        ("conv0", "conv2", "conv4", "conv7"),
        ("conv2", "conv4"),
    )
    stack.trained, stack.about = False, {"features": "untrained", "note": UNTRAINED, "seed": seed}
    # For each layer, draw orthogonal weights, then normalise the outputs by changing the weights
    # and biases.
    hidden = [
        torch.einsum("ij,bjhw->bihw", weigh, (picture - stack.mean) / stack.std)
        for picture in pictures
    ]
    for index, conv in enumerate(stack.convs):
        assert isinstance(conv, nn.Conv2d) and conv.bias is not None
        nn.init.orthogonal_(conv.weight, generator=generator)
        conv.bias.zero_()
        hidden = [conv(stack.before(index, h_BCHW)) for h_BCHW in hidden]
        sample = torch.cat([_spaced_pixels(h_BCHW) for h_BCHW in hidden], dim=1)
        # The minimum keeps a nearly constant channel from being amplified to variance 1.
        spread_C = sample.std(1)
        spread_C = spread_C.clamp(min=float(spread_C.median()) / 100 + 1e-6)
        shift_C = sample.mean(1)
        conv.weight.div_(spread_C[:, None, None, None])
        conv.bias.copy_(-shift_C / spread_C)
        hidden = [F.relu((h - shift_C[:, None, None]) / spread_C[:, None, None]) for h in hidden]
    # The weights of colour differences become part of the first convolution's weights.
    first = stack.convs[0]
    assert isinstance(first, nn.Conv2d)
    first.weight.copy_(torch.einsum("ojhw,ji->oihw", first.weight, weigh))
    return stack


def _colour_weighting(palette: Sequence[Tensor]) -> Tensor:
    """Return the colours' covariance [3, 3], over its largest eigenvalue, to the power −¼."""
    pixels = torch.cat(
        [_spaced_pixels(picture.detach().float().cpu()) for picture in palette], dim=1
    )
    # An added deviation of 4% of the range limits the weight of colours that the palette lacks.
    value_3, vector_33 = torch.linalg.eigh(torch.cov(pixels) + 0.04**2 * torch.eye(3))
    return vector_33 @ torch.diag((value_3 / value_3.max()) ** -0.25) @ vector_33.T


def _spaced_pixels(h_BCHW: Tensor, most: int = 1 << 12) -> Tensor:
    """Return `most` evenly spaced pixels of pictures of any size, [C, most].

    With the same number of pixels, pictures of different sizes have the same weight.
    """
    flat = h_BCHW.movedim(1, 0).flatten(1)
    return flat[:, torch.linspace(0, flat.shape[1] - 1, most).round().long()]


def clouds(side: int = 128, num: int = 4, *, generator: torch.Generator) -> Tensor:
    """Draw coloured noise of amplitude 1/frequency, the spectrum of photographs.

    Returns [num, 3, side, side] in 0..1.
    """
    frequency = torch.fft.fftfreq(side)[:, None].square() + torch.fft.rfftfreq(side)[None].square()
    amplitude = frequency.clamp(min=1 / side**2).rsqrt()
    noise = torch.fft.rfft2(torch.randn(num, 3, side, side, generator=generator))
    picture = torch.fft.irfft2(noise * amplitude, s=(side, side))
    # Photographs vary more in lightness than in colour.
    picture = picture + picture.mean(1, keepdim=True)
    return (0.5 + 0.25 * picture / picture.std(dim=(1, 2, 3), keepdim=True)).clamp(0, 1)
