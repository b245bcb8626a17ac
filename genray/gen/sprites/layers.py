"""Finds out which groups of colours cover which, from the training screens.

A sprite that is covered in part has an unusual, rare shape; the sprite that covers it has its usual
shape. Where two shapes of different groups overlap by their bounding boxes, the one that is rarer
than usual for its group is below.

Shapes: G groups.
"""

from collections import Counter
from collections.abc import Sequence
from math import log

import numpy as np

from genray.gen.sprites.runs import Run
from genray.gen.sprites.vocabulary import Shape

LEAST_PIXELS = 8
"""Smaller shapes say nothing: they hardly change when they are covered."""


def painting_order(
    screens: Sequence[Sequence[Sequence[int]]],
    shapes: Sequence[Shape],
    runs: Sequence[Run],
    groups: int,
) -> tuple[int, ...]:
    """Return the groups in the order in which they are painted; the last one covers the others.

    Groups without evidence keep the order of their numbers.

    Args:
        screens: the tokens of training screens.
        shapes, runs: what the numbers in tokens refer to.
        groups: G.
    """
    count = Counter(token[3] for screen in screens for token in screen)
    total, usual = np.zeros(groups), np.zeros(groups)
    for index, number in count.items():
        total[shapes[index].group] += number
        usual[shapes[index].group] += number * log(number)
    usual /= np.maximum(total, 1)
    # above[a, b]: how much more usual a's shapes are than b's where they overlap.
    above_GG = np.zeros((groups, groups))
    for screen in screens:
        single = [
            (y, x, shapes[index], count[index])
            for _, y, x, index, run in screen
            if runs[run].length == 1 and shapes[index].size >= LEAST_PIXELS
        ]
        for position, (y, x, shape, times) in enumerate(single):
            for other_y, other_x, other, other_times in single[position + 1 :]:
                if shape.group == other.group:
                    continue
                apart_y = y >= other_y + other.height or other_y >= y + shape.height
                if apart_y or x >= other_x + other.width or other_x >= x + shape.width:
                    continue
                a, b = shape.group, other.group
                evidence = (log(times) - usual[a]) - (log(other_times) - usual[b])
                above_GG[a, b] += evidence
                above_GG[b, a] -= evidence
    # Paint first, again and again, the group that is least above the groups that are left.
    left = list(range(groups))
    order: list[int] = []
    while left:
        chosen = min(left, key=lambda group: (above_GG[group, left].sum(), group))
        left.remove(chosen)
        order.append(chosen)
    return tuple(order)
