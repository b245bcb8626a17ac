"""Deep Dream: changes a picture so that a trained network's activations grow.

Gradient ascent maximises the activations of one layer, at several sizes of the picture from small
to full (octaves). The result shows the patterns that the layer detects: eyes and fur for ImageNet's
VGG; brush strokes, ripples, towers and rows of studs, but no animals, for a small classifier of
game frames. A single channel gives one kind of pattern and the best pictures; a whole layer gives
harsh pictures. A *guide* is a second picture, whose patterns the dream should show instead.

The factor by which the activation grows depends on its value for the original picture. In
photographs, the mean of a channel grows by a factor of 3 to 9. The mean square of a whole layer
grows less, because pixels are limited to 0..1. In the network of the tests, the factor is 1.3 to 7,
and about twice as large with `--rate 0.025 --steps 24`. Plain gradient ascent reaches factors of 3
to 30, but gives noise. Networks without training are refused with a ConfigError.
[Mordvintsev 2015, https://research.google/blog/inceptionism-going-deeper-into-neural-networks/]

Shapes: B batch, C channels, H height, W width, P positions of a layer, M vectors of a guide.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from genray.bounds import bounded, check_bounds, seed
from genray.errors import require
from genray.gen.images.features import Features

TILE = 512
"""Largest side of a tile in pixels. Larger pictures are processed in tiles, to limit memory."""
LEAST_OCTAVE = 48
"""Shortest side of an octave in pixels; smaller pictures contain too little detail."""
GUIDE_VECTORS = 1024
"""From twice this number on, a guide's vectors are thinned to 1 to 1.5 times this number."""
TONES = 0.05
"""Share by which each frame of a zoom returns to the tones of the first frame."""
Progress = Callable[[int, int], None]
"""Function of the number of finished steps and the total number of steps."""


@dataclass(frozen=True, kw_only=True)
class DreamConfig:
    """Configuration of a dream: the layer to maximise, sizes, steps and restrictions."""

    layer: str = ""
    """Layer whose activations grow. A shallow layer gives strokes, a deep one parts of objects.
    Empty: block10 of lite0 (with a guide: block6), a layer near the end of other networks.
    """
    channels: tuple[int, ...] = bounded((), min=0)
    """Channels of the layer, counted from 0; empty: all channels, weighted by their activation."""
    octaves: int = bounded(5, min=1, max=20, example=5)
    """Number of sizes, from small to full; sizes with a side below 48 pixels are left out."""
    octave_scale: float = bounded(1.4, min=1.05, max=4, example=1.4)
    """Factor from one size to the next."""
    steps: int | None = bounded(None, min=1, max=10_000, example=12)
    """Steps of gradient ascent at each size. None: 24 for lite0, 12 for other features."""
    rate: float | None = bounded(None, above=0, max=1, example=0.012)
    """Mean change of a value in a step, as a share of the range from black to white. None: 0.008
    for lite0, 0.012 for other features.
    """
    jitter: int = bounded(24, min=0, max=512, example=24)
    """Largest random shift before each step, in pixels; hides the grid caused by pooling."""
    bands: int = bounded(4, min=1, max=8, example=4)
    """Number of frequency bands, one octave each, in which the gradient has equal strength (half
    in the finest band).
    """
    keep_tones: bool = True
    """Leave out the gradient's frequencies below the bands, so that large areas keep their
    brightness. Without this option, the activation grows more, but some areas become very bright,
    because small networks respond to brightness.
    """
    own_colours: float = bounded(0.5, min=0, max=1, example=0.5)
    """Share by which new colours follow the colours of the picture, 0..1; 0: no restriction."""
    seed: int = seed()

    def validate(self) -> None:
        """Raise ConfigError for an option outside its bounds."""
        check_bounds(self)

    def completed(self, features: Features) -> "DreamConfig":
        """Return the configuration with the features' default steps and rate instead of None."""
        return replace(
            self,
            steps=features.dream_steps if self.steps is None else self.steps,
            rate=features.dream_rate if self.rate is None else self.rate,
        )


# -- the objective ---------------------------------------------------------------------------------


