"""Draws procedural style pictures by seed, similar to prints, paintings, mosaics and cloth.

A pattern depends only on its seed: it is the same picture at every size, apart from resolution.
Patterns are drawn in coordinates of 0..1 at twice the size and then averaged, so that edges are
smooth.

Shapes: S side, P points of a pattern, K colours of a palette.
"""

from collections.abc import Callable

import numpy as np

from genray.errors import require

SMALLEST, LARGEST = 16, 1024
"""Smallest and largest side for `pattern`, in pixels."""

# Each palette is ordered from background to highlights: its neighbours are also neighbours in the
# picture.
PALETTES: dict[str, str] = {
    "great wave": "12233f 1f4e79 5b8db8 a9c8d8 efe6d0 d9b98a",
    "starry": "0b1336 18397d 2f6fb3 7fb2d9 f2d96b f29f2e",
    "sunset": "2b0f3a 7a1f5c d1495b f79256 ffd79c 4b3f72",
    "autumn": "2a1a0f 6e2c0e b5541c e39a2f f3d98b 5a6b2c",
    "forest": "0f1f17 1f4a34 4c7f4a 9dba6a e7e3b5 7a4a25",
    "fauve": "1c2a6b e2382c f7b52c 2f9e6e f4e9d8 9c2f7b",
    "indigo": "0d1026 252c6b 4e5fb0 9aa7dc f1efe8 c9744a",
    "clay": "3b1d14 8c3b24 c8714a e6b48c f5e6d3 33566b",
    "jade": "06272b 0e5a5a 2c9a8c 8fd3b6 f2f5d9 d9a441",
    "ink": "14120f 3a3630 77706a b5ada2 efe8da a3271f",
    "candy": "45194c b5308c f26fa0 ffc2c7 fff3d6 37b6c7",
    "neon": "0a0a1f 3d0e7a d9187c ff7a29 f9f871 16c4c4",
    "wheat": "3a2d15 7d5c1f c4942f ecca62 fbf0c4 4a7ba6",
    "pop": "111111 e4222d fdd60a 1166c4 fafafa ef7fb0",
    "moss": "1b1a12 3f4a1f 7c8a35 c2c16a efe9bf b0673c",
    "rose": "2e0d1b 7c1d3f c2546f eba3a0 fae3d5 5f7f6a",
}  # fmt: skip

Colours = Callable[[np.ndarray], np.ndarray]
"""Function that maps values, clipped to 0..1, to colours, float32 [..., 3] in 0..1."""
Points = tuple[np.ndarray, np.ndarray]
"""Coordinates x (to the right) and y (downwards), float32 [S, S] in 0..1."""


def pattern(seed: int, size: int = 128) -> np.ndarray:
    """Draw the pattern of `seed`, uint8 RGB [size, size, 3].

    Raises ConfigError for a size outside 16..1024 or a negative seed.
    """
    require(
        SMALLEST <= size <= LARGEST,
        f"a pattern of {size} pixels: its side must lie in {SMALLEST}..{LARGEST}",
    )
    require(seed >= 0, f"pattern {seed}: a seed must be ≥ 0")
    rng = np.random.default_rng([seed, 9])
    draw = PATTERNS[pattern_name(seed)]
    colours = palette(rng)
    at = (np.arange(2 * size, dtype=np.float32) + 0.5) / (2 * size)
    x, y = np.meshgrid(at, at)
    picture = draw(rng, (x, y), colours)
    # Small random variations of brightness, like those of paper and paint.
    picture = picture * (1 + 0.05 * clouds(rng, (x, y), 24)[..., None])
    small = picture.reshape(size, 2, size, 2, 3).mean((1, 3))
    return np.rint(small.clip(0, 1) * 255).astype(np.uint8)


def pattern_name(seed: int) -> str:
    """Return the seed's kind of pattern. Of n kinds, the seeds k·n … k·n + n − 1 have each once."""
    names = list(PATTERNS)
    turn, place = divmod(seed, len(names))
    return names[int(np.random.default_rng([turn, 8]).permutation(len(names))[place])]


