"""Two photographs that ship with scikit-learn, as contents without a download: whole, and as a
data set of crops.

Shapes: N rows, H height, W width.
"""

import re
from typing import TYPE_CHECKING

import numpy as np

from genray.errors import require

if TYPE_CHECKING:
    from genray.gen.data.types import Source

NAMES = ("china", "flower")
TEST_COLUMNS = {"china": slice(0, 208), "flower": slice(320, 640)}
"""Regions of the test crops: the left half of the temple, the right half of the flower."""
TRAIN_COLUMNS = {"china": slice(208, 640), "flower": slice(0, 320)}
TRAIN, TEST = 400, 24
"""Crops of each photograph."""
SIZE = 96
"""Side of the crops unless another is asked for."""
LEAST_CONTRAST = 16.0
"""Standard deviation of a crop's values, of 255: empty sky teaches nothing."""


def photographs() -> dict[str, np.ndarray]:
    """Name → photograph, uint8 RGB [427, 640, 3]: a temple in China, and a flower."""
    from sklearn.datasets import load_sample_image

    return {name: np.asarray(load_sample_image(f"{name}.jpg"), np.uint8) for name in NAMES}


def credits() -> str:
    """One line that names the photographers, from scikit-learn's description of the pictures:
    show it with them.
    """
    from sklearn.datasets import load_sample_images

    # By the page that each entry links to: the second entry's own words repeat the first
    # photographer's name.
    text = load_sample_images().DESCR
    owners = re.findall(r"Image: (\S+).*?flickr\.com/photos/([^/\s]+)/\d", text, re.DOTALL)
    named = ", ".join(f"{image} by {owner}" for image, owner in owners)
    return f"photographs: {named} (Flickr), CC BY 2.0, from scikit-learn"


def load_photos(size: int = 0) -> "Source":
    """Square crops of the photographs, uint8 [N, 3, size, size], labelled by photograph: 800 for
    training, 48 for testing.

    A crop's side is random, from `size` to the whole region, and scaled to `size` (0: 96); half
    of the training crops are mirrored; those of hardly any contrast are drawn again. Test crops
    come from columns that no training crop touches; validation crops, cut from the training
    rows, overlap with others. Always the same crops. Raises ConfigError beyond 192 pixels: the
    test regions hold no more.
    """
    from genray.gen.data.types import Source

    size = size or SIZE
    require(
        size <= 192,
        f"--size {size}: photos give at most 192 pixels; use that, or folder:PATH of larger "
        "pictures",
    )
    rng = np.random.RandomState(0)  # its stream is frozen for ever
    parts: dict[str, tuple[list[np.ndarray], list[int]]] = {"train": ([], []), "test": ([], [])}
    for label, (name, photograph) in enumerate(photographs().items()):
        for part, columns, count in (("train", TRAIN_COLUMNS, TRAIN), ("test", TEST_COLUMNS, TEST)):
            region = photograph[:, columns[name]]
            parts[part][0].extend(
                _crop(rng, region, size, flip=part == "train") for _ in range(count)
            )
            parts[part][1].extend([label] * count)
    mixed = {part: rng.permutation(len(rows)) for part, (rows, _) in parts.items()}
    images = {part: np.stack(rows)[mixed[part]] for part, (rows, _) in parts.items()}
    labels = {part: np.array(rows, np.int64)[mixed[part]] for part, (_, rows) in parts.items()}
    about = {
        "credits": credits(),
        "split": "test crops: the left of the temple, the right of the flower",
    }
    return Source(
        "photos", images["train"], images["test"], labels["train"], labels["test"], NAMES,
        f"CC BY 2.0; {credits()}", about,
    )  # fmt: skip


def _crop(rng: np.random.RandomState, region_HW3: np.ndarray, size: int, flip: bool) -> np.ndarray:
    """A random square of the region, scaled to `size`: uint8 [3, size, size]."""
    from PIL import Image

    most = min(region_HW3.shape[:2])
    # Evenly over the logarithm: small crops (fine detail enlarged least) are as frequent as large
    # ones.
    while True:
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