class Objective:
    """Computes the number that a dream maximises: how strongly the chosen layer responds.

    All channels: the mean square of the activations, whose gradient is proportional to each
    activation. Some channels: the mean of these channels. With a guide [1, 3, H, W] in 0..1: the
    mean dot product of each position's vector with the most similar vector of the guide. Departure
    from the first guided dreams: vectors are compared by their cosine. By the dot product, the
    guide's longest vectors would be the most similar ones at nearly every position.
    """

    def __init__(
        self,
        features: Features,
        layer: str = "",
        channels: Sequence[int] = (),
        guide_1CHW: Tensor | None = None,
    ):
        """Prepare the objective, and compute the guide's vectors.

        Args:
            features: a trained feature extractor.
            layer: a name of `features.layers`; empty: a layer near the end.
            channels: numbers of channels, from 0; empty: all channels.
            guide_1CHW: a picture whose patterns the dream should show; None: no guide.

        Raises ConfigError for untrained features, or for an unknown layer or channel.
        """
        require(
            features.trained,
            f"--features {features.name}: a dream needs a trained network; use lite0, or --model "
            "RUN of a classifier (genray train classifier)",
        )
        features = features.for_dreams()
        self.features, self.layer, self.channels = (
            features,
            choose_layer(features, layer, guided=guide_1CHW is not None),
            tuple(channels),
        )
        with torch.no_grad():
            probe = guide_1CHW if guide_1CHW is not None else torch.full((1, 3, 128, 128), 0.5)
            found = features(probe.to(device_of(features)), [self.layer])[self.layer]
        # The index is stored on the device, because a list would be copied there at every step.
        self._channel_C = (
            torch.tensor(self.channels, device=found.device) if self.channels else None
        )
        width = found.shape[1]
        require(
            all(channel < width for channel in self.channels),
            f"--channels {' '.join(map(str, self.channels))}: {self.layer} has channels "
            f"0..{width - 1}",
        )
        self.guide_CM: Tensor | None = None
        if guide_1CHW is not None:
            self.guide_CM = self._chosen(found)[0].flatten(1)
            step = max(1, self.guide_CM.shape[1] // GUIDE_VECTORS)
            self.guide_CM = self.guide_CM[:, ::step]

    def _chosen(self, activations_BCHW: Tensor) -> Tensor:
        return (
            activations_BCHW
            if self._channel_C is None
            else activations_BCHW.index_select(1, self._channel_C)
        )

    def __call__(self, x_BCHW: Tensor) -> Tensor:
        """Return the objective of x, float32 [B, 3, H, W] in 0..1; a differentiable scalar."""
        y_BCHW = self._chosen(self.features(x_BCHW, [self.layer])[self.layer])
        if self.guide_CM is not None:
            y_PC = y_BCHW.movedim(1, 3).flatten(0, 2)
            return (y_PC * self._most_similar(y_PC.detach())).sum(1).mean()
        return y_BCHW.mean() if self.channels else y_BCHW.square().mean()

    def _most_similar(self, y_PC: Tensor) -> Tensor:
        """Return the guide's vector with the largest cosine for each position, [P, C]."""
        assert self.guide_CM is not None
        unit_CM = functional.normalize(self.guide_CM, dim=0)
        best_P = torch.cat([(part_PC @ unit_CM).argmax(1) for part_PC in y_PC.split(8192)])
        return self.guide_CM.T[best_P]


def choose_layer(features: Features, layer: str, guided: bool = False) -> str:
    """Return `layer`, or the default of dreams, with or without a guide, if `layer` is empty.

    The default is that of the features, or a layer near the end. Raises ConfigError for an unknown
    layer.
    """
    if not layer:
        near_end = features.layers[round(0.9 * (len(features.layers) - 1))]
        return (guided and features.guide_layer) or features.dream_layer or near_end
    features.check_layers([layer], "--layer")
    return layer


def device_of(features: Features) -> torch.device:
    """Return the device of the extractor's weights; the CPU if there are none."""
    return next((tensor.device for tensor in features.parameters()), torch.device("cpu"))


# -- the ascent ------------------------------------------------------------------------------------


def dream(
    content_1CHW: Tensor,
    objective: Objective,
    config: DreamConfig,
    progress: Progress | None = None,
) -> Tensor:
    """Return the dream of a picture: float32 [1, 3, H, W] in 0..1, of the same size and on the
    same device.

    Each octave starts from the picture at the octave's size plus the changes of the smaller
    octaves, so that scaling loses no detail. On one machine, the same arguments give the same
    result.
    """
    config.validate()
    config = config.completed(objective.features)
    assert config.steps is not None
    random = torch.Generator().manual_seed(config.seed)
    sizes = octave_sizes(content_1CHW.shape[-2], content_1CHW.shape[-1], config)
    colours_33 = colour_mixing(content_1CHW, config.own_colours)
    added: Tensor | None = None
    # Each octave begins with the picture at the octave's size plus the changes so far.
    for number, size in enumerate(sizes):
        base = _to_size(content_1CHW, size)
        x = base if added is None else (base + _to_size(added, size)).clamp(0, 1)
        for step in range(config.steps):
            x = ascend(x, objective, config, random, colours_33)
            if progress:
                progress(number * config.steps + step + 1, len(sizes) * config.steps)
        added = x - base
    return x


def octave_sizes(height: int, width: int, config: DreamConfig) -> list[tuple[int, int]]:
    """Return (height, width) of each octave, smallest first; the last is the picture's size.

    Smaller sizes with a side below LEAST_OCTAVE pixels are left out.
    """
    factors = [config.octave_scale**-power for power in range(config.octaves)]
    sizes = [(round(height * factor), round(width * factor)) for factor in factors]
    return [size for size in reversed(sizes) if min(size) >= LEAST_OCTAVE] or sizes[:1]


def ascend(
    x_1CHW: Tensor,
    objective: Objective,
    config: DreamConfig,
    random: torch.Generator,
    colours_33: Tensor,
) -> Tensor:
    """Return the picture after one step of gradient ascent; values stay in 0..1."""
    # The picture is shifted at random, so that the grid of the poolings does not show.
    most = config.jitter
    down, right = torch.randint(-most, most + 1, (2,), generator=random).tolist()
    gradient = torch.zeros_like(x_1CHW)
    shifted = x_1CHW.roll((down, right), (2, 3))
    for rows, columns in tiles(*x_1CHW.shape[-2:]):
        part = shifted[:, :, rows, columns].detach().requires_grad_()
        with torch.enable_grad():
            value = objective(part)
        (gradient[:, :, rows, columns],) = torch.autograd.grad(value, part)
    # Shift the gradient back, balance its frequencies, and mix it into the picture's colours.
    gradient = gradient.roll((-down, -right), (2, 3))
    gradient = torch.einsum(
        "ij,bjhw->bihw", colours_33, balance_bands(gradient, config.bands, config.keep_tones)
    )
    assert config.rate is not None, "see DreamConfig.completed"
    return (x_1CHW + config.rate * gradient / (gradient.abs().mean() + 1e-12)).clamp(0, 1).detach()


def tiles(height: int, width: int) -> Iterator[tuple[slice, slice]]:
    """Yield (rows, columns) of nearly equal tiles with sides of at most TILE pixels.

    The borders of tiles do not show, because the picture is shifted at random before each step.
    """

    def cuts(length: int) -> list[slice]:
        count = math.ceil(length / TILE)
        edges = [round(length * number / count) for number in range(count + 1)]
        return [slice(a, b) for a, b in itertools.pairwise(edges)]

    for rows in cuts(height):
        for columns in cuts(width):
            yield rows, columns


def balance_bands(gradient_1CHW: Tensor, bands: int, keep_tones: bool) -> Tensor:
    """Return the gradient with equal strength in each of its `bands` highest octaves of frequency,
    but half of this strength in the highest.

    A plain gradient mostly adds fine noise and very bright areas. The bands form a Laplacian
    pyramid, in which each band is the difference between the gradient at one size and its copy at
    half the size. `keep_tones` leaves out the frequencies below the bands. Departure: the source
    keeps these frequencies. [Mordvintsev 2016, TensorFlow's DeepDream notebook, "Laplacian pyramid
    gradient normalization"]
    """
    parts: list[Tensor] = []
    rest = gradient_1CHW
    while len(parts) < bands and min(rest.shape[-2:]) >= 4:
        half = functional.interpolate(
            rest, scale_factor=0.5, mode="bilinear", antialias=True, align_corners=False
        )
        parts.append(rest - _to_size(half, rest.shape[-2:]))
        rest = half
    total = torch.zeros_like(rest) if keep_tones else _unit(rest)
    for number, part in reversed(list(enumerate(parts))):
        total = _to_size(total, part.shape[-2:]) + _unit(part) * (0.5 if number == 0 else 1.0)
    return total


def colour_mixing(content_1CHW: Tensor, share: float) -> Tensor:
    """Return a matrix [3, 3] by which the colours of a gradient are multiplied.

    The matrix is share · C + (1 − share) · I, where C is the picture's colour covariance, scaled
    to a mean variance of 1. With this matrix, gradient ascent changes colours mostly along the
    picture's palette.
    [Olah 2017, https://distill.pub/2017/feature-visualization, "preconditioning", with ImageNet's
    covariance]
    """
    identity_33 = torch.eye(3, device=content_1CHW.device)
    # 1e-4 = 0.01² (a deviation of 1% of the range) is added to each variance, so that a picture of
    # one colour can change as well.
    covariance_33 = torch.cov(content_1CHW[0].flatten(1)) + 1e-4 * identity_33
    return (1 - share) * identity_33 + share * covariance_33 / covariance_33.diagonal().mean()


def _unit(x: Tensor) -> Tensor:
    return x / (x.square().mean().sqrt() + 1e-12)


def _to_size(x_1CHW: Tensor, size: Sequence[int]) -> Tensor:
    if tuple(x_1CHW.shape[-2:]) == tuple(size):
        return x_1CHW
    return functional.interpolate(
        x_1CHW, tuple(size), mode="bilinear", antialias=True, align_corners=False
    )


@torch.no_grad()
def activation(x_1CHW: Tensor, objective: Objective) -> float:
    """Return the objective of a whole picture: the mean over tiles, weighted by their pixels."""
    height, width = x_1CHW.shape[-2:]
    parts = list(tiles(height, width))
    values = torch.stack(
        [objective(x_1CHW[:, :, rows, columns]) for rows, columns in parts]
    ).tolist()
    pixels = [(rows.stop - rows.start) * (columns.stop - columns.start) for rows, columns in parts]
    return sum(value * count for value, count in zip(values, pixels)) / (height * width)


# -- the zoom --------------------------------------------------------------------------------------


def zoom(
    dreamt_1CHW: Tensor,
    objective: Objective,
    config: DreamConfig,
    frames: int,
    factor: float = 1.03,
    turn: float = 0.0,
    steps: int = 3,
    progress: Progress | None = None,
) -> Iterator[Tensor]:
    """Yield `frames` pictures that zoom into the dream.

    The first picture is the dream. Each further picture is the centre of the picture before,
    enlarged by `factor`, rotated by `turn` degrees, and changed by `steps` steps of ascent at full
    size. Before the ascent, it returns a little to the tones of the first picture. Otherwise a zoom
    into a bright region would become white, because ascent keeps the tones of large areas.
    """
    config = config.completed(objective.features)
    random = torch.Generator().manual_seed(config.seed + 1)
    x, colours_33 = dreamt_1CHW, colour_mixing(dreamt_1CHW, config.own_colours)
    for number in range(frames):
        if number:
            x = _toned(_enlarged(x, factor, math.radians(turn)), dreamt_1CHW)
            for _ in range(steps):
                x = ascend(x, objective, config, random, colours_33)
        if progress:
            progress(number + 1, frames)
        yield x


def _toned(x_1CHW: Tensor, first_1CHW: Tensor) -> Tensor:
    """Move x by TONES towards the channels' means of `first`, and to its contrast, if lower."""
    (std, mean), (first_std, first_mean) = (
        torch.std_mean(y, (2, 3), keepdim=True) for y in (x_1CHW, first_1CHW)
    )
    target_1CHW = (x_1CHW - mean) * (first_std / (std + 1e-6)).clamp(max=1) + first_mean
    return x_1CHW.lerp(target_1CHW, TONES).clamp(0, 1)


def _enlarged(x_1CHW: Tensor, factor: float, angle: float) -> Tensor:
    height, width = x_1CHW.shape[-2:]
    cosine, sine = math.cos(angle) / factor, math.sin(angle) / factor
    # grid_sample's coordinates are −1..1 on both axes: a rotation corrects for the sides' ratio.
    theta = torch.tensor(
        [[cosine, -sine * height / width, 0.0], [sine * width / height, cosine, 0.0]]
    )
    theta = theta.to(x_1CHW.device, x_1CHW.dtype, non_blocking=True)
    grid = functional.affine_grid(theta[None], list(x_1CHW.shape), align_corners=False)
    sampled = functional.grid_sample(
        x_1CHW, grid, mode="bicubic", padding_mode="reflection", align_corners=False
    )
    return sampled.clamp(0, 1)
