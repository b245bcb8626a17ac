"""Completes rows of equal shapes behind the sprites that cover them, e.g. the dashes of a road.

A character in front of a row cuts it into shorter rows and rests of shapes, which change with every
pixel that the character moves. The complete row is one token, and one sprite that a world model can
follow.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

from genray.gen.sprites.tokens import Language, Token


def encode_whole(language: Language, screen_HW: np.ndarray) -> list[Token]:
    """Return the tokens of a screen, uint8 palette indices, with completed rows."""
    return completed(language, language.encode(screen_HW))


def completed(language: Language, tokens: Sequence[Token]) -> list[Token]:
    """Replace the parts of each broken row by the whole row, where the screen stays exactly the
    same. Of several rows that fit, the one whose run is the most frequent is taken.
    """
    found = list(tokens)
    painted_HW: np.ndarray | None = None
    for parts in _broken(language, tokens):
        if painted_HW is None:
            painted_HW = language.decode(tokens)
        rest = [token for token in found if token not in parts]
        for whole in _candidates(language, parts):
            tried = sorted([*rest, whole])
            if np.array_equal(language.decode(tried), painted_HW):
                found = tried
                break
    return found


def _broken(language: Language, tokens: Sequence[Token]) -> Iterator[list[Token]]:
    """Yield the parts of each row: a run of the row, and everything of its group beside it."""
    shapes = language.vocabulary.shapes
    groups: dict[int, list[Token]] = defaultdict(list)
    for token in tokens:
        groups[token.group].append(token)
    for members in groups.values():
        done: set[int] = set()
        for first in sorted(members, key=lambda each: -language.runs[each.run].length):
            if language.runs[first.run].dx == 0 or first.y in done:
                continue
            done.add(first.y)
            bottom = first.y + shapes[first.shape].height
            parts = [
                each
                for each in members
                if first.y <= each.y and each.y + shapes[each.shape].height <= bottom
            ]
            if len(parts) > 1:
                yield [first, *(each for each in parts if each is not first)]


def _candidates(language: Language, parts: Sequence[Token]) -> Iterator[Token]:
    """Yield whole rows that have a shape wherever `parts` have one; the first part is a run."""
    shapes, runs = language.vocabulary.shapes, language.runs
    first, step = parts[0], runs[parts[0].run].dx
    wide = shapes[first.shape].width
    left = min(part.x for part in parts)
    right = max(
        part.x + (runs[part.run].length - 1) * runs[part.run].dx + shapes[part.shape].width
        for part in parts
    )
    # Every part must lie in one shape of the row.
    for part in parts:
        inside = (part.x - first.x) % step + shapes[part.shape].width <= wide
        if not inside or (part.run and runs[part.run].dx != step):
            return
    # The row begins at the leftmost part, or further left behind a sprite.
    begin = first.x - -(-(first.x - left) // step) * step
    for number, run in enumerate(runs):
        if run.dy or run.dx != step:
            continue
        for x in range(begin, -1, -step):
            if x + (run.length - 1) * step + wide < right:
                break
            yield Token(first.group, first.y, x, first.shape, number)
