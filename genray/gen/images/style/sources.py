"""Loads style pictures by name: one picture for style_fast, or three splits for style_any.

Shapes: N styles, S side, H height, W width.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from genray.config import whole_number
from genray.errors import require
from genray.gen.data.gcompris.credits import Credit, read_credits
from genray.gen.images.patterns import pattern, pattern_name
from genray.gen.images.pictures import read_picture, scaled

VALIDATION_SEED, TEST_SEED = 100_000, 200_000
"""First seeds of the validation and the test patterns, which are not used for training."""
VALIDATION, TEST = 12, 24
"""Number of validation and test patterns."""


@dataclass(frozen=True)
class StyleSet:
    """Style pictures in three splits, uint8 [N, 3, S, S]; `test` is for the final test only."""

    train: Tensor
    validation: Tensor
    test: Tensor
    name: str
    """Name of the styles, for the model's card."""
    credits: tuple[str, ...] = ()
    """Title, author and licence of each picture that a CREDITS.md names."""


def check_style(name: str) -> None:
    """Raise ConfigError unless `name` is pattern:SEED or a path."""
    kind, colon, seed = name.partition(":")
    require(
        bool(name),
        "--style: name a picture, e.g. --style wave.jpg, or a pattern, e.g. --style pattern:11",
    )
    if kind == "pattern" and colon:
        require(
            whole_number(seed) is not None, f"--style {name}: write pattern:SEED, e.g. pattern:11"
        )


def open_style(name: str, side: int) -> tuple[np.ndarray, str]:
    """Return a style picture, uint8 [H, W, 3], and its name.

    `name`: a JPEG, PNG or WebP file, or pattern:SEED. `side`: the longest side in pixels, to which
    larger files are scaled down and a pattern is drawn. The name of a file ends with its credit if
    a CREDITS.md names it. Raises ConfigError for an invalid name or file.
    """
    check_style(name)
    kind, colon, seed = name.partition(":")
    if kind == "pattern" and colon:
        return pattern(int(seed), side), f"{pattern_name(int(seed))} (pattern {seed})"
    picture = read_picture(Path(name).expanduser(), name=f"--style {name}")
    path = Path(name).expanduser()
    credit = read_credits(path.parent).get(path.name, Credit()).short
    return scaled(picture.rgb, side), f"{path.name} ({credit})" if credit else path.name


def check_styles(name: str, count: int) -> None:
    """Raise ConfigError unless `name` is patterns or folder:PATH, and `count` is in its bounds."""
    kind, _, path = name.partition(":")
    require(
        name == "patterns" or (kind == "folder" and bool(path)),
        f"--styles {name}: no such styles; use patterns, or folder:PATH of pictures",
    )
    require(
        4 <= count <= VALIDATION_SEED,
        f"--num-styles {count}: must lie in 4..{VALIDATION_SEED:,}, e.g. 120",
    )


def open_styles(name: str, count: int, side: int) -> StyleSet:
    """Load the style pictures of a style_any model.

    `patterns`: the seeds 0..count−1 for training, and other seeds for validation and test.
    `folder:PATH`: all pictures of a directory, scaled and cropped to squares; a random fifth is the
    test split, and a tenth of the remaining pictures is the validation split. Raises ConfigError
    for an invalid name or `count`, and the errors of `load_folder`.
    """
    check_styles(name, count)
    if name == "patterns":
        parts = (
            _drawn(range(count), side),
            _drawn(range(VALIDATION_SEED, VALIDATION_SEED + VALIDATION), side),
            _drawn(range(TEST_SEED, TEST_SEED + TEST), side),
        )
        return StyleSet(*parts, f"{count} patterns")
    from genray.gen.data.sources import load_folder

    folder = Path(name.partition(":")[2]).expanduser()
    source = load_folder(folder, side, False)
    credits = read_credits(folder)
    used = (credits.get(file, Credit()).short for file in source.train_names + source.test_names)
    train, test = torch.from_numpy(source.train), torch.from_numpy(source.test)
    cut = len(train) - max(1, len(train) // 10)
    about = f"{len(train) + len(test)} pictures of {source.name}"
    return StyleSet(train[:cut], train[cut:], test, about, tuple(sorted(filter(None, used))))


def _drawn(seeds: range, side: int) -> Tensor:
    """Draw the patterns of `seeds`, uint8 [N, 3, side, side]."""
    return (
        torch.from_numpy(np.stack([pattern(seed, side) for seed in seeds]))
        .permute(0, 3, 1, 2)
        .contiguous()
    )
