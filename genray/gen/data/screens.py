"""Reads and writes files of game screens in palette colours, without loss.

A file (safetensors) contains `packed` uint8 [bytes], the zlib stream of the palette indices uint8
[N, H, W]; `palette` uint8 [P, 3]; `held_out` bool [N]; and as metadata the recipe, which describes
how the screens were made, with the shape [N, H, W]. The stream is about 40 times smaller than the
indices.

Shapes: N screens, H height, W width, P colours of the palette.
"""

import json
import math
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from genray.errors import ConfigError
from genray.gen.data.config import data_folder
from genray.gen.data.types import Source
from genray.gen.data.writing import write_tensors


@dataclass(frozen=True)
class Screens:
    """Screens of one game. The training screens that are for validation are the last ones."""

    indices_NHW: np.ndarray
    """Palette indices, uint8."""
    palette_P3: np.ndarray
    """RGB of each index, uint8."""
    held_out_N: np.ndarray
    """bool: screens of episodes that are held out for the test."""
    recipe: dict[str, Any]
    """How the screens were made; `recipe["game"]` names the game."""


def screens_file(folder: Path, game: str) -> Path:
    """Return the file in which `genray data screens` saves the screens of a game."""
    return folder / f"screens-{game}.safetensors"


def is_game_name(path: str) -> bool:
    """Return whether the PATH of `screens:PATH` names a game, and not a file."""
    return path.replace("_", "").isalnum()


def path_of_screens(path: str, folder: str) -> Path:
    """Return the file that `screens:PATH` names; `folder` is the directory of data sets."""
    if is_game_name(path):
        return screens_file(data_folder(folder), path)
    return Path(path).expanduser()


def write_screens(out: Path, screens: Screens) -> None:
    """Write the file completely or not at all. Raises ResourceError when it cannot be written."""
    packed = zlib.compress(screens.indices_NHW.tobytes(), 1)
    tensors = {
        "packed": np.frombuffer(packed, np.uint8),
        "palette": screens.palette_P3,
        "held_out": screens.held_out_N,
    }
    recipe = {**screens.recipe, "shape": list(screens.indices_NHW.shape)}
    write_tensors(out, tensors, recipe)


def read_screens(file: Path) -> Screens:
    """Read a file that `write_screens` wrote.

    Raises ConfigError when the file is missing, damaged or not written by genray.
    """
    from safetensors import SafetensorError, safe_open

    game = file.stem.removeprefix("screens-")
    again = f"genray data screens --game {game if is_game_name(game) else 'road_runner'}"
    try:
        with safe_open(file, framework="numpy") as opened:
            recipe = json.loads((opened.metadata() or {})["recipe"])
            packed, palette_P3, held_out_N = (
                opened.get_tensor(name) for name in ("packed", "palette", "held_out")
            )
        shape = tuple(int(side) for side in recipe.pop("shape"))
        if len(shape) != 3 or min(shape) < 1 or held_out_N.shape != shape[:1]:
            raise ValueError("an array of another shape")
        indices_NHW = _inflate(packed, math.prod(shape)).reshape(shape)
        if int(indices_NHW.max()) >= len(palette_P3):
            raise ValueError("an index without a colour")
    except FileNotFoundError as error:
        raise ConfigError(f"--data screens: {file} is missing; record it with: {again}") from error
    except (
        SafetensorError, LookupError, TypeError, AttributeError, ValueError, OSError, zlib.error
    ) as error:  # fmt: skip
        raise ConfigError(
            f"--data screens: {file} is damaged, or was not written by genray; record it again "
            f"with: {again}"
        ) from error
    return Screens(indices_NHW, palette_P3, held_out_N, recipe)


def _inflate(packed: np.ndarray, size: int) -> np.ndarray:
    """Decompress a zlib stream of `size` bytes. Raises ValueError for a stream of another length,
    of which at most `size` + 1 bytes are decompressed.
    """
    found = zlib.decompressobj().decompress(packed.tobytes(), size + 1)
    if len(found) != size:
        raise ValueError("a stream of another length")
    return np.frombuffer(found, np.uint8)


def split_order(held_out_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the training rows and the test rows.

    Training rows keep the order of the file. The validation split, their last part, is therefore
    not made of neighbours of training screens, which would be nearly equal.
    """
    return np.flatnonzero(~held_out_N), np.flatnonzero(held_out_N)


def load_screens(file: Path) -> Source:
    """Load the screens in `file` as RGB images, uint8 [N, 3, H, W].

    Test rows come from other episodes than training rows. Raises the errors of `read_screens`.
    """
    screens = read_screens(file)
    train, test = (
        np.ascontiguousarray(np.moveaxis(screens.palette_P3[screens.indices_NHW[rows]], 3, 1))
        for rows in split_order(screens.held_out_N)
    )
    return Source("screens", train, test, licence=LICENCE, about=screens.recipe)


LICENCE = "the games' owners'; frames played on this machine"
