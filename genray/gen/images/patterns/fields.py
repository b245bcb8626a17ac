"""Computes the fields of which patterns are composed: noise, cells, brush strokes, light.

Shapes: S side, P seeds, which are points such as the centres of cells.
"""

import numpy as np

Points = tuple[np.ndarray, np.ndarray]
"""Coordinates x (to the right) and y (downwards), float32 [S, S] in 0..1."""


def clouds(
    rng: np.random.Generator, points: Points, frequency: float, octaves: int = 1
) -> np.ndarray:
    """Return smooth random values of about unit variance.

    Each octave has 14 plane waves of random directions, with twice the frequency and half the
    amplitude of the octave before.
    """
    x, y = points
    total, power = np.zeros_like(x), 0.0
    for octave in range(octaves):
        strength = 0.5**octave
        layer = np.zeros_like(x)
        for _ in range(14):
            angle, phase = rng.uniform(0, 2 * np.pi, 2)
            length = 2 * np.pi * frequency * 2**octave * rng.uniform(0.5, 1.3)
            layer += np.cos(
                np.float32(length * np.cos(angle)) * x
                + np.float32(length * np.sin(angle)) * y
                + phase
            )
        total += layer * np.float32(strength * (2 / 14) ** 0.5)
        power += strength**2
    return (total / power**0.5).astype(np.float32)


def warp(
    rng: np.random.Generator, points: Points, frequency: float, by: float, octaves: int = 1
) -> Points:
    """Move each point by smooth random values of deviation `by`."""
    x, y = points
    return (
        x + np.float32(by) * clouds(rng, points, frequency, octaves),
        y + np.float32(by) * clouds(rng, points, frequency, octaves),
    )


def rotate(rng: np.random.Generator, points: Points) -> Points:
    """Rotate the points by a random angle."""
    angle = rng.uniform(0, np.pi)
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return points[0] * cos + points[1] * sin, points[1] * cos - points[0] * sin


def unit(values: np.ndarray) -> np.ndarray:
    """Map normally distributed values of about unit variance to about uniform values in 0..1."""
    return (1 / (1 + np.exp(-1.7 * values))).astype(np.float32)


def edge(distance: np.ndarray, width: float | np.ndarray) -> np.ndarray:
    """Return 0 for points within `width` of a line, 1 for points farther away, with a smooth
    transition.

    `distance`: the distance of each point from the line.
    """
    t = ((distance - width) / (0.6 * width)).clip(0, 1)
    return t * t * (3 - 2 * t)


def cells(points: Points, seeds_P2: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return each point's nearest seed, int [S, S], and the gap to the second nearest seed.

    The gap is the difference of the two distances, float32 [S, S], and 0 at the border of a cell.
    """
    from scipy.spatial import cKDTree

    away, number = cKDTree(seeds_P2).query(np.stack(points, -1), k=2)
    return number[..., 0], (away[..., 1] - away[..., 0]).astype(np.float32)


def scatter_seeds(rng: np.random.Generator, across: int, jitter: float = 0.45) -> np.ndarray:
    """Return seeds [P, 2] on a jittered grid, `across` along each side, plus one ring outside."""
    at = (np.arange(-1, across + 1) + 0.5) / across
    grid = np.stack(np.meshgrid(at, at), -1).reshape(-1, 2)
    return grid + rng.uniform(-jitter, jitter, grid.shape) / across


def brush(
    rng: np.random.Generator, points: Points, angle: np.ndarray, length: float, grain: float
) -> np.ndarray:
    """Return brush strokes along the directions `angle`, of about unit variance.

    The strokes are a line integral convolution of smooth noise with `grain` waves per side.
    [Cabral 1993, https://doi.org/10.1145/166117.166151]
    """
    from scipy.ndimage import map_coordinates

    side = points[0].shape[0]
    noise = clouds(rng, points, grain, 2)
    cos, sin = np.cos(angle), np.sin(angle)
    total, steps = noise.copy(), 8
    stride = np.float32(length * side / (2 * steps))
    for way in (1, -1):
        row, column = np.mgrid[:side, :side].astype(np.float32)
        for _ in range(steps):
            at = (
                np.clip(row, 0, side - 1).astype(np.int32),
                np.clip(column, 0, side - 1).astype(np.int32),
            )
            row, column = row + way * stride * sin[at], column + way * stride * cos[at]
            total += map_coordinates(noise, (row, column), order=1, mode="reflect")
    return (total / (total.std() + 1e-6)).astype(np.float32)


def shade(picture: np.ndarray, height: np.ndarray, strength: float) -> np.ndarray:
    """Shade the picture as thick paint of the given height, with light from the upper left."""
    slope = (np.gradient(height, axis=0) + np.gradient(height, axis=1)) * (height.shape[0] / 256)
    return picture * (1 + strength * np.tanh(slope))[..., None]
