"""Reads and writes files of whole episodes: screens, actions, rewards and endings, in order.

A file (safetensors) contains, for N screens of K episodes one after another:

| tensor | type | meaning |
|---|---|---|
| packed | uint8 [bytes] | one zlib stream of palette indices for each episode |
| bytes | int64 [K] | length of each stream |
| length | int64 [K] | number of screens of each episode |
| held_out | bool [K] | episodes that are held out for the test |
| action | uint8 [N] | what the player did before the screen; 0 for the first screen |
| reward | float32 [N] | the game's own reward between the screen before and this screen |
| life_lost, terminated, truncated | bool [N] | what happened before the screen |
| palette | uint8 [P, 3] | RGB of each index |

A stream contains an episode's screens, uint8 [T, H, W], each screen but the first one as its
difference to the screen before, modulo 256. An episode whose last screen is neither terminated nor
truncated was still going on when recording ended. The metadata `recipe` (JSON) describes how the
file was made, and has the screens' [H, W], the names of the actions, and the bytes a step.

Shapes: K episodes, N screens, T screens of one episode, H height, W width, P colours.
"""

import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from genray.errors import ConfigError, require
from genray.gen.data.config import DataConfig, data_folder
from genray.gen.data.screens import LICENCE, is_game_name
from genray.gen.data.types import Data, Split
from genray.gen.data.writing import write_tensors

PER_SCREEN = ("action", "reward", "life_lost", "terminated", "truncated")
"""Arrays with one value for each screen."""


@dataclass(frozen=True)
class Episode:
    """One episode, with its screens compressed."""

    packed: bytes
    shape: tuple[int, int, int]
    """(T, H, W)."""
    action_T: np.ndarray
    """uint8: what the player did before each screen; 0 for the first screen."""
    reward_T: np.ndarray
    """float32: what the game gave between the screen before and each screen."""
    life_lost_T: np.ndarray
    terminated_T: np.ndarray
    truncated_T: np.ndarray
    """`life_lost_T`, `terminated_T`, `truncated_T`: bool, what happened before each screen."""

    def __len__(self) -> int:
        return self.shape[0]

    def screens(self) -> np.ndarray:
        """Return the palette indices, uint8 [T, H, W]. Raises ValueError for a damaged stream."""
        size = self.shape[0] * self.shape[1] * self.shape[2]
        found = zlib.decompressobj().decompress(self.packed, size + 1)
        if len(found) != size:
            raise ValueError("a stream of another length")
        return np.frombuffer(found, np.uint8).reshape(self.shape).cumsum(0, dtype=np.uint8)


def pack(screens_THW: np.ndarray) -> bytes:
    """Compress an episode's screens, uint8 [T, H, W]."""
    changes_THW = np.diff(screens_THW, axis=0, prepend=np.zeros_like(screens_THW[:1]))
    return zlib.compress(changes_THW.tobytes(), 1)


@dataclass(frozen=True)
class Episodes:
    """Episodes of one game."""

    training: tuple[Episode, ...]
    held_out: tuple[Episode, ...]
    palette_P3: np.ndarray
    """RGB of each palette index, uint8."""
    recipe: dict[str, Any]
    """How the episodes were made; `recipe["game"]` names the game, `recipe["actions"]` the
    actions."""


@dataclass(frozen=True)
class EpisodesSplit(Split):
    """Rows that are steps of episodes: int64 [N, 2], the episode's number, and the number of the
    screen that the step starts from.
    """

    episodes: tuple[Episode, ...] = ()
    palette_P3: np.ndarray = field(default_factory=lambda: np.zeros((0, 3), np.uint8))


def episodes_file(folder: Path, game: str) -> Path:
    """Return the file in which `genray data episodes` saves the episodes of a game."""
    return folder / f"episodes-{game}.safetensors"


def path_of_episodes(path: str, folder: str) -> Path:
    """Return the file that `episodes:PATH` names; `folder` is the directory of data sets."""
    if is_game_name(path):
        return episodes_file(data_folder(folder), path)
    return Path(path).expanduser()