def palette(rng: np.random.Generator) -> Colours:
    """Draw a palette with slightly changed hues and distances, as a smooth or stepped ramp."""
    words = PALETTES[rng.choice(sorted(PALETTES))].split()
    colours_K3 = (
        np.array([[int(word[i : i + 2], 16) for i in (0, 2, 4)] for word in words], np.float32)
        / 255
    )
    colours_K3 = _turned(colours_K3, rng.normal(0, 0.25))
    colours_K3 = (colours_K3 - 0.5) * rng.uniform(0.85, 1.15) + 0.5 + rng.normal(0, 0.03, 3)
    stops = np.sort(np.concatenate([[0, 1], rng.uniform(0.05, 0.95, len(colours_K3) - 2)])).astype(
        np.float32
    )
    stops = 0.5 * stops + 0.5 * np.linspace(0, 1, len(stops), dtype=np.float32)

    def colour(values: np.ndarray) -> np.ndarray:
        return np.stack([np.interp(values, stops, channel) for channel in colours_K3.T], -1).astype(
            np.float32
        )

    return colour


def _turned(colours_K3: np.ndarray, angle: float) -> np.ndarray:
    """Rotate hues by `angle` radians around the grey axis (Rodrigues' formula)."""
    cos, sin = np.cos(angle), np.sin(angle)
    axis = np.full(3, 3**-0.5)
    cross = np.cross(np.eye(3), axis)
    turn = cos * np.eye(3) + sin * cross + (1 - cos) * np.outer(axis, axis)
    return (colours_K3 @ turn).clip(0, 1).astype(np.float32)


# -- fields ----------------------------------------------------------------------------------------


def clouds(
    rng: np.random.Generator, points: Points, frequency: float, octaves: int = 1
) -> np.ndarray:
    """Return smooth random values of about unit variance.

    Each octave has 14 plane waves of random directions, at half the amplitude of the octave before.
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


def warped(
    rng: np.random.Generator, points: Points, frequency: float, by: float, octaves: int = 1
) -> Points:
    """Move each point by smooth random values of deviation `by`."""
    x, y = points
    return (
        x + np.float32(by) * clouds(rng, points, frequency, octaves),
        y + np.float32(by) * clouds(rng, points, frequency, octaves),
    )


def turned(rng: np.random.Generator, points: Points) -> Points:
    """Rotate the points by a random angle."""
    angle = rng.uniform(0, np.pi)
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return points[0] * cos + points[1] * sin, points[1] * cos - points[0] * sin


def unit(values: np.ndarray) -> np.ndarray:
    """Map values of about unit variance to 0..1, with a uniform distribution."""
    return (1 / (1 + np.exp(-1.7 * values))).astype(np.float32)


def edge(distance: np.ndarray, width: float | np.ndarray) -> np.ndarray:
    """Return 0 within `width` of a line at `distance`, 1 beyond, with a smooth transition."""
    t = ((distance - width) / (0.6 * width)).clip(0, 1)
    return t * t * (3 - 2 * t)


def cells(points: Points, seeds_P2: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return each point's nearest seed, int [S, S], and how much further the second nearest seed
    is, float32 [S, S].
    """
    from scipy.spatial import cKDTree

    away, number = cKDTree(seeds_P2).query(np.stack(points, -1), k=2)
    return number[..., 0], (away[..., 1] - away[..., 0]).astype(np.float32)


def scattered(rng: np.random.Generator, across: int, jitter: float = 0.45) -> np.ndarray:
    """Return seeds on a jittered grid of `across` per side, plus one ring outside: [P, 2]."""
    at = (np.arange(-1, across + 1) + 0.5) / across
    grid = np.stack(np.meshgrid(at, at), -1).reshape(-1, 2)
    return grid + rng.uniform(-jitter, jitter, grid.shape) / across


