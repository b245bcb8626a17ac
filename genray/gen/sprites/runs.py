"""Runs: equal shapes at equal distances in a row or in a column, which one token describes."""

from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Sequence
from typing import NamedTuple

SHORTEST = 3
"""Smallest number of shapes in a run."""


class Run(NamedTuple):
    """`length` equal shapes, each `dy` below and `dx` to the right of the one before."""

    length: int
    dy: int
    dx: int


SINGLE = Run(1, 0, 0)
"""One shape."""


class Placed(NamedTuple):
    """Equal shapes on the screen: the first one's place, and the run."""

    shape: int
    y: int
    x: int
    run: Run


def find_runs(
    places: Iterable[tuple[int, int, int]], known: Container[Run] | None = None
) -> list[Placed]:
    """Join shapes to runs. Every place is in exactly one of the results.

    The longest run from the first shape of a row is taken, then the next one; shapes that are in no
    row may form a column.

    Args:
        places: (shape, y, x) of each shape.
        known: the runs that may be used; None: any.
    """
    rows: dict[tuple[int, int], list[int]] = defaultdict(list)
    columns: dict[tuple[int, int], list[int]] = defaultdict(list)
    found: list[Placed] = []
    for shape, y, x in places:
        rows[shape, y].append(x)
    for (shape, y), xs in rows.items():
        for x, count, step in _progressions(sorted(xs), known, horizontal=True):
            if count > 1:
                found.append(Placed(shape, y, x, Run(count, 0, step)))
            else:
                columns[shape, x].append(y)
    for (shape, x), ys in columns.items():
        for y, count, step in _progressions(sorted(ys), known, horizontal=False):
            run = Run(count, step, 0) if count > 1 else SINGLE
            found.append(Placed(shape, y, x, run))
    return found


def _progressions(
    values: Sequence[int], known: Container[Run] | None, *, horizontal: bool
) -> list[tuple[int, int, int]]:
    """Cut sorted `values` into (first value, count, step), with count 1 or at least SHORTEST."""
    found, at = [], 0
    while at < len(values):
        count, step = 1, 0
        if at + SHORTEST <= len(values):
            step = values[at + 1] - values[at]
            count = 2
            while at + count < len(values) and values[at + count] - values[at + count - 1] == step:
                count += 1
            # Take the longest known run, if there is one.
            while count >= SHORTEST and known is not None:
                if (Run(count, 0, step) if horizontal else Run(count, step, 0)) in known:
                    break
                count -= 1
            if count < SHORTEST or step == 0:
                count, step = 1, 0
        found.append((values[at], count, step))
        at += count
    return found


def frequent_runs(placed: Iterable[Placed], rare: int) -> list[Run]:
    """Return SINGLE and the runs that occur at least `rare` times, the most frequent first."""
    count = Counter(each.run for each in placed)
    del count[SINGLE]
    frequent = [run for run in count if count[run] >= rare]
    return [SINGLE, *sorted(frequent, key=lambda run: (-count[run], run))]
