"""Style pictures by name: one for a style_fast model, three sets of them for a style_any model.

Shapes: N styles, S side, H height, W width.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from genray.config import whole_number
from genray.errors import require
from genray.gen.images.patterns import pattern, pattern_name
from genray.gen.images.pictures import read_picture, scaled

VALIDATION_SEED, TEST_SEED = 100_000, 200_000
"""First seeds of the patterns that no training sees."""
VALIDATION, TEST = 12, 24
"""How many of them are looked at."""


@dataclass(frozen=True)
class StyleSet:
    """Style pictures of one size in three parts, uint8 [N, 3, S, S]; `test` ones are for the
    last word only.
    """

    train: Tensor
    validation: Tensor
    test: Tensor
    name: str
    """For the model's card."""


def check_style(name: str) -> None:
    """Raises ConfigError unless `name` is pattern:SEED or a path."""
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
    """(the picture uint8 [H, W, 3] with its longest side at `side` pixels, what to call it).

    `name`: a JPEG, PNG or WebP, or pattern:SEED. A smaller picture stays as it is. Raises
    ConfigError, one line.
    """
    check_style(name)
    kind, colon, seed = name.partition(":")
    if kind == "pattern" and colon:
        return pattern(int(seed), side), f"{pattern_name(int(seed))} (pattern {seed})"
    picture = read_picture(Path(name).expanduser(), name=f"--style {name}")
    return scaled(picture.rgb, side), Path(name).name


def check_styles(name: str, count: int) -> None:
    """Raises ConfigError unless `name` is patterns or folder:PATH."""
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
    """`patterns`: the seeds 0..count−1 for training, others to judge by. `folder:PATH`: every
    picture in it, cut square; a fifth at random is for the test, and a tenth of the others for
    choices on the way. Raises ConfigError.
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

    source = load_folder(Path(name.partition(":")[2]).expanduser(), side, False)
    train, test = torch.from_numpy(source.train), torch.from_numpy(source.test)
    cut = len(train) - max(1, len(train) // 10)
    return StyleSet(
        train[:cut], train[cut:], test, f"{len(train) + len(test)} pictures of {source.name}"
    )


def _drawn(seeds: range, side: int) -> Tensor:
    return (
        torch.from_numpy(np.stack([pattern(seed, side) for seed in seeds]))
        .permute(0, 3, 1, 2)
        .contiguous()
    )
