"""Patterns similar to prints, mosaics, stones and cloth.

Each function draws one kind: float [S, S, 3] in about 0..1.

Shapes: S side, P seeds, which are the centres of cells.
"""

import numpy as np

from genray.gen.images.patterns.fields import (
    Points,
    cells,
    clouds,
    edge,
    rotate,
    scatter_seeds,
    unit,
    warp,
)
from genray.gen.images.patterns.palettes import Colours


def waves(rng: np.random.Generator, points: Points, colours: Colours) -> np.ndarray:
    """Draw wavy bands with dark contours."""
    x, y = warp(rng, rotate(rng, warp(rng, points, 1.5, 0.09)), 4, 0.012)
    phase = y * np.float32(rng.uniform(5, 9)) + np.float32(0.5) * np.sin(
        np.float32(2 * np.pi * rng.uniform(1.5, 3)) * x
    )
    band = np.floor(phase)
    within = phase - band
    shade = (
        np.random.default_rng(rng.integers(1 << 30)).permutation(997)[(band.astype(int)) % 997]
        / 997
    )
    line = edge(np.minimum(within, 1 - within), 0.05)[..., None]
    body = colours((0.25 + 0.75 * shade + 0.25 * (within - 0.5)).clip(0, 1))
    return line * body + (1 - line) * colours(np.zeros(1))


def scales(rng: np.random.Generator, points: Points, colours: Colours) -> np.ndarray:
    """Draw overlapping fans of arcs, a wave pattern of Japanese cloth (seigaiha)."""
    count, rings = int(rng.integers(5, 9)), int(rng.integers(3, 5))
    x, y = warp(rng, points, 2, 0.008)
    x, y = x * count, y * count * 2
    value = np.full_like(x, -1.0)
    # Lower rows cover upper rows; each fan has radius ½ around its centre.
    for above in range(3, -1, -1):
        row = np.floor(y) + 2 - above
        shift = np.where(row % 2 == 0, 0.0, 0.5)
        centre = np.round(x - shift) + shift
        away = np.sqrt((x - centre) ** 2 + ((y - row) / 2) ** 2) * 2
        value = np.where(away <= 1, away, value)
    ring = (value.clip(0, 1) * rings) % 1
    tone = np.floor(value.clip(0, 0.999) * rings) / rings
    line = edge(np.minimum(ring, 1 - ring), 0.1)[..., None]
    drift = 0.12 * clouds(rng, points, 1.2)
    return line * colours((0.1 + 0.75 * tone + drift).clip(0, 1)) + (1 - line) * colours(
        np.full(1, 0.85)
    )


def mosaic(rng: np.random.Generator, points: Points, colours: Colours) -> np.ndarray:
    """Draw stained glass: cells with dark borders, whose colours vary slowly."""
    seeds_P2 = scatter_seeds(rng, int(rng.integers(9, 16)))
    number, gap = cells(warp(rng, points, 3, 0.006), seeds_P2)
    at = (seeds_P2[:, 0].astype(np.float32)[None], seeds_P2[:, 1].astype(np.float32)[None])
    tone_P = unit(clouds(rng, at, 1.5)[0] + 0.6 * rng.standard_normal(len(seeds_P2)))
    glass = (
        colours(0.15 + 0.85 * tone_P)[number]
        * (0.92 + 0.16 * unit(clouds(rng, points, 6)))[..., None]
    )
    lead = edge(gap, 0.006)[..., None]
    return lead * glass + (1 - lead) * 0.6 * colours(np.zeros(1))


def weave(rng: np.random.Generator, points: Points, colours: Colours) -> np.ndarray:
    """Draw a tartan: warp and weft of coloured threads in a twill."""
    x, y = rotate(rng, warp(rng, points, 2, 0.006))
    threads = rng.uniform(22, 34)
    u, v = x * np.float32(threads), y * np.float32(threads)
    tones = np.repeat(rng.uniform(0, 1, 6), rng.integers(1, 6, 6))
    over = (np.floor(u) + np.floor(v)) % 4 < 2
    tone = np.where(
        over,
        tones[np.floor(u).astype(int) % len(tones)],
        tones[np.floor(v).astype(int) % len(tones)],
    )
    across = np.where(over, u % 1, v % 1)
    return colours(tone) * (0.72 + 0.34 * np.sin(np.pi * across))[..., None]


def rings(rng: np.random.Generator, points: Points, colours: Colours) -> np.ndarray:
    """Draw agate: bands of several widths around a few centres."""
    x, y = warp(rng, points, 2.5, 0.035, 2)
    height = np.full_like(x, 1e9)
    for _ in range(int(rng.integers(3, 7))):
        cx, cy = rng.uniform(-0.1, 1.1, 2)
        height = np.minimum(
            height,
            np.hypot(x - np.float32(cx), (y - np.float32(cy)) * np.float32(rng.uniform(0.7, 1.4))),
        )
    bands = height * np.float32(rng.uniform(16, 28))
    tones = rng.uniform(0, 1, 64)
    low = np.floor(bands).astype(int) % 63
    blend = (bands % 1) ** 4
    return colours(tones[low] * (1 - blend) + tones[low + 1] * blend)


def petals(rng: np.random.Generator, points: Points, colours: Colours) -> np.ndarray:
    """Draw a wallpaper of flowers: rosettes on a jittered grid."""
    across = int(rng.integers(4, 7))
    seeds_P2 = scatter_seeds(rng, across, 0.25)
    number, _ = cells(points, seeds_P2)
    dx, dy = points[0] - seeds_P2[number, 0], points[1] - seeds_P2[number, 1]
    away, angle = np.hypot(dx, dy) * across, np.arctan2(dy, dx)
    count_P, turn_P = rng.integers(5, 9, len(seeds_P2)), rng.uniform(0, 6.28, len(seeds_P2))
    reach = 0.3 + 0.14 * np.cos(count_P[number] * angle + turn_P[number])
    inside = 1 - edge(away / reach, 0.95)
    tone_P = rng.uniform(0.5, 1, len(seeds_P2))
    flower = colours(tone_P[number] - 0.35 * (away / reach).clip(0, 1))
    leaf = np.sin(np.float32(60) * warp(rng, points, 3, 0.03)[1] + clouds(rng, points, 4))
    ground = colours(0.1 + 0.12 * leaf + 0.08 * clouds(rng, points, 2))
    heart = (1 - edge(away, 0.09))[..., None]
    picture = inside[..., None] * flower + (1 - inside[..., None]) * ground
    return heart * colours(np.ones(1)) + (1 - heart) * picture
