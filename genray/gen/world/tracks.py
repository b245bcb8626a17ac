"""Follows sprites from screen to screen: which sprite of one screen is which of the next one.

Sprites that did not change at all are matched first. The others of a group are matched by the
Hungarian method (Kuhn 1955) with the cost 1.5 |dy| + |dx| + 4 if the look changes. A sprite that
vanishes is remembered for a few screens as a ghost, because flickering and covered sprites come
back.

A *look* is a shape together with its run. A *track* is one sprite over time.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from genray.gen.sprites.tokens import Language, Token

REACH_Y, REACH_X = 16, 24
"""A sprite moves by at most this many pixels in one step."""
CHANGE = 4.0
"""Cost of another look, in pixels."""
ABSENT = 2.0
"""Cost for each screen on which a sprite was not seen."""
GHOST = 3
"""A vanished sprite is remembered for this many screens."""
MEMORY = 8
"""Number of last moves that a track keeps; a network may read fewer."""
OLDEST = 15
"""Larger ages are not counted."""
STEADY = 31
"""Longer times without a change are not counted."""
FORBIDDEN = 1e6


class Sprite(NamedTuple):
    """A look at a place: the top left corner, in pixels."""

    look: int
    y: int
    x: int


class Looks:
    """The looks of a game by number: every shape alone, and the runs that training screens show.

    Args:
        pairs: (shape, run) of each look.
        groups: the group of each look.
    """

    def __init__(self, pairs: Sequence[tuple[int, int]], groups: Sequence[int]):
        self.pairs, self.groups = tuple(pairs), tuple(groups)
        self._number = {pair: number for number, pair in enumerate(self.pairs)}

    @classmethod
    def of(cls, screens: Sequence[Sequence[Token]], language: Language) -> "Looks":
        """Find the looks of training screens."""
        shapes = language.vocabulary.shapes
        seen = {(token.shape, token.run) for tokens in screens for token in tokens}
        pairs = sorted(seen | {(shape, 0) for shape in range(len(shapes))})
        return cls(pairs, [shapes[shape].group for shape, _ in pairs])

    def __len__(self) -> int:
        return len(self.pairs)

    def sprites(self, tokens: Sequence[Token], language: Language) -> list[Sprite]:
        """Return the sprites of a screen. A run without a look becomes single shapes."""
        found = []
        for _, y, x, shape, run in tokens:
            look = self._number.get((shape, run))
            if look is not None:
                found.append(Sprite(look, y, x))
                continue
            length, dy, dx = language.runs[run]
            alone = self._number[shape, 0]
            found += [Sprite(alone, y + n * dy, x + n * dx) for n in range(length)]
        return found

    def tokens(self, sprites: Sequence[Sprite]) -> list[Token]:
        """Return the tokens of sprites."""
        return sorted(Token(self.groups[look], y, x, *self.pairs[look]) for look, y, x in sprites)


@dataclass(frozen=True)
class Track:
    """A sprite and its recent past."""

    look: int
    previous: int
    """The look on the screen before; the same as `look` for a new track."""
    y: int
    x: int
    """`y`, `x`: the last place where the sprite was seen."""
    age: int = 0
    """Steps since the track began, at most OLDEST."""
    unseen: int = 0
    """Screens since the sprite was last seen; 0: it is on the screen."""
    moves: tuple[tuple[int, int] | None, ...] = (None,) * MEMORY
    """(dy, dx) of the last steps, the newest first; None: no such step."""
    same_look: int = 0
    same_y: int = 0
    """`same_look`, `same_y`: steps since the look and since y changed, at most STEADY."""


class Outcome(NamedTuple):
    """What one step does to the tracks."""

    sprites: list[Sprite | None]
    """Where each track is now, in the order of the tracks; None: it is not on the screen."""
    births: list[Sprite]
    """New sprites."""


def begin(sprites: Sequence[Sprite], looks: Looks) -> list[Track]:
    """Begin a track for each sprite of a first screen."""
    return _ordered([Track(look, look, y, x) for look, y, x in sprites], looks)


def match(tracks: Sequence[Track], sprites: Sequence[Sprite], looks: Looks) -> Outcome:
    """Find each track on the next screen, which shows `sprites`."""
    found: list[Sprite | None] = [None] * len(tracks)
    births: list[Sprite] = []
    groups: dict[int, tuple[list[int], list[Sprite]]] = {}
    left = Counter(sprites)
    for number, track in enumerate(tracks):
        same = Sprite(track.look, track.y, track.x)
        if not track.unseen and left[same]:
            found[number] = same
            left[same] -= 1
        else:
            groups.setdefault(looks.groups[track.look], ([], []))[0].append(number)
    for sprite in left.elements():
        groups.setdefault(looks.groups[sprite.look], ([], []))[1].append(sprite)
    for numbers, seen in groups.values():
        taken = set()
        for row, column in _pairs([tracks[number] for number in numbers], seen):
            found[numbers[row]] = seen[column]
            taken.add(column)
        births += [sprite for column, sprite in enumerate(seen) if column not in taken]
    return Outcome(
        found, sorted(births, key=lambda each: (looks.groups[each.look], each[1:], each))
    )


def _pairs(tracks: Sequence[Track], sprites: Sequence[Sprite]) -> list[tuple[int, int]]:
    """Match tracks and sprites of one group; returns (track, sprite) numbers."""
    from scipy.optimize import linear_sum_assignment

    if not tracks or not sprites:
        return []
    cost = [[_cost(track, sprite) for sprite in sprites] for track in tracks]
    if len(tracks) == 1 and len(sprites) == 1:
        rows, columns = [0], [0]
    else:
        rows, columns = (each.tolist() for each in linear_sum_assignment(np.array(cost)))
    return [(row, column) for row, column in zip(rows, columns) if cost[row][column] < FORBIDDEN]


def _cost(track: Track, sprite: Sprite) -> float:
    dy, dx = abs(sprite.y - track.y), abs(sprite.x - track.x)
    if dy > REACH_Y or dx > REACH_X:
        return FORBIDDEN
    return 1.5 * dy + dx + CHANGE * (sprite.look != track.look) + ABSENT * track.unseen


def advance(tracks: Sequence[Track], outcome: Outcome, looks: Looks) -> list[Track]:
    """Return the tracks after a step."""
    new = [Track(look, look, y, x) for look, y, x in outcome.births]
    for track, sprite in zip(tracks, outcome.sprites):
        age = min(track.age + 1, OLDEST)
        if sprite is not None:
            move = (sprite.y - track.y, sprite.x - track.x)
            moves = (move, *track.moves[:-1])
            new.append(
                Track(
                    sprite.look, track.look, sprite.y, sprite.x, age, 0, moves,
                    _since(track.same_look, sprite.look != track.look),
                    _since(track.same_y, move[0] != 0),
                )
            )  # fmt: skip
        elif track.unseen < GHOST:
            new.append(replace(track, age=age, unseen=track.unseen + 1))
    return _ordered(new, looks)


def _since(steps: int, changed: bool) -> int:
    """Return the number of steps since a change."""
    return 0 if changed else min(steps + 1, STEADY)


def _ordered(tracks: Sequence[Track], looks: Looks) -> list[Track]:
    """Sort tracks by group, first those that are on the screen, then by place."""
    return sorted(
        tracks,
        key=lambda each: (looks.groups[each.look], each.unseen, each.y, each.x, each.look),
    )
