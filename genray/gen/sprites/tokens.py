"""The language of sprites: converts screens to tokens and back.

A screen is a background and a list of tokens. A game with one background has it on all screens. In
a game with several backgrounds, for example one for each level, backgrounds are shapes: they have
the size of the screen, they are the shapes of group 0, and the first token of each screen names its
background. A token has five numbers:

| field | meaning |
|---|---|
| group | the group of colours; groups with more pixels in the training screens come first |
| y, x | the top left corner of the shape, in pixels; of a run, of its first shape |
| shape | the shape's number in the vocabulary |
| run | the number of the run: how many equal shapes there are, and their distance |

Tokens are sorted by (group, y, x, shape, run). The decoder paints the background, and then the
shapes of all tokens, the groups in the order of `Language.layers`. The components of a screen do
not overlap, so for the tokens of a screen the order changes nothing.

Shapes: N screens, T tokens, H height, W width, P colours, V shapes, R runs, K backgrounds.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from genray.errors import ConfigError
from genray.gen.sprites.backgrounds import find_backgrounds, nearest_background
from genray.gen.sprites.components import TRANSPARENT, find_components
from genray.gen.sprites.groups import group_colours
from genray.gen.sprites.layers import painting_order
from genray.gen.sprites.runs import Placed, Run, find_runs, frequent_runs
from genray.gen.sprites.vocabulary import Shape, Vocabulary, build_vocabulary, shape_of

GAP = 2
"""Pixels of one sprite are at most this far apart."""
LARGEST = 64
"""Components that are wider or higher than this are cut on a grid of CELL pixels."""
CELL = 32
BACKGROUND = 0
"""The group of backgrounds, if there are several."""
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
    """uint8 palette indices: the only background, or the most frequent one."""
    group_P: np.ndarray
    """int64: the group of each colour. If there are several backgrounds, no colour has group 0."""
    vocabulary: Vocabulary
    runs: tuple[Run, ...]
    """Runs by number; run 0 is a single shape."""
    layers: tuple[int, ...]
    """The groups in the order in which they are painted; the last one covers the others."""
    _run_number: dict[Run, int] = field(init=False, repr=False, compare=False)
    backgrounds_KHW: np.ndarray = field(init=False, repr=False, compare=False)
    """uint8 palette indices. Of several backgrounds, the shape of number k is background k."""

    def __post_init__(self) -> None:
        numbers = {run: number for number, run in enumerate(self.runs)}
        object.__setattr__(self, "_run_number", numbers)
        backgrounds = [
            np.frombuffer(shape.pixels, np.uint8).reshape(self.screen_shape)
            for shape in self.vocabulary.shapes
            if self.has_backgrounds and shape.group == BACKGROUND
        ]
        known = np.stack(backgrounds) if backgrounds else self.background_HW[None]
        object.__setattr__(self, "backgrounds_KHW", known)

    @property
    def has_backgrounds(self) -> bool:
        """Whether there are several backgrounds, one of which the first token names."""
        return int(self.group_P.min()) > BACKGROUND

    @property
    def groups(self) -> int:
        """Number of groups."""
        return int(self.group_P.max()) + 1

    @property
    def screen_shape(self) -> tuple[int, int]:
        """(H, W)."""
        height, width = self.background_HW.shape
        return height, width

    @property
    def first_group(self) -> int:
        """The first group that is not the group of backgrounds."""
        return BACKGROUND + self.has_backgrounds

    def background_of(self, screen_HW: np.ndarray) -> int:
        """Return the number of the screen's background."""
        return nearest_background(screen_HW, self.backgrounds_KHW)

    def moving(self, screens_NHW: np.ndarray) -> np.ndarray:
        """Return which pixels differ from the screen's background, bool [N, H, W]."""
        numbers = [self.background_of(screen_HW) for screen_HW in screens_NHW]
        return np.not_equal(screens_NHW, self.backgrounds_KHW[numbers])

    def encode(self, screen_HW: np.ndarray) -> list[Token]:
        """Return the tokens of a screen, uint8 palette indices."""
        number = self.background_of(screen_HW)
        first = [Token(BACKGROUND, 0, 0, number, 0)] if self.has_backgrounds else []
        places = []
        for component in find_components(
            screen_HW, self.backgrounds_KHW[number], self.group_P, GAP, CELL, LARGEST
        ):
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
        return first + sorted(
            Token(shapes[each.shape].group, each.y, each.x, each.shape, self._run_number[each.run])
            for each in find_runs(inside, self._run_number)
        )

    def decode(self, tokens: Iterable[Sequence[int]]) -> np.ndarray:
        """Paint tokens; returns uint8 palette indices [H, W].

        Shapes of a run that would lie outside the screen are cut off. A background fills the
        screen, wherever its token is.
        """
        screen_HW = self.background_HW.copy()
        layer = {group: number for number, group in enumerate(self.layers)}
        for group, y, x, shape, run in sorted(tokens, key=lambda token: layer[token[0]]):
            if self.has_backgrounds and group == BACKGROUND:
                screen_HW = self.backgrounds_KHW[shape].copy()
                continue
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
    screens_NHW: np.ndarray,
    palette_P3: np.ndarray,
    *,
    rare: int,
    most_shapes: int,
    name: str,
    most_backgrounds: int = 1,
) -> Language:
    """Learn backgrounds, groups, shapes and runs from training screens, uint8 palette indices.

    Args:
        screens_NHW: the training screens.
        palette_P3: the colours.
        rare: shapes and runs that occur fewer times are put together from frequent ones, if that
            is possible.
        most_shapes: largest size of the vocabulary.
        name: the data set's name, for messages.
        most_backgrounds: largest number of backgrounds.

    Raises:
        ConfigError: the vocabulary has more than `most_shapes` shapes, or there is no sprite.
    """
    colours, step = len(palette_P3), max(1, len(screens_NHW) // GROUPING)
    backgrounds_KHW = find_backgrounds(screens_NHW, colours, most_backgrounds)
    several = len(backgrounds_KHW) > 1
    behind = [backgrounds_KHW[nearest_background(each, backgrounds_KHW)] for each in screens_NHW]
    group_P = group_colours(screens_NHW[::step], behind[::step], colours, GAP)
    # Group 0 is for the backgrounds, if there are several.
    group_P += several
    found = [
        find_components(screen_HW, behind_HW, group_P, GAP, CELL, LARGEST)
        for screen_HW, behind_HW in zip(screens_NHW, behind)
    ]
    vocabulary = build_vocabulary((each for screen in found for each in screen), rare)
    if not 1 <= len(vocabulary) <= most_shapes:
        raise ConfigError(
            f"--data {name}: {len(vocabulary):,} different shapes, more than --most-shapes "
            f"{most_shapes:,}; raise it, or record more --frames"
            if vocabulary.shapes
            else f"--data {name}: all screens are equal; record another game, or more --frames"
        )
    if several:
        height, width = backgrounds_KHW.shape[1:]
        full = [Shape(BACKGROUND, height, width, each.tobytes()) for each in backgrounds_KHW]
        vocabulary = Vocabulary([*full, *vocabulary.shapes])
    placed: list[Placed] = []
    for components in found:
        places = []
        for component in components:
            for piece in vocabulary.pieces(shape_of(component))[0]:
                places.append((piece.shape, component.y + piece.dy, component.x + piece.dx))
        placed += find_runs(places)
    runs = tuple(frequent_runs(placed, rare))
    groups = int(group_P.max()) + 1
    language = Language(
        palette_P3, backgrounds_KHW[0], group_P, vocabulary, runs, tuple(range(groups))
    )
    # Backgrounds are painted first; sprites say which of them cover which.
    tokens = [language.encode(each)[several:] for each in screens_NHW[::step]]
    order = painting_order(tokens, vocabulary.shapes, runs, groups)
    return replace(language, layers=tuple(sorted(order, key=lambda group: several and group > 0)))
