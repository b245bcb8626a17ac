"""Screens of a toy game for the tests of sprite models."""

import numpy as np
import torch

from genray.gen.data.types import Data, Split
from genray.gen.sprites.components import TRANSPARENT

PALETTE = np.arange(18, dtype=np.uint8).reshape(6, 3) * 14


def toy_screens(count: int = 200, seed: int = 0, levels: int = 1) -> np.ndarray:
    """Make screens 40x48 of a background with a stripe, a row of dashes, a two-coloured figure and
    a ball; uint8 palette indices. With two levels, every third screen has the colours of sky and
    stripe exchanged.
    """
    rng = np.random.default_rng(seed)
    screens = np.zeros((count, 40, 48), np.uint8)
    screens[:, 30:] = 1
    if levels == 2:
        screens[::3] = 1 - screens[::3]
    figure = np.array([[255, 2, 2, 255], [2, 3, 3, 2], [2, 255, 255, 2]], np.uint8)
    for screen in screens:
        screen[20, 3::8] = screen[20, 4::8] = 4
        for shape, (y, x) in (
            (figure, rng.integers((1, 1), (12, 40))),
            (np.full((2, 2), 5, np.uint8), rng.integers((22, 1), (36, 44))),
        ):
            place = screen[y : y + len(shape), x : x + len(shape[0])]
            np.copyto(place, shape, where=shape != TRANSPARENT)
    return screens


def toy_data(rows: int = 240, levels: int = 1) -> Data:
    """Return the screens as colour images; 40 are for validation and 40 for the test."""
    rgb = np.moveaxis(PALETTE[toy_screens(rows, levels=levels)], 3, 1)
    images = torch.from_numpy(np.ascontiguousarray(rgb))
    cuts = (0, rows - 80), (rows - 80, rows - 40), (rows - 40, rows)
    return Data("toy", *(Split(images[start:stop]) for start, stop in cuts))
