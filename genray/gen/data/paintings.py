"""Loads a directory of paintings, or of other pictures, as a data set of crops with credits.

Shapes: N rows.
"""

from pathlib import Path

import numpy as np

from genray.errors import require
from genray.gen.data.config import SUFFIXES
from genray.gen.data.crops import random_crop
from genray.gen.data.folders import find_files, report_skipped
from genray.gen.data.gcompris.credits import Credit, read_credits
from genray.gen.data.splits import labels_of, split_rows
from genray.gen.data.types import Source

TRAIN, TEST = 800, 48
"""Number of crops from all training pictures, and from all test pictures, together."""
SIZE = 96
"""Default side of the crops in pixels."""


def load_paintings(folder: Path, size: int = 0) -> Source:
    """Return square crops of the pictures below `folder`, uint8 [N, 3, size, size].

    A random fifth of the pictures is the test split, so that no picture has crops in both splits.
    There are about 800 training crops and 48 test crops, the same at every call with the same files
    and `size` (0: 96). If no picture lies directly in `folder`, a crop's label is the first
    directory of its picture's path below `folder`. The credits in a file CREDITS.md (see
    `genray data paintings`) become part of the data's description.

    Raises ConfigError for a missing directory, for fewer than 5 readable pictures, and for pictures
    that are smaller than `size`.
    """
    from genray.gen.images.pictures import DATA_FORMATS, PictureError, read_picture

    size, option = size or SIZE, f"--data paintings:{folder}"
    kinds = ("paintings", "photographs")
    top = folder.parent if folder.name in kinds else folder
    require(
        folder.is_dir(),
        f"{option}: no such folder; make it with: genray data paintings --out {top}",
    )
    # The directory that `genray data paintings` makes contains photographs, too.
    if all((folder / part).is_dir() for part in kinds):
        folder = folder / "paintings"
    files = find_files(folder, SUFFIXES)
    pictures: list[np.ndarray] = []
    names: list[str] = []
    broken: list[str] = []
    for path in files.paths:
        name = path.relative_to(folder).as_posix()
        try:
            rgb = read_picture(path, formats=DATA_FORMATS).rgb
        except PictureError as error:
            broken.append(f"{name} ({str(error).removeprefix(f'{path}: ')})")
            continue
        require(
            min(rgb.shape[:2]) >= size,
            f"{option}: {name} is {rgb.shape[1]}x{rgb.shape[0]}, smaller than the crops of {size}; "
            f"use --size {max(4, min(rgb.shape[:2]))} or less, or remove it",
        )
        pictures.append(rgb)
        names.append(name)
    report_skipped(f"paintings:{folder}", files, broken)
    require(
        len(pictures) >= 5,
        f"{option}: {len(pictures)} readable pictures are too few; give at least 5",
    )
    label, classes = labels_of(names)
    rng = np.random.RandomState(0)  # its stream is the same in all versions of NumPy
    parts = []
    for rows, total, flip in zip(split_rows(len(pictures)), (TRAIN, TEST), (True, False)):
        which = rng.permutation(np.repeat(rows, max(2, round(total / len(rows)))))
        crops = np.stack([random_crop(rng, pictures[row], size, flip) for row in which])
        parts.append((which, crops, tuple(f"{names[row]} {n}" for n, row in enumerate(which))))
    (train, train_crops, train_names), (test, test_crops, test_names) = parts
    credits = read_credits(folder)
    used = {name: credits.get(name, Credit()) for name in names}
    about = {
        "credits": {name: str(credit) for name, credit in used.items() if str(credit)},
        "pictures": len(names),
        "skipped": len(broken),
        **files.about(),
        "split": "a random fifth of the pictures is the test split",
    }
    licences = sorted({credit.licence for credit in used.values() if credit.licence})
    return Source(
        "paintings", train_crops, test_crops,
        None if label is None else label[train], None if label is None else label[test],
        classes, _licence(licences), about, train_names, test_names,
    )  # fmt: skip


def _licence(licences: list[str]) -> str:
    """Return the licences in one line; the credits of the files are in the data's description."""
    if not licences:
        return "its owner's"
    return f"{', '.join(licences)}; credits by file in config.json"
