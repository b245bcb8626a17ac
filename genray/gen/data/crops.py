"""Cuts square crops from pictures at random.

Shapes: H height, W width.
"""

import numpy as np

LEAST_CONTRAST = 16.0
"""Smallest standard deviation of a crop's brightness in 0..255; crops of empty sky have less."""
MOST_TRIES = 50
"""Crops that are drawn before one of low contrast is accepted."""


def random_crop(
    rng: np.random.RandomState, region_HW3: np.ndarray, size: int, flip: bool
) -> np.ndarray:
    """Return a random square of the region, scaled to `size`: uint8 [3, size, size].

    The square's side is random, from `size` to the region's shorter side, which must be `size` or
    more. Squares of low contrast are drawn again. If `flip`, the square is mirrored with
    probability 1/2.
    """
    from PIL import Image

    most = min(region_HW3.shape[:2])
    # The side is uniform on a logarithmic scale, so that all factors of reduction are equally
    # frequent.
    for _ in range(MOST_TRIES):
        side = round(float(np.exp(rng.uniform(np.log(size), np.log(most)))))
        top, left = (rng.randint(0, have - side + 1) for have in region_HW3.shape[:2])
        cut = region_HW3[top : top + side, left : left + side]
        if cut.mean(2).std() >= LEAST_CONTRAST:
            break
    square = Image.fromarray(cut)
    pixels = np.asarray(square.resize((size, size), Image.Resampling.LANCZOS))
    if flip and rng.randint(2):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))
