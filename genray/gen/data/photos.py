"""Loads photographs of scikit-learn and scikit-image, uncropped or as a data set of crops.

Shapes: N rows, H height, W width.
"""

import importlib.util
import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from genray.errors import require
from genray.gen.data.crops import random_crop

if TYPE_CHECKING:
    from genray.gen.data.types import Source

TEST_COLUMNS = {
    "china": slice(0, 208),
    "flower": slice(320, 640),
    "astronaut": slice(320, 512),
    "chelsea": slice(0, 192),
    "coffee": slice(400, 600),
    "rocket": slice(432, 640),
}
"""Columns of the test crops, e.g. the left third of the temple, the right half of the flower."""
TRAIN_COLUMNS = {
    "china": slice(208, 640),
    "flower": slice(0, 320),
    "astronaut": slice(0, 320),
    "chelsea": slice(192, 451),
    "coffee": slice(0, 400),
    "rocket": slice(0, 432),
}
TRAIN, TEST = 800, 48
"""Number of crops from all photographs together."""
SIZE = 96
"""Default side of the crops in pixels."""
MORE = {
    "astronaut.png": "Eileen Collins by NASA, public domain",
    "chelsea.png": "by Stefan van der Walt, CC0",
    "coffee.png": "by Rachel Michetti, CC0",
    "rocket.jpg": "by SpaceX, public domain",
}
"""Photographs that the package scikit-image contains, with their credits."""


def photographs() -> dict[str, np.ndarray]:
    """Return two photographs by name, uint8 RGB [427, 640, 3]: a temple in China, and a flower."""
    from sklearn.datasets import load_sample_image

    names = ("china", "flower")
    return {name: np.asarray(load_sample_image(f"{name}.jpg"), np.uint8) for name in names}


def more_photographs() -> dict[str, np.ndarray]:
    """Return four photographs by name, uint8 RGB [H, W, 3]; {} if scikit-image is not installed.

    They are an astronaut, a cat, a cup of coffee and a rocket. The package is not imported.
    """
    from genray.gen.images.pictures import read_picture

    found = importlib.util.find_spec("skimage")
    places = [Path(place, "data") for place in (found and found.submodule_search_locations) or []]
    return {
        Path(name).stem: read_picture(place / name).rgb
        for place in places
        for name in MORE
        if (place / name).is_file()
    }


def credits() -> str:
    """Return one line that credits the photographers; show this line with the photographs."""
    # The file is read without importing scikit-learn, which takes seconds on a busy machine.
    package = importlib.util.find_spec("sklearn")
    assert package is not None and package.submodule_search_locations
    folder = Path(package.submodule_search_locations[0], "datasets", "images")
    text = (folder / "README.txt").read_text(encoding="utf-8")
    # Names come from the linked pages, because the second entry's text repeats the first
    # photographer's name by mistake.
    owners = re.findall(r"Image: (\S+).*?flickr\.com/photos/([^/\s]+)/\d", text, re.DOTALL)
    named = ", ".join(f"{image} by {owner}" for image, owner in owners)
    return f"photographs: {named} (Flickr), CC BY 2.0, from scikit-learn"


def load_photos(size: int = 0) -> "Source":
    """Return square crops of the photographs, uint8 [N, 3, size, size], labelled by photograph.

    Two photographs come with scikit-learn, and four more with scikit-image if it is installed.
    There are 800 training crops and 48 test crops (798 and 48 of six photographs), the same at
    every call with the same `size` and the same packages. A crop's side is random, from `size` (0:
    96) to the shorter side of the region; the crop is then scaled to `size`. Each training crop is
    mirrored with probability 1/2, and crops of very low contrast are drawn again. Test crops come
    from columns without training crops. Validation crops are taken from the training crops, and
    overlap with the remaining training crops. Raises ConfigError for `size` above 192 pixels,
    because the narrowest test regions have 192 columns.
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
    more = more_photographs()
    found = {**photographs(), **more}
    for label, (name, photograph) in enumerate(found.items()):
        for part, columns, count in (("train", TRAIN_COLUMNS, TRAIN), ("test", TEST_COLUMNS, TEST)):
            region = photograph[:, columns[name]]
            count //= len(found)
            parts[part][0].extend(
                random_crop(rng, region, size, flip=part == "train") for _ in range(count)
            )
            parts[part][1].extend([label] * count)
    # Shuffled, so that the validation split contains crops of all photographs.
    mixed = {part: rng.permutation(len(rows)) for part, (rows, _) in parts.items()}
    images = {part: np.stack(rows)[mixed[part]] for part, (rows, _) in parts.items()}
    labels = {part: np.array(rows, np.int64)[mixed[part]] for part, (_, rows) in parts.items()}
    # A run that is resumed compares the names, because the packages may have changed meanwhile.
    names = {
        part: tuple(f"{tuple(found)[label]} {number}" for number, label in enumerate(labels[part]))
        for part in labels
    }
    more_credits = ", ".join(
        f"{Path(name).stem} {credit}" for name, credit in MORE.items() if Path(name).stem in more
    )
    # The licence names each photograph, because the photographs have different licences.
    licence = "; ".join([credits(), *([f"{more_credits}, from scikit-image"] if more else [])])
    about = {
        "credits": licence,
        "split": "test crops: the left of the temple, the right of the flower, and such a part of "
        "each photograph",
    }
    return Source(
        "photos", images["train"], images["test"], labels["train"], labels["test"], tuple(found),
        licence, about, names["train"], names["test"],
    )  # fmt: skip
