"""Photographs that packages ship, and changes that keep what a photograph shows."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

NAMES = (
    "astronaut.png", "brick.png", "chelsea.png", "coffee.png", "grass.png", "gravel.png",
    "hubble_deep_field.jpg", "ihc.png", "motorcycle_left.png", "retina.jpg", "rocket.jpg",
)  # fmt: skip


def photographs() -> dict[str, np.ndarray]:
    """Photographs of scikit-image and scikit-learn by name, uint8 RGB, at most 320 pixels long."""
    import sklearn

    skimage = pytest.importorskip("skimage", reason="scikit-image's photographs")
    folder = Path(skimage.__file__).with_name("data")
    paths = [path for name in NAMES if (path := folder / name).exists()]
    paths += sorted(Path(sklearn.__file__).parent.glob("datasets/images/*.jpg"))
    found = {}
    for path in paths:
        with Image.open(path) as image:
            image = image.convert("RGB")
            image.thumbnail((320, 320))
            found[path.stem] = np.asarray(image)
    return found


def cropped(rgb: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A random part of 70 to 85% of each side."""
    height, width = (round(side * rng.uniform(0.7, 0.85)) for side in rgb.shape[:2])
    top, left = rng.integers(rgb.shape[0] - height + 1), rng.integers(rgb.shape[1] - width + 1)
    return rgb[top : top + height, left : left + width]


def mirrored(rgb: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return rgb[:, ::-1].copy()


def recoloured(rgb: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Each channel times 0.6 to 1.4, and a gamma of 0.7 to 1.4."""
    values = np.clip(rgb / 255 * rng.uniform(0.6, 1.4, 3), 0, 1) ** rng.uniform(0.7, 1.4)
    return np.rint(values * 255).astype(np.uint8)


def changed(rgb: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """All three changes together."""
    return recoloured(mirrored(cropped(rgb, rng), rng), rng)


CHANGES = {"crop": cropped, "mirror": mirrored, "recolour": recoloured, "all three": changed}


def squeezed(rgb: np.ndarray, side: int = 32) -> np.ndarray:
    """The picture as side x side raw pixels, float32 [side·side·3]."""
    image = Image.fromarray(rgb).resize((side, side), Image.Resampling.BOX)
    return np.asarray(image, np.float32).ravel() / 255


def top1(codes: np.ndarray, query_codes: np.ndarray) -> float:
    """The share of queries whose nearest code is that of their own row."""
    away = np.linalg.norm(query_codes[:, None] - codes[None], axis=2)
    return float((away.argmin(1) == np.arange(len(codes))).mean())