def brushed(
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


def lit(picture: np.ndarray, height: np.ndarray, strength: float) -> np.ndarray:
    """Shade the picture as thick paint of the given height, with light from the upper left."""
    slope = (np.gradient(height, axis=0) + np.gradient(height, axis=1)) * (height.shape[0] / 256)
    return picture * (1 + strength * np.tanh(slope))[..., None]


# -- the patterns ----------------------------------------------------------------------------------


def strokes(rng: np.random.Generator, points: Points, colours: Colours) -> np.ndarray:
    """Thick brush strokes that follow swirls of light."""
    flow = clouds(rng, points, rng.uniform(1, 2))
    angle = (flow * rng.uniform(1.2, 2.4)).astype(np.float32)
    paint = brushed(rng, points, angle, rng.uniform(0.07, 0.12), rng.uniform(14, 22))
    ground = clouds(rng, warped(rng, points, 2, 0.06), rng.uniform(1.2, 2.5), 2)
    return lit(colours(unit(0.8 * ground + 0.6 * paint)), paint, 0.35)


def swirls(rng: np.random.Generator, points: Points, colours: Colours) -> np.ndarray:
    """A sky of vortices: strokes run around a few centres."""
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
    paint = brushed(
        rng, points, np.arctan2(across, along), rng.uniform(0.08, 0.13), rng.uniform(16, 24)
    )
    return lit(colours(unit(2.2 * glow - 1.3 + 0.65 * paint)), paint, 0.35)


def waves(rng: np.random.Generator, points: Points, colours: Colours) -> np.ndarray:
    """Bands that roll over one another, with dark contours."""
    x, y = warped(rng, turned(rng, warped(rng, points, 1.5, 0.09)), 4, 0.012)
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
    """Seigaiha: overlapping fans of arcs, a wave pattern of Japanese cloth."""
    count, rings = int(rng.integers(5, 9)), int(rng.integers(3, 5))
    x, y = warped(rng, points, 2, 0.008)
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
    """Stained glass: cells with dark leading, colours in drifts."""
    seeds_P2 = scattered(rng, int(rng.integers(9, 16)))
    number, gap = cells(warped(rng, points, 3, 0.006), seeds_P2)
    at = (seeds_P2[:, 0].astype(np.float32)[None], seeds_P2[:, 1].astype(np.float32)[None])
    tone_P = unit(clouds(rng, at, 1.5)[0] + 0.6 * rng.standard_normal(len(seeds_P2)))
    glass = (
        colours(0.15 + 0.85 * tone_P)[number]
        * (0.92 + 0.16 * unit(clouds(rng, points, 6)))[..., None]
    )
    lead = edge(gap, 0.006)[..., None]
    return lead * glass + (1 - lead) * 0.6 * colours(np.zeros(1))


def dots(rng: np.random.Generator, points: Points, colours: Colours) -> np.ndarray:
    """Pointillism: round touches of unmixed colour over a warm ground."""
    ground = clouds(rng, points, rng.uniform(1, 2), 2)
    picture = colours(unit(ground * 0.7)) * 0.85
    for layer in range(3):
        seeds_P2 = scattered(rng, int(rng.integers(20, 30)))
        number, _ = cells(points, seeds_P2)
        away = np.hypot(points[0] - seeds_P2[number, 0], points[1] - seeds_P2[number, 1])
        tone = 0.8 * _at(ground, seeds_P2) + 0.7 * rng.standard_normal(len(seeds_P2))
        size_P = rng.uniform(0.009, 0.019, len(seeds_P2)) * (1 - 0.15 * layer)
        touch = 1 - edge(away.astype(np.float32), 1.0 * size_P[number])[..., None]
        picture = touch * colours(unit(tone))[number] + (1 - touch) * picture
    return picture


def _at(field_SS: np.ndarray, seeds_P2: np.ndarray) -> np.ndarray:
    """Return a field's values at seeds, which may be slightly outside 0..1."""
    side = field_SS.shape[0]
    column, row = (seeds_P2.clip(0, 0.999) * side).astype(int).T
    return field_SS[row, column]


def marble(rng: np.random.Generator, points: Points, colours: Colours) -> np.ndarray:
    """Marbled paper: inks drawn out by a comb."""
    swept = warped(rng, warped(rng, points, 1.5, 0.1), 4, 0.03)
    x, y = turned(rng, swept)
    rake = np.float32(0.05) * np.abs(np.sin(np.float32(2 * np.pi * rng.uniform(3, 6)) * x))
    field = np.sin(np.float32(2 * np.pi * rng.uniform(3, 5)) * (y + rake) + clouds(rng, swept, 2))
    veins = edge(np.abs(clouds(rng, swept, 5)), 0.06)[..., None]
    return veins * colours(0.5 + 0.5 * field) + (1 - veins) * colours(np.full(1, 0.9))


def facets(rng: np.random.Generator, points: Points, colours: Colours) -> np.ndarray:
    """Cubism: planes cut by straight lines, each shaded towards one edge."""
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
    tone = np.abs((0.45 * value) % 2 - 1)  # folded: dark beside light, all colours alike
    body = colours(tone) * (1 + 0.09 * shade)[..., None]
    return line[..., None] * body + (1 - line)[..., None] * 0.5 * colours(np.zeros(1))


def weave(rng: np.random.Generator, points: Points, colours: Colours) -> np.ndarray:
    """Tartan: warp and weft of coloured threads in a twill."""
    x, y = turned(rng, warped(rng, points, 2, 0.006))
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


def hatching(rng: np.random.Generator, points: Points, colours: Colours) -> np.ndarray:
    """An engraving: lines in three directions, as many as the tone wants, over a tinted paper."""
    tone = unit(clouds(rng, points, 1.5, 2))
    ink, paper = 0.7 * colours(np.zeros(1)), colours(0.62 + 0.3 * tone)
    picture = paper
    lines = rng.uniform(22, 32)
    for number, threshold in enumerate((0.85, 0.55, 0.3)):
        across = turned(rng, warped(rng, points, 2, 0.02))[1] * np.float32(
            lines * (1 + 0.15 * number)
        )
        width = (threshold - tone).clip(0, 0.5) * 0.55
        mark = 1 - edge(np.abs(across % 1 - 0.5).astype(np.float32), np.maximum(width, 1e-3))
        mark = (mark * (width > 0.01))[..., None]
        picture = mark * ink + (1 - mark) * picture
    return picture


def rings(rng: np.random.Generator, points: Points, colours: Colours) -> np.ndarray:
    """Agate: bands around a few centres, of uneven widths."""
    x, y = warped(rng, points, 2.5, 0.035, 2)
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
    """A wallpaper of flowers: rosettes on a jittered grid."""
    across = int(rng.integers(4, 7))
    seeds_P2 = scattered(rng, across, 0.25)
    number, _ = cells(points, seeds_P2)
    dx, dy = points[0] - seeds_P2[number, 0], points[1] - seeds_P2[number, 1]
    away, angle = np.hypot(dx, dy) * across, np.arctan2(dy, dx)
    count_P, turn_P = rng.integers(5, 9, len(seeds_P2)), rng.uniform(0, 6.28, len(seeds_P2))
    reach = 0.3 + 0.14 * np.cos(count_P[number] * angle + turn_P[number])
    inside = 1 - edge(away / reach, 0.95)
    tone_P = rng.uniform(0.5, 1, len(seeds_P2))
    flower = colours(tone_P[number] - 0.35 * (away / reach).clip(0, 1))
    leaf = np.sin(np.float32(60) * warped(rng, points, 3, 0.03)[1] + clouds(rng, points, 4))
    ground = colours(0.1 + 0.12 * leaf + 0.08 * clouds(rng, points, 2))
    heart = (1 - edge(away, 0.09))[..., None]
    picture = inside[..., None] * flower + (1 - inside[..., None]) * ground
    return heart * colours(np.ones(1)) + (1 - heart) * picture


PATTERNS: dict[str, Callable[[np.random.Generator, Points, Colours], np.ndarray]] = {
    function.__name__: function
    for function in (
        strokes,
        swirls,
        waves,
        scales,
        mosaic,
        dots,
        marble,
        facets,
        weave,
        hatching,
        rings,
        petals,
    )
}
"""Kinds of patterns, by name."""
