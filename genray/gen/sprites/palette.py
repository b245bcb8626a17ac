"""Converts colour images to palette indices and back, without loss.

Shapes: N images, H height, W width, P colours of the palette.
"""

import numpy as np

from genray.errors import ConfigError

MOST_COLOURS = 255
"""Largest number of colours of a palette; index 255 means a transparent pixel in sprites."""


class PaletteBuilder:
    """Assigns an index to each colour, in the order in which the colours appear.

    Args:
        what: words for the images in error messages, e.g. "--data folder:art".
    """

    def __init__(self, what: str):
        self._what = what
        self._colours: list[int] = []
        # Index of each 24-bit colour; 255: no index yet.
        self._index = np.full(1 << 24, 255, np.uint8)

    @property
    def palette_P3(self) -> np.ndarray:
        """The RGB values of each index, uint8 [P, 3]."""
        code_P = np.array(self._colours, np.int64)
        return np.stack([code_P >> 16, code_P >> 8 & 255, code_P & 255], 1).astype(np.uint8)

    def indices(self, images_NHW3: np.ndarray) -> np.ndarray:
        """Return the palette indices of uint8 RGB images, uint8 [N, H, W]; new colours get the
        next indices.

        Raises ConfigError for more than MOST_COLOURS colours.
        """
        code_NHW = _codes(images_NHW3)
        found_NHW = self._index[code_NHW]
        new = found_NHW == 255
        if new.any():
            colours = np.unique(code_NHW[new])
            if len(self._colours) + len(colours) > MOST_COLOURS:
                raise ConfigError(
                    f"{self._what}: has more than {MOST_COLOURS} colours; a sprite model needs "
                    "pixel art of few colours, e.g. --data screens:road_runner"
                )
            self._index[colours] = len(self._colours) + np.arange(len(colours), dtype=np.uint8)
            self._colours += colours.tolist()
            found_NHW = self._index[code_NHW]
        return found_NHW


class NearestColour:
    """Converts images to indices of a given palette; other colours become the most similar one.

    Args:
        palette_P3: uint8 RGB of each index.
    """

    def __init__(self, palette_P3: np.ndarray):
        self._palette_P3 = palette_P3.astype(np.int64)
        self._index = np.full(1 << 24, 255, np.uint8)
        self._index[self._palette_P3 @ np.array([65536, 256, 1])] = np.arange(len(palette_P3))

    def indices(self, images_NHW3: np.ndarray) -> np.ndarray:
        """Return the palette indices of uint8 RGB images, uint8 [N, H, W]."""
        code_NHW = _codes(images_NHW3)
        found_NHW = self._index[code_NHW]
        new = found_NHW == 255
        if new.any():
            code_K = np.unique(code_NHW[new])
            colour_K3 = np.stack([code_K >> 16, code_K >> 8 & 255, code_K & 255], 1)
            away_KP = np.square(colour_K3[:, None] - self._palette_P3).sum(2)
            self._index[code_K] = away_KP.argmin(1)
            found_NHW = self._index[code_NHW]
        return found_NHW


def _codes(images_NHW3: np.ndarray) -> np.ndarray:
    """Return the colours as 24-bit numbers, int32 [N, H, W]."""
    code_NHW = images_NHW3[..., 0].astype(np.int32) << 16
    code_NHW |= images_NHW3[..., 1].astype(np.int32) << 8
    code_NHW |= images_NHW3[..., 2]
    return code_NHW


def to_rgb(indices: np.ndarray, palette_P3: np.ndarray) -> np.ndarray:
    """Return the RGB colours of palette indices of any shape, uint8 […, 3]."""
    return palette_P3[indices]
