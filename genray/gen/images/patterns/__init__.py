"""Draws procedural style pictures by seed, similar to paintings, prints, mosaics and cloth.

    paintings   brush strokes, dots, facets, hatching …
    ornaments   waves, scales, mosaics, weaves …
    palettes    colours
    fields      noise, cells, strokes and light, from which patterns are composed

A pattern depends only on its seed; at another size it is the same picture at another resolution.
Patterns are drawn in coordinates of 0..1 at twice the size and then averaged, so that edges are
smooth.
"""

from collections.abc import Callable

import numpy as np

from genray.errors import require
from genray.gen.images.patterns.fields import Points, clouds
from genray.gen.images.patterns.ornaments import mosaic, petals, rings, scales, waves, weave
from genray.gen.images.patterns.paintings import (
    dots,
    facets,
    hatching,
    marble,
    strokes,
    swirls,
)
from genray.gen.images.patterns.palettes import Colours, palette

SMALLEST, LARGEST = 16, 1024
"""Smallest and largest side for `pattern`, in pixels."""

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
    # Add small random variations of brightness, as paper and paint have.
    picture = picture * (1 + 0.05 * clouds(rng, (x, y), 24)[..., None])
    small = picture.reshape(size, 2, size, 2, 3).mean((1, 3))
    return np.rint(small.clip(0, 1) * 255).astype(np.uint8)


def pattern_name(seed: int) -> str:
    """Return the name of the kind of pattern that `seed` gives.

    With n kinds, every kind occurs once among the seeds k·n, …, k·n + n − 1, for each k.
    """
    names = list(PATTERNS)
    turn, place = divmod(seed, len(names))
    return names[int(np.random.default_rng([turn, 8]).permutation(len(names))[place])]
