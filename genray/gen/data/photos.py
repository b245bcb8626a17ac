"""Loads two photographs that ship with scikit-learn, uncropped or as a data set of crops.

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
"""Columns of the test crops: the left third of the temple, the right half of the flower."""
TRAIN_COLUMNS = {"china": slice(208, 640), "flower": slice(0, 320)}
TRAIN, TEST = 400, 24
"""Number of crops from each photograph."""
SIZE = 96
"""Default side of the crops in pixels."""
LEAST_CONTRAST = 16.0
"""Smallest standard deviation of a crop's brightness in 0..255; crops of empty sky have less."""


def photographs() -> dict[str, np.ndarray]:
    """Return two photographs by name, uint8 RGB [427, 640, 3]: a temple in China, and a flower."""
    from sklearn.datasets import load_sample_image

    return {name: np.asarray(load_sample_image(f"{name}.jpg"), np.uint8) for name in NAMES}


def credits() -> str:
    """Return one line that credits the photographers; show this line with the photographs."""
    from sklearn.datasets import load_sample_images

    # Names come from the linked pages, because the second entry's text repeats the first
    # photographer's name by mistake.
    text = load_sample_images().DESCR
    owners = re.findall(r"Image: (\S+).*?flickr\.com/photos/([^/\s]+)/\d", text, re.DOTALL)
    named = ", ".join(f"{image} by {owner}" for image, owner in owners)
    return f"photographs: {named} (Flickr), CC BY 2.0, from scikit-learn"


def load_photos(size: int = 0) -> "Source":
    """Return square crops of the photographs, uint8 [N, 3, size, size], labelled by photograph.

    There are 800 training crops and 48 test crops, the same at every call with the same `size`. A
    crop's side is random, from `size` (0: 96) to the shorter side of the region; the crop is then
    scaled to `size`. Each training crop is mirrored with probability 1/2, and crops of very low
    contrast are drawn again. Test crops come from columns without training crops. Validation crops
    are taken from the training crops, and overlap with the remaining training crops. Raises
    ConfigError for `size` above 192 pixels, because the narrowest test region has 208 columns.
    """
    from genray.gen.data.types import Source

    size = size or SIZE
    require(
        size <= 192,
        f"--size {size}: crops of photos have at most 192 pixels; use --size 192, or folder:PATH "
        "of larger pictures",
    )
    rng = np.random.RandomState(0)  # its stream is the same in all versions of NumPy
    parts: dict[str, tuple[list[np.ndarray], list[int]]] = {"train": ([], []), "test": ([], [])}
    for label, (name, photograph) in enumerate(photographs().items()):
        for part, columns, count in (("train", TRAIN_COLUMNS, TRAIN), ("test", TEST_COLUMNS, TEST)):
            region = photograph[:, columns[name]]
            parts[part][0].extend(
                _crop(rng, region, size, flip=part == "train") for _ in range(count)
            )
            parts[part][1].extend([label] * count)
    # Shuffled, so that the validation split contains crops of both photographs.
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
    """Return a random square of the region, scaled to `size`: uint8 [3, size, size]."""
    from PIL import Image

    most = min(region_HW3.shape[:2])
    # The side is uniform on a logarithmic scale, so that all factors of reduction are equally
    # frequent.
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
