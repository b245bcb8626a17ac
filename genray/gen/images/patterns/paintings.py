"""Patterns similar to paintings and drawings.

Each function draws one kind: float [S, S, 3] in about 0..1.

Shapes: S side, P seeds, which are the centres of dots.
"""

import numpy as np

from genray.gen.images.patterns.fields import (
    Points,
    brush,
    cells,
    clouds,
    edge,
    rotate,
    scatter_seeds,
    shade,
    unit,
    warp,
)
from genray.gen.images.patterns.palettes import Colours


def strokes(rng: np.random.Generator, points: Points, colours: Colours) -> np.ndarray:
    """Draw thick brush strokes that follow swirls of light."""
    flow = clouds(rng, points, rng.uniform(1, 2))
    angle = (flow * rng.uniform(1.2, 2.4)).astype(np.float32)
    paint = brush(rng, points, angle, rng.uniform(0.07, 0.12), rng.uniform(14, 22))
    ground = clouds(rng, warp(rng, points, 2, 0.06), rng.uniform(1.2, 2.5), 2)
    return shade(colours(unit(0.8 * ground + 0.6 * paint)), paint, 0.35)


def swirls(rng: np.random.Generator, points: Points, colours: Colours) -> np.ndarray:
    """Draw a sky of vortices: brush strokes around a few centres."""
    x, y = points
    along, across = np.full_like(x, rng.uniform(0.2, 0.6)), clouds(rng, points, 1.5) * 0.3
    glow = np.zeros_like(x)
    for _ in range(rng.integers(4, 8)):
        (cx, cy), radius = rng.uniform(0, 1, 2), rng.uniform(0.08, 0.2)
        dx, dy = x - np.float32(cx), y - np.float32(cy)
        near = np.exp(-(dx**2 + dy**2) / np.float32(2 * radius**2)) * (5 * rng.choice([-1, 1]))
        along, across = (
            along - dy / np.float32(radius) * near,
            across + dx / np.float32(radius) * near,
        )
        glow += np.exp(-(dx**2 + dy**2) / np.float32(0.7 * radius**2))
    paint = brush(
        rng, points, np.arctan2(across, along), rng.uniform(0.08, 0.13), rng.uniform(16, 24)
    )
    return shade(colours(unit(2.2 * glow - 1.3 + 0.65 * paint)), paint, 0.35)


def dots(rng: np.random.Generator, points: Points, colours: Colours) -> np.ndarray:
    """Draw round dots of unmixed colour over a warm ground (Pointillism)."""
    ground = clouds(rng, points, rng.uniform(1, 2), 2)
    picture = colours(unit(ground * 0.7)) * 0.85
    for layer in range(3):
        seeds_P2 = scatter_seeds(rng, int(rng.integers(20, 30)))
        number, _ = cells(points, seeds_P2)
        away = np.hypot(points[0] - seeds_P2[number, 0], points[1] - seeds_P2[number, 1])
        tone = 0.8 * _values_at(ground, seeds_P2) + 0.7 * rng.standard_normal(len(seeds_P2))
        size_P = rng.uniform(0.009, 0.019, len(seeds_P2)) * (1 - 0.15 * layer)
        touch = 1 - edge(away.astype(np.float32), 1.0 * size_P[number])[..., None]
        picture = touch * colours(unit(tone))[number] + (1 - touch) * picture
    return picture


def _values_at(field_SS: np.ndarray, seeds_P2: np.ndarray) -> np.ndarray:
    """Return a field's values at seeds, whose coordinates may be slightly outside 0..1."""
    side = field_SS.shape[0]
    column, row = (seeds_P2.clip(0, 0.999) * side).astype(int).T
    return field_SS[row, column]


def marble(rng: np.random.Generator, points: Points, colours: Colours) -> np.ndarray:
    """Draw marbled paper: lines of ink that a comb has distorted."""
    swept = warp(rng, warp(rng, points, 1.5, 0.1), 4, 0.03)
    x, y = rotate(rng, swept)
    rake = np.float32(0.05) * np.abs(np.sin(np.float32(2 * np.pi * rng.uniform(3, 6)) * x))
    field = np.sin(np.float32(2 * np.pi * rng.uniform(3, 5)) * (y + rake) + clouds(rng, swept, 2))
    veins = edge(np.abs(clouds(rng, swept, 5)), 0.06)[..., None]
    return veins * colours(0.5 + 0.5 * field) + (1 - veins) * colours(np.full(1, 0.9))


def facets(rng: np.random.Generator, points: Points, colours: Colours) -> np.ndarray:
    """Draw planes cut by straight lines, each shaded towards one edge (Cubism)."""
    value, shade = np.zeros_like(points[0]), np.zeros_like(points[0])
    line = np.ones_like(points[0])
    for _ in range(int(rng.integers(9, 14))):
        angle, offset = rng.uniform(0, np.pi), rng.uniform(-0.35, 0.35)
        side = (
            (points[0] - 0.5) * np.float32(np.cos(angle))
            + (points[1] - 0.5) * np.float32(np.sin(angle))
            - offset
        )
        value = value + np.where(side > 0, 1, -1) * np.float32(rng.uniform(0.3, 1))
        shade = shade + (np.abs(side).clip(0, 0.12) / 0.12) * np.float32(rng.choice([-1, 1]))
        line = np.minimum(line, edge(np.abs(side), 0.003))
    # A triangle wave of the value lets neighbouring planes differ in tone, and makes all colours
    # about equally frequent.
    tone = np.abs((0.45 * value) % 2 - 1)
    body = colours(tone) * (1 + 0.09 * shade)[..., None]
    return line[..., None] * body + (1 - line)[..., None] * 0.5 * colours(np.zeros(1))


def hatching(rng: np.random.Generator, points: Points, colours: Colours) -> np.ndarray:
    """Draw an engraving: lines in three directions on tinted paper, denser in dark areas."""
    tone = unit(clouds(rng, points, 1.5, 2))
    ink, paper = 0.7 * colours(np.zeros(1)), colours(0.62 + 0.3 * tone)
    picture = paper
    lines = rng.uniform(22, 32)
    for number, threshold in enumerate((0.85, 0.55, 0.3)):
        across = rotate(rng, warp(rng, points, 2, 0.02))[1] * np.float32(
            lines * (1 + 0.15 * number)
        )
        width = (threshold - tone).clip(0, 0.5) * 0.55
        mark = 1 - edge(np.abs(across % 1 - 0.5).astype(np.float32), np.maximum(width, 1e-3))
        mark = (mark * (width > 0.01))[..., None]
        picture = mark * ink + (1 - mark) * picture
    return picture
