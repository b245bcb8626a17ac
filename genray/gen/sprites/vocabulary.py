"""The vocabulary of shapes, and how shapes outside it are put together from shapes inside it.

A *shape* is a component without its place: a group of colours, a height, a width and palette
indices. The vocabulary contains the shapes that are frequent in the training screens. A rare shape,
often two sprites that touch, is split exactly into frequent ones where that is possible; otherwise
the vocabulary contains it, too. A shape that first appears after training is split in the same way,
and if that fails, it is replaced by the shape that differs in the fewest pixels.

Shapes of arrays: V shapes of the vocabulary.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from genray.compiling import compiled
from genray.gen.sprites.components import TRANSPARENT, Component, find_components

MOST_PIECES = 4
"""Largest number of pieces into which a rare shape of the training screens is split."""
MOST_UNSEEN = 12
"""Largest number of pieces that show a shape which is in no training screen. Without a limit, a
large unseen shape, e.g. of a new level, would become hundreds of pieces of one or two pixels."""
SHIFT = 2
"""The nearest shape may be shifted by up to this many pixels in each direction."""


class Shape(NamedTuple):
    """A component without its place."""

    group: int
    height: int
    width: int
    pixels: bytes
    """Palette indices, row by row; TRANSPARENT outside the shape."""

    @property
    def size(self) -> int:
        """Number of pixels that are not transparent."""
        return len(self.pixels) - self.pixels.count(TRANSPARENT)


class Piece(NamedTuple):
    """A shape of the vocabulary at a place relative to a component's top left corner."""

    shape: int
    dy: int
    dx: int


def shape_of(component: Component) -> Shape:
    """Return the component's shape."""
    return Shape(component.group, component.height, component.width, component.pixels)


class Vocabulary:
    """Shapes by number, sorted by group and frequency.

    Args:
        shapes: the shapes; shapes of one group are neighbours.
    """

    def __init__(self, shapes: Iterable[Shape]):
        self.shapes = tuple(shapes)
        self._number = {shape: number for number, shape in enumerate(self.shapes)}
        self._tables: dict[int, _Table] = {}
        self._pieces: dict[Shape, tuple[tuple[Piece, ...], int]] = {}

    def __len__(self) -> int:
        return len(self.shapes)

    def __contains__(self, shape: Shape) -> bool:
        return shape in self._number

    def pieces(self, shape: Shape) -> tuple[tuple[Piece, ...], int]:
        """Return the pieces that show `shape`, and the number of pixels that they show wrongly."""
        if shape in self._number:
            return (Piece(self._number[shape], 0, 0),), 0
        if shape not in self._pieces:
            self._pieces[shape] = self._approximate(shape)
        return self._pieces[shape]

    def split(self, shape: Shape, most: int) -> tuple[Piece, ...] | None:
        """Return at most `most` shapes of the vocabulary whose disjoint union is `shape`, or None
        if none were found. The search is greedy, the largest shapes first.
        """
        pieces, lost = self._cover(shape)
        return pieces if not lost and len(pieces) <= most else None

    def _approximate(self, shape: Shape) -> tuple[tuple[Piece, ...], int]:
        """Return the pieces with the fewest wrong pixels: the largest pieces of an inexact cover,
        the nearest shape, or nothing.
        """
        pieces, lost = self._cover(shape)
        if len(pieces) > MOST_UNSEEN:
            ordered = sorted(pieces, key=lambda piece: -self.shapes[piece.shape].size)
            lost += sum(self.shapes[piece.shape].size for piece in ordered[MOST_UNSEEN:])
            pieces = tuple(ordered[:MOST_UNSEEN])
        if not lost:
            return pieces, 0
        nearest, wrong = self._nearest(shape)
        if wrong < lost:
            return (nearest,), wrong
        return pieces, lost

    def _cover(self, shape: Shape) -> tuple[tuple[Piece, ...], int]:
        table = self._table(shape.group)
        if not len(table.number):
            return (), shape.size
        found_K3, lost = _cover(_pixels(shape), table.start, table.y, table.x, table.color)
        pieces = tuple(Piece(int(table.number[at]), int(dy), int(dx)) for at, dy, dx in found_K3)
        return pieces, int(lost)

    def _nearest(self, shape: Shape) -> tuple[Piece, int]:
        table = self._table(shape.group)
        if not len(table.number):
            return Piece(0, 0, 0), shape.size
        at, dy, dx, wrong = _nearest(
            _pixels(shape), shape.size, table.start, table.y0, table.x0, table.color, SHIFT
        )
        return Piece(int(table.number[at]), int(dy), int(dx)), int(wrong)

    def _table(self, group: int) -> "_Table":
        if group not in self._tables:
            self._tables[group] = _Table(
                {number: shape for number, shape in enumerate(self.shapes) if shape.group == group}
            )
        return self._tables[group]