def write_episodes(out: Path, episodes: Episodes) -> dict[str, Any]:
    """Write the file completely or not at all, and return its recipe.

    Raises ResourceError when the file cannot be written.
    """
    every = [*episodes.training, *episodes.held_out]
    tensors: dict[str, np.ndarray] = {
        "packed": np.frombuffer(b"".join(each.packed for each in every), np.uint8),
        "bytes": np.array([len(each.packed) for each in every], np.int64),
        "length": np.array([len(each) for each in every], np.int64),
        "held_out": np.arange(len(every)) >= len(episodes.training),
        "palette": episodes.palette_P3,
        **{
            name: np.concatenate([getattr(each, f"{name}_T") for each in every])
            for name in PER_SCREEN
        },
    }
    screens = sum(map(len, every))
    total = sum(tensor.nbytes for tensor in tensors.values())
    recipe = {
        **episodes.recipe,
        "screen": list(every[0].shape[1:]),
        "bytes_a_step": round(total / screens, 1),
    }
    write_tensors(out, tensors, recipe)
    return recipe


def read_episodes(file: Path) -> Episodes:
    """Read a file that `write_episodes` wrote.

    Raises ConfigError when the file is missing, damaged, without actions, or not of genray.
    """
    from safetensors import SafetensorError, safe_open

    game = file.stem.removeprefix("episodes-")
    again = f"genray data episodes --game {game if is_game_name(game) else 'road_runner'}"
    try:
        with safe_open(file, framework="numpy") as opened:
            names = set(opened.keys())
            require(
                "action" in names or "packed" not in names,
                f"--data {file}: has screens without actions; record episodes with: {again}",
            )
            recipe = json.loads((opened.metadata() or {})["recipe"])
            tensors = {name: opened.get_tensor(name) for name in sorted(names)}
        height, width = (int(side) for side in recipe["screen"])
        end_K, stop_K = (np.cumsum(tensors[name]) for name in ("length", "bytes"))
        if len({len(tensors[name]) for name in PER_SCREEN} | {int(end_K[-1])}) != 1:
            raise ValueError("an array of another length")
        found: tuple[list[Episode], list[Episode]] = ([], [])
        for end, count, stop, size, held_out in zip(
            end_K, tensors["length"], stop_K, tensors["bytes"], tensors["held_out"]
        ):
            if count < 1 or stop > len(tensors["packed"]):
                raise ValueError("an episode without screens")
            rows = (tensors[name][end - count : end] for name in PER_SCREEN)
            packed = tensors["packed"][stop - size : stop].tobytes()
            found[int(held_out)].append(Episode(packed, (int(count), height, width), *rows))
    except FileNotFoundError as error:
        raise ConfigError(f"--data episodes: {file} is missing; record it with: {again}") from error
    except (SafetensorError, LookupError, TypeError, AttributeError, ValueError, OSError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(
            f"--data episodes: {file} is damaged, or was not written by genray; record it again "
            f"with: {again}"
        ) from error
    return Episodes(tuple(found[0]), tuple(found[1]), tensors["palette"], recipe)


def load_episodes(config: DataConfig) -> Data:
    """Load the episodes that `config` names. Each row is one step (see EpisodesSplit).

    The last training episodes, at least one, with about `config.validation` of the steps, are the
    validation split. Raises the errors of `read_episodes`, and ConfigError for too few episodes.
    """
    path = config.data.partition(":")[2]
    episodes = read_episodes(path_of_episodes(path, config.data_folder))
    training = episodes.training
    require(
        len(training) >= 2 and len(episodes.held_out) >= 1,
        f"--data {config.data}: {len(training)} + {len(episodes.held_out)} training and held-out "
        "episodes are too few; record more --frames",
    )
    wanted, cut = config.validation * sum(map(len, training)), len(training)
    while wanted > 0 and cut > 1:
        cut -= 1
        wanted -= len(training[cut])
    parts = training[:cut], training[cut:], episodes.held_out
    train, validation, test = (
        EpisodesSplit(steps_of(each), episodes=each, palette_P3=episodes.palette_P3)
        for each in parts
    )
    about = {"data": config.data, **episodes.recipe}
    name = f"episodes of {episodes.recipe['game']}"
    return Data(name, train, validation, test, licence=LICENCE, about=about)


def steps_of(episodes: Sequence[Episode]) -> torch.Tensor:
    """Return the steps of the episodes, int64 [N, 2]: (episode, screen from which it starts)."""
    return torch.tensor(
        [(number, t) for number, each in enumerate(episodes) for t in range(len(each) - 1)],
        dtype=torch.int64,
    ).reshape(-1, 2)
