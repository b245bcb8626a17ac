"""The language of sprites: converts screens to tokens and back.

A screen is a background and a list of tokens. A token has five numbers:

| field | meaning |
|---|---|
| group | the group of colours; groups with more pixels in the training screens come first |
| y, x | the top left corner of the shape, in pixels; of a run, of its first shape |
| shape | the shape's number in the vocabulary |
| run | the number of the run: how many equal shapes there are, and their distance |

Tokens are sorted by (group, y, x, shape, run). The decoder paints the background, and then the
shapes of all tokens, the groups in the order of `Language.layers`. The components of a screen do
not overlap, so for the tokens of a screen the order changes nothing.

Shapes: N screens, T tokens, H height, W width, P colours, V shapes, R runs.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from genray.errors import ConfigError
from genray.gen.sprites.components import TRANSPARENT, Component, find_components
from genray.gen.sprites.groups import group_colours
from genray.gen.sprites.layers import painting_order
from genray.gen.sprites.palette import mode_background
from genray.gen.sprites.runs import Placed, Run, find_runs, frequent_runs
from genray.gen.sprites.vocabulary import Vocabulary, build_vocabulary, shape_of

GAP = 2
"""Pixels of one sprite are at most this far apart."""
LARGEST = 64
"""Components that are wider or higher than this are cut on a grid of CELL pixels."""
CELL = 32
GROUPING = 400
"""Number of training screens from which the groups of colours are computed."""


class Token(NamedTuple):
    """One shape, or one run of equal shapes; see the module's docstring."""

    group: int
    y: int
    x: int
    shape: int
    run: int


@dataclass(frozen=True)
class Language:
    """Everything that tokens refer to: palette, background, groups, shapes and runs."""

    palette_P3: np.ndarray
    """uint8 RGB of each palette index."""
    background_HW: np.ndarray
    """uint8 palette indices."""
    group_P: np.ndarray
    """int64: the group of each colour."""
    vocabulary: Vocabulary
    runs: tuple[Run, ...]
    """Runs by number; run 0 is a single shape."""
    layers: tuple[int, ...]
    """The groups in the order in which they are painted; the last one covers the others."""
    _run_number: dict[Run, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        numbers = {run: number for number, run in enumerate(self.runs)}
        object.__setattr__(self, "_run_number", numbers)

    @property
    def groups(self) -> int:
        """Number of groups."""
        return int(self.group_P.max()) + 1

    @property
    def screen_shape(self) -> tuple[int, int]:
        """(H, W)."""
        height, width = self.background_HW.shape
        return height, width

    def components(self, screen_HW: np.ndarray) -> list[Component]:
        """Return the components of a screen of palette indices."""
        return find_components(screen_HW, self.background_HW, self.group_P, GAP, CELL, LARGEST)

    def encode(self, screen_HW: np.ndarray) -> list[Token]:
        """Return the tokens of a screen, uint8 palette indices."""
        places = []
        for component in self.components(screen_HW):
            pieces, _ = self.vocabulary.pieces(shape_of(component))
            for piece in pieces:
                places.append((piece.shape, component.y + piece.dy, component.x + piece.dx))
        height, width = self.screen_shape
        shapes = self.vocabulary.shapes
        # An approximated shape may reach over the border: it is moved inside.
        inside = [
            (
                shape,
                min(max(y, 0), height - shapes[shape].height),
                min(max(x, 0), width - shapes[shape].width),
            )
            for shape, y, x in places
        ]
        return sorted(
            Token(shapes[each.shape].group, each.y, each.x, each.shape, self._run_number[each.run])
            for each in find_runs(inside, self._run_number)
        )

    def decode(self, tokens: Iterable[Sequence[int]]) -> np.ndarray:
        """Paint tokens; returns uint8 palette indices [H, W].

        Shapes of a run that would lie outside the screen are cut off.
        """
        screen_HW = self.background_HW.copy()
        layer = {group: number for number, group in enumerate(self.layers)}
        for _, y, x, shape, run in sorted(tokens, key=lambda token: layer[token[0]]):
            _, height, width, _ = self.vocabulary.shapes[shape]
            pixels_HW = self._pixels(shape)
            length, dy, dx = self.runs[run]
            for number in range(length):
                at_y, at_x = y + number * dy, x + number * dx
                place_HW = screen_HW[at_y : at_y + height, at_x : at_x + width]
                part_HW = pixels_HW[: place_HW.shape[0], : place_HW.shape[1]]
                np.copyto(place_HW, part_HW, where=part_HW != TRANSPARENT)
        return screen_HW

    def _pixels(self, shape: int) -> np.ndarray:
        _, height, width, pixels = self.vocabulary.shapes[shape]
        return np.frombuffer(pixels, np.uint8).reshape(height, width)


def learn_language(
    screens_NHW: np.ndarray, palette_P3: np.ndarray, *, rare: int, most_shapes: int, name: str
) -> Language:
    """Learn background, groups, shapes and runs from training screens, uint8 palette indices.

    Args:
        screens_NHW: the training screens.
        palette_P3: the colours.
        rare: shapes and runs that occur fewer times are put together from frequent ones, if that
            is possible.
        most_shapes: largest size of the vocabulary.
        name: the data set's name, for messages.

    Raises:
        ConfigError: the vocabulary has more than `most_shapes` shapes, or there is no sprite.
    """
    colours, step = len(palette_P3), max(1, len(screens_NHW) // GROUPING)
    background_HW = mode_background(screens_NHW, colours)
    group_P = group_colours(screens_NHW[::step], background_HW, colours, GAP)
    found = [
        find_components(each, background_HW, group_P, GAP, CELL, LARGEST) for each in screens_NHW
    ]
    vocabulary = build_vocabulary((each for screen in found for each in screen), rare)
    if not 1 <= len(vocabulary) <= most_shapes:
        raise ConfigError(
            f"--data {name}: {len(vocabulary):,} different shapes, more than --most-shapes "
            f"{most_shapes:,}; raise it, or record more --frames"
            if vocabulary.shapes
            else f"--data {name}: all screens are equal; record another game, or more --frames"
        )
    placed: list[Placed] = []
    for screen in found:
        places = []
        for component in screen:
            for piece in vocabulary.pieces(shape_of(component))[0]:
                places.append((piece.shape, component.y + piece.dy, component.x + piece.dx))
        placed += find_runs(places)
    runs = tuple(frequent_runs(placed, rare))
    groups = int(group_P.max()) + 1
    language = Language(palette_P3, background_HW, group_P, vocabulary, runs, tuple(range(groups)))
    tokens = [language.encode(each) for each in screens_NHW[::step]]
    return replace(language, layers=painting_order(tokens, vocabulary.shapes, runs, groups))
