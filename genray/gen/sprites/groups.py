"""Groups the colours of a game, so that a sprite of several colours is one component.

Shapes: H height, W width, P colours of the palette, G groups.
"""

from collections.abc import Iterable

import numpy as np

from genray.gen.sprites.components import TRANSPARENT, find_components

TOGETHER = 0.5
"""Two colours are joined if this share of one's pixels is in components with the other one."""
ALONE = 0.7
"""A colour with this share of its pixels in components without any other colour stays alone."""


def group_colours(
    screens: Iterable[np.ndarray], backgrounds: Iterable[np.ndarray], colours: int, gap: int
) -> np.ndarray:
    """Return the group of each colour, int64 [P]. Groups are numbered by their foreground pixels,
    the most frequent first.

    For each colour, the components of the whole foreground are searched for other colours. A
    component counts by its number of pixels of the colour. A colour that is mostly alone stays
    alone, even if it often touches others.

    Args:
        screens: palette indices, uint8 [H, W] each.
        backgrounds: the background of each screen.
        colours: P.
        gap: see `find_components`.
    """
    pixels_P = np.zeros(colours)
    alone_P = np.zeros(colours)
    together_PP = np.zeros((colours, colours))
    one_group_P = np.zeros(colours, np.int64)
    for screen_HW, background_HW in zip(screens, backgrounds):
        # A huge cell: components are not cut.
        for component in find_components(
            screen_HW, background_HW, one_group_P, gap, max(screen_HW.shape)
        ):
            count_P = np.bincount(np.frombuffer(component.pixels, np.uint8), minlength=256)
            count_P = count_P[:colours]
            assert colours <= TRANSPARENT
            present = np.flatnonzero(count_P)
            pixels_P[present] += count_P[present]
            if len(present) == 1:
                alone_P[present] += count_P[present]
            else:
                together_PP[np.ix_(present, present)] += count_P[present, None]
    seen_P = np.maximum(pixels_P, 1)
    joined_PP = (together_PP / seen_P[:, None]) >= TOGETHER
    solitary_P = alone_P / seen_P >= ALONE
    # Join colours until no group changes.
    group_P = np.arange(colours)
    for a, b in np.argwhere(joined_PP):
        if a != b and not solitary_P[a] and not solitary_P[b]:
            group_P[group_P == group_P[b]] = group_P[a]
    # Number the groups by their pixels.
    names = np.unique(group_P)
    total = np.array([pixels_P[group_P == name].sum() for name in names])
    rank = {int(names[at]): number for number, at in enumerate(np.argsort(-total, kind="stable"))}
    return np.array([rank[int(name)] for name in group_P], np.int64)
