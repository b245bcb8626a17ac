"""Palettes of the procedural patterns, and ramps of colours drawn from them.

Shapes: K colours of a palette.
"""

from collections.abc import Callable

import numpy as np

# The order of the colours matters: neighbouring colours of a palette are also neighbours in the
# picture, and many patterns draw contours in the first colour, which is the darkest.
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
"""Function that maps values, clipped to 0..1, to colours, float32 [..., 3] in about 0..1."""


def palette(rng: np.random.Generator) -> Colours:
    """Draw a palette at random, change its hues, contrast and distances slightly, and return it as
    a smooth ramp.
    """
    words = PALETTES[rng.choice(sorted(PALETTES))].split()
    colours_K3 = (
        np.array([[int(word[i : i + 2], 16) for i in (0, 2, 4)] for word in words], np.float32)
        / 255
    )
    colours_K3 = _rotate_hues(colours_K3, rng.normal(0, 0.25))
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


def _rotate_hues(colours_K3: np.ndarray, angle: float) -> np.ndarray:
    """Rotate hues by `angle` radians around the grey axis (Rodrigues' formula)."""
    cos, sin = np.cos(angle), np.sin(angle)
    axis = np.full(3, 3**-0.5)
    cross = np.cross(np.eye(3), axis)
    turn = cos * np.eye(3) + sin * cross + (1 - cos) * np.outer(axis, axis)
    return (colours_K3 @ turn).clip(0, 1).astype(np.float32)
