"""Class pictures: pictures that a classifier takes for a class with certainty.

Gradient ascent changes a picture until the logit of one class is large. Three things keep the
picture away from noise that only the network understands:

- The picture is stored as a Fourier transform whose amplitudes are scaled to the spectrum of
  photographs (1 / frequencyᵈ) and whose colours are decorrelated, so that low frequencies and
  usual colours change first. [Olah 2017, https://distill.pub/2017/feature-visualization]
- At every step the network sees a random part of the picture, half of its side or more, turned
  and with a little noise. So the whole picture and its parts show the class.
- The means and variances of the network's channels stay near those of its training, which its
  batch normalisations have stored. [Yin 2020, DeepInversion, https://arxiv.org/abs/1912.08795]

The class of the picture by the same network is no independent measure of the picture: almost any
noise that was optimised for a class reaches a probability of 1.
[Simonyan 2014, https://arxiv.org/abs/1312.6034]

Shapes: B views, K classes, C channels, H height, W width.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from genray.bounds import bounded, check_bounds, seed
from genray.errors import require
from genray.gen.images.class_network import ClassNetwork

COLOURS_33 = (
    (0.563, 0.195, 0.043),
    (0.585, 0.0, -0.108),
    (0.585, -0.195, 0.065),
)
"""Columns: the principal directions of ImageNet's colours (lightness, blue to yellow, green to
magenta), scaled by their deviations, and so that the longest column has length 1. Colours of
photographs are decorrelated in these coordinates. [Lucid's `color_correlation_svd_sqrt`,
https://github.com/tensorflow/lucid]
"""
LARGEST_VIEW = 1.1
"""Side of the largest view, as a share of the picture's side."""
Each = Callable[[int, Tensor], None]
"""Function of the number of finished steps and the picture [1, 3, H, W] in 0..1."""


@dataclass(frozen=True, kw_only=True)
class ImagineConfig:
    """Configuration of a class picture. Lengths are shares of the picture's side."""

    size: int = bounded(256, min=32, max=1024, example=256)
    """Side of the picture, pixels."""
    steps: int = bounded(160, min=1, max=10_000, example=160)
    """Number of steps of Adam."""
    rate: float = bounded(0.05, above=0, max=1, example=0.05)
    """Learning rate of Adam, for coefficients that start with a deviation of 0.01. Falls to a tenth
    in the second half of the steps.
    """
    statistics: float = bounded(4.0, min=0, example=4)
    """Weight of the statistics of the network's channels; 0 leaves them out. Networks without batch
    norm have none.
    """
    smooth: float = bounded(30.0, min=0, example=30)
    """Weight of the mean squared difference of neighbouring pixels."""
    decay: float = bounded(1.4, min=0, max=3, example=1.4)
    """Exponent d of the spectrum 1 / frequencyᵈ; larger values give softer pictures."""
    noise: float = bounded(0.04, min=0, max=0.5, example=0.04)
    """Deviation of the noise that is added to each view."""
    turn: float = bounded(8.0, min=0, max=180, note="degrees", example=8)
    """Largest rotation of a view."""
    closest: float = bounded(0.5, min=0.1, max=1, example=0.5)
    """Smallest side of a view. The largest is 1.1, which also shows the reflected borders."""
    shift: float = bounded(0.08, min=0, max=0.5, example=0.08)
    """Largest shift of a view of the whole picture; a closer view moves over the picture."""
    seed: int = seed()

    def validate(self) -> None:
        """Raise ConfigError for an option outside its bounds."""
        check_bounds(self)


def imagine(
    network: ClassNetwork, number: int, config: ImagineConfig, each: Each | None = None
) -> Tensor:
    """Return a picture of class `number`, float32 [1, 3, size, size] in 0..1.

    The result is on the network's device. On one machine, the same arguments give the same picture.
    `each` is called after every step. Raises ConfigError for options outside their bounds or an
    unknown class.
    """
    config.validate()
    count = len(network.classes)
    require(0 <= number < count, f"class {number}: {network.name} has the classes 0..{count - 1}")
    device = next(network.parameters()).device
    # All random numbers are drawn on the CPU, so that a seed does not depend on the device.
    random = torch.Generator().manual_seed(config.seed)
    side = config.size
    start = 0.01 * torch.randn(3, side, side // 2 + 1, 2, generator=random)
    coefficients = start.to(device).requires_grad_()
    decode = partial(
        to_picture, spectrum_HW=spectrum(side, config.decay).to(device), grey=network.grey
    )
    adam = torch.optim.Adam([coefficients], betas=(0.9, 0.99))
    with torch.enable_grad(), channel_statistics(network.norms) as distance:
        for step in range(config.steps):
            for group in adam.param_groups:
                group["lr"] = config.rate * min(1.0, 1.9 - 1.8 * step / config.steps)
            picture_1CHW = decode(coefficients)
            logits_1K = network(view(picture_1CHW, network.view_sides, config, random))
            loss = 0.1 * logits_1K.logsumexp(1).mean() - logits_1K[:, number].mean()
            loss = loss + config.statistics * distance() + config.smooth * roughness(picture_1CHW)
            adam.zero_grad()
            loss.backward()
            adam.step()
            if each:
                each(step + 1, decode(coefficients.detach()))
    return decode(coefficients.detach())


def spectrum(side: int, decay: float) -> Tensor:
    """Return the amplitude of each Fourier coefficient, [side, side // 2 + 1]: 1 / frequencyᵈ.

    Frequencies count cycles in a pixel; the mean colour has the amplitude of the lowest frequency.
    At a frequency of 1 / 5 the amplitude does not depend on the decay.
    """
    down, right = torch.fft.fftfreq(side)[:, None], torch.fft.rfftfreq(side)[None]
    frequency = (down.square() + right.square()).sqrt().clamp(min=1 / side)
    return side / 4 * 5 * (5 * frequency) ** -decay


def to_picture(coefficients_CHW2: Tensor, spectrum_HW: Tensor, grey: bool) -> Tensor:
    """Return the picture, [1, 3, H, W] in 0..1, of Fourier coefficients [3, H, W // 2 + 1, 2]."""
    side = coefficients_CHW2.shape[1]
    scaled = torch.view_as_complex(coefficients_CHW2) * spectrum_HW
    planes_CHW = torch.fft.irfft2(scaled, s=(side, side))
    colours_33 = torch.tensor(COLOURS_33, device=planes_CHW.device)
    if grey:  # only the lightness
        colours_33 = colours_33[:, :1].mean() * torch.eye(3, device=planes_CHW.device)[:1]
        colours_33 = colours_33.expand(3, 3)
    return torch.einsum("ij,jhw->ihw", colours_33, planes_CHW).sigmoid()[None]


def view(
    picture_1CHW: Tensor, sides: Sequence[int], config: ImagineConfig, random: torch.Generator
) -> Tensor:
    """Return a random part of the picture, turned, resized to `sides`, and with noise.

    The borders of the picture are reflected.
    """
    turn, closer, right, down = torch.rand(4, generator=random).tolist()
    angle = math.radians(config.turn * (2 * turn - 1))
    share = LARGEST_VIEW + (config.closest - LARGEST_VIEW) * closer
    # Shifts of (1 − share) / 2 to each side cover the picture.
    most = config.shift + max(0.0, 1 - share) / 2
    cosine, sine = share * math.cos(angle), share * math.sin(angle)
    # The coordinates of `affine_grid` are −1..1, so a share of the side is doubled.
    theta = torch.tensor(
        [
            [cosine, -sine, 2 * most * (2 * right - 1)],
            [sine, cosine, 2 * most * (2 * down - 1)],
        ]
    )
    noise = config.noise * torch.randn(1, 3, *sides, generator=random)
    # A large picture is first reduced, because `grid_sample` reads only four pixels.
    near = [min(picture_1CHW.shape[-1], round(1.25 * side)) for side in sides]
    if near != list(picture_1CHW.shape[-2:]):
        picture_1CHW = functional.interpolate(
            picture_1CHW, near, mode="bilinear", antialias=True, align_corners=False
        )
    grid = functional.affine_grid(theta[None], [1, 3, *sides], align_corners=False)
    sampled = functional.grid_sample(
        picture_1CHW, grid.to(picture_1CHW), padding_mode="reflection", align_corners=False
    )
    return sampled + noise.to(picture_1CHW)


def roughness(picture_1CHW: Tensor) -> Tensor:
    """Return the mean squared difference of neighbouring pixels, down plus right."""
    return picture_1CHW.diff(dim=2).square().mean() + picture_1CHW.diff(dim=3).square().mean()


@contextmanager
def channel_statistics(norms: Sequence[nn.BatchNorm2d]) -> Iterator[Callable[[], Tensor | float]]:
    """Record the statistics of the inputs of batch normalisations, in evaluation mode.

    Yields a function that returns, for the latest forward pass, the distance from the stored
    statistics: the sum over the layers of the mean over the channels of
    ((μ − μ₀) / σ₀)² + (σ / σ₀ − 1)². Departure from DeepInversion: both differences are relative
    to σ₀, so that no channel and no layer dominates.
    """
    found: dict[nn.Module, Tensor] = {}

    def record(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        (h_BCHW,) = inputs
        assert isinstance(norm, nn.BatchNorm2d)
        assert norm.running_mean is not None and norm.running_var is not None
        mean_C = h_BCHW.mean((0, 2, 3))
        variance_C = (h_BCHW.square().mean((0, 2, 3)) - mean_C.square()).clamp(min=0) + norm.eps
        stored_C = norm.running_var + norm.eps
        shifted_C = (mean_C - norm.running_mean).square() / stored_C
        found[norm] = (shifted_C + ((variance_C / stored_C).sqrt() - 1).square()).mean()

    handles = [norm.register_forward_pre_hook(record) for norm in norms]
    try:
        yield lambda: sum(found.values(), start=0.0)
    finally:
        for handle in handles:
            handle.remove()