class _Table:
    """The pixels of one group's shapes as flat arrays, the largest shape first."""

    def __init__(self, shapes: Mapping[int, Shape]):
        order = sorted(shapes, key=lambda number: -shapes[number].size)
        self.number = np.array(order, np.int64)
        parts = []
        for number in order:
            pixels_HW = _pixels(shapes[number])
            y, x = np.nonzero(pixels_HW != TRANSPARENT)
            # Coordinates relative to the first pixel in reading order, and to the corner.
            parts.append((y - y[0], x - x[0], pixels_HW[y, x], y, x))
        self.y, self.x, self.color, self.y0, self.x0 = (
            np.concatenate([part[at] for part in parts]) if parts else np.zeros(0, np.int64)
            for at in range(5)
        )
        self.start = np.cumsum([0, *(len(part[0]) for part in parts)])


def _pixels(shape: Shape) -> np.ndarray:
    return np.frombuffer(shape.pixels, np.uint8).reshape(shape.height, shape.width)


@compiled
def _cover(target_HW, start, offset_y, offset_x, color):
    height, width = target_HW.shape
    left_HW = target_HW.copy()
    found, lost = np.empty((height * width, 3), np.int64), 0
    count = 0
    for y in range(height):
        for x in range(width):
            if left_HW[y, x] == 255:
                continue
            # The first pixel that is left is the first pixel of the next piece.
            chosen = -1
            for shape in range(len(start) - 1):
                fits = True
                for at in range(start[shape], start[shape + 1]):
                    to_y, to_x = y + offset_y[at], x + offset_x[at]
                    inside = to_y < height and 0 <= to_x < width
                    if not inside or left_HW[to_y, to_x] != color[at]:
                        fits = False
                        break
                if fits:
                    chosen = shape
                    break
            if chosen < 0:
                lost += 1
                left_HW[y, x] = 255
                continue
            least_x = 0
            for at in range(start[chosen], start[chosen + 1]):
                left_HW[y + offset_y[at], x + offset_x[at]] = 255
                least_x = min(least_x, offset_x[at])
            found[count, 0], found[count, 1], found[count, 2] = chosen, y, x + least_x
            count += 1
    return found[:count].copy(), lost


@compiled
def _nearest(target_HW, size, start, offset_y, offset_x, color, shift):
    height, width = target_HW.shape
    best, best_y, best_x, least = 0, 0, 0, 1 << 30
    for shape in range(len(start) - 1):
        pixels = start[shape + 1] - start[shape]
        if abs(pixels - size) >= least:
            continue
        for dy in range(-shift, shift + 1):
            for dx in range(-shift, shift + 1):
                same = 0
                for at in range(start[shape], start[shape + 1]):
                    y, x = offset_y[at] + dy, offset_x[at] + dx
                    if 0 <= y < height and 0 <= x < width and target_HW[y, x] == color[at]:
                        same += 1
                # Pixels of one that the other lacks, or shows in another colour.
                wrong = max(pixels, size) - same
                if wrong < least:
                    best, best_y, best_x, least = shape, dy, dx, wrong
    return best, best_y, best_x, least


def build_vocabulary(components: Iterable[Component], rare: int) -> Vocabulary:
    """Return the vocabulary of the training screens' components.

    A shape that occurs fewer than `rare` times is left out if frequent shapes add up to it. Parts
    of rare shapes count, too: the parts are the components without a gap between their pixels.
    """
    count = Counter(map(shape_of, components))
    frequent = Counter({shape: times for shape, times in count.items() if times >= rare})
    parts: Counter[Shape] = Counter()
    for shape, times in count.items():
        if times < rare:
            for part in _parts(shape):
                parts[part] += times
    for shape, times in parts.items():
        if times >= rare and shape not in count:
            frequent[shape] = times
    first = Vocabulary(_ordered(frequent))
    kept = Counter(frequent)
    for shape, times in count.items():
        if times < rare and first.split(shape, MOST_PIECES) is None:
            kept[shape] = times
    return Vocabulary(_ordered(kept))


def _parts(shape: Shape) -> list[Shape]:
    """Return the shape's components of pixels that touch."""
    pixels_HW = _pixels(shape)
    nothing_HW = np.full_like(pixels_HW, TRANSPARENT)
    group_P = np.zeros(256, np.int64)
    found = find_components(pixels_HW, nothing_HW, group_P, 1, max(pixels_HW.shape))
    return [shape_of(part)._replace(group=shape.group) for part in found]


def _ordered(count: Counter[Shape]) -> list[Shape]:
    return sorted(count, key=lambda shape: (shape.group, -count[shape], shape))
