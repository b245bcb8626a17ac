"""Finds the backgrounds of a game, one for each of its levels or scenes.

The first background has the most frequent colour of each pixel. Screens that differ from all known
backgrounds in a large part of their pixels are searched for a group of screens that are similar to
each other; the most frequent colours of this group are a new background. All screens are then
assigned to their nearest background, and the backgrounds are computed again (k-modes, Huang 1998).

Shapes: N screens, H height, W width, P colours, K backgrounds, S pixels of reduced screens.
"""

import numpy as np

APART = 0.15
"""Screens that differ from a background in a larger share of their pixels have another one."""
FEWEST = 0.01
"""Smallest share of the training screens that a background needs."""
STRIDE = 4
"""Screens are assigned to backgrounds by every fourth pixel of every fourth row."""
CENTRES = 32
"""Number of screens that are tried as the centre of a new background."""
ROUNDS = 2
"""Number of times that screens are assigned and backgrounds are computed again."""


def find_backgrounds(screens_NHW: np.ndarray, colours: int, most: int) -> np.ndarray:
    """Return at most `most` backgrounds, the most frequent first; palette indices, uint8 [K, H, W].

    Args:
        screens_NHW: palette indices, uint8.
        colours: P.
        most: largest K; with 1, the background is the most frequent index of each pixel.
    """
    if most == 1:
        return mode_background(screens_NHW, colours)[None]
    few_NS = np.ascontiguousarray(screens_NHW[:, ::STRIDE, ::STRIDE]).reshape(len(screens_NHW), -1)
    fewest = max(2, round(FEWEST * len(screens_NHW)))
    known_KS = mode_background(few_NS, colours)[None]
    while len(known_KS) < most:
        left_LS = few_NS[_away(few_NS, known_KS).min(1) > APART]
        if len(left_LS) < fewest:
            break
        # The centre has the largest number of similar screens.
        centres = np.unique(np.linspace(0, len(left_LS) - 1, CENTRES).astype(int))
        near_LC = _away(left_LS, left_LS[centres]) <= APART
        largest = near_LC.sum(0).argmax()
        if near_LC[:, largest].sum() < fewest:
            break
        new_S = mode_background(left_LS[near_LC[:, largest]], colours)
        known_KS = np.concatenate([known_KS, new_S[None]])
        for _ in range(ROUNDS):
            nearest_N = _away(few_NS, known_KS).argmin(1)
            known_KS = np.stack(
                [
                    mode_background(few_NS[nearest_N == k], colours)
                    if (nearest_N == k).any()
                    else b
                    for k, b in enumerate(known_KS)
                ]
            )
    # Leave out backgrounds of few screens, and compute those that are left at full size.
    nearest_N = _away(few_NS, known_KS).argmin(1)
    count_K = np.bincount(nearest_N, minlength=len(known_KS))
    kept = [k for k in np.argsort(-count_K, kind="stable") if count_K[k] >= fewest]
    nearest_N = _away(few_NS, known_KS[kept]).argmin(1)
    return np.stack(
        [mode_background(screens_NHW[nearest_N == k], colours) for k in range(len(kept))]
    )


def nearest_background(screen_HW: np.ndarray, backgrounds_KHW: np.ndarray) -> int:
    """Return the number of the background from which the screen differs in the fewest pixels."""
    if len(backgrounds_KHW) == 1:
        return 0
    return int((backgrounds_KHW != screen_HW).sum((1, 2)).argmin())


def mode_background(indices: np.ndarray, colours: int) -> np.ndarray:
    """Return the most frequent palette index of each pixel of N screens [N, …], uint8 […].

    `colours`: number of colours of the palette. The smallest index wins a tie.
    """
    most = np.zeros(indices.shape[1:], np.int32)
    background = np.zeros(indices.shape[1:], np.uint8)
    for index in range(colours):
        count = (indices == index).sum(0, dtype=np.int32)
        more = count > most
        most[more] = count[more]
        background[more] = index
    return background


def _away(screens_NS: np.ndarray, known_KS: np.ndarray) -> np.ndarray:
    """Return the share of pixels in which each screen differs from each background, [N, K]."""
    return np.stack([(screens_NS != known_S).mean(1) for known_S in known_KS], 1)
