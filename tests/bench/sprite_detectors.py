"""Finds the characters of seven games on screens, by their colours, sizes and places.

The detectors know nothing of the tokenizer. They were written from recorded screens before any
setting of the sprite model was chosen. Colours are RGB of the NTSC palette; places are pixels of
a screen of 160x210.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

Colour = tuple[int, int, int]
LARGE = 999


@dataclass(frozen=True)
class Detector:
    """A character: parts of these colours and sizes, whose centre is in a box."""

    name: str
    colours: tuple[Colour, ...]
    height: tuple[int, int] = (1, LARGE)
    width: tuple[int, int] = (1, LARGE)
    """Smallest and largest side of the bounding box, in pixels."""
    pixels: int = 1
    """Smallest number of pixels."""
    y: tuple[int, int] = (0, 210)
    x: tuple[int, int] = (0, 160)

    def count(self, screen_HW: np.ndarray, palette_P3: np.ndarray) -> int:
        """Return how many there are on a screen of palette indices."""
        return len(self.places(screen_HW, palette_P3))

    def places(self, screen_HW: np.ndarray, palette_P3: np.ndarray) -> list[tuple[float, float]]:
        """Return the centres (y, x) of their bounding boxes, in pixels."""
        wanted_P = np.array([tuple(colour) in self.colours for colour in palette_P3.tolist()])
        top, bottom = self.y
        left, right = self.x
        mask_HW = wanted_P[screen_HW[top:bottom, left:right]]
        # Parts that are up to two pixels apart belong together.
        square = np.ones((3, 3))
        label_HW, _ = ndimage.label(ndimage.binary_dilation(mask_HW, square), square)
        label_HW = np.where(mask_HW, label_HW, 0)
        found = []
        for number, box in enumerate(ndimage.find_objects(label_HW), 1):
            if box is None:
                continue
            height, width = (side.stop - side.start for side in box)
            fits = self.height[0] <= height <= self.height[1]
            fits = fits and self.width[0] <= width <= self.width[1]
            if fits and int((label_HW[box] == number).sum()) >= self.pixels:
                y, x = ((side.start + side.stop - 1) / 2 for side in box)
                found.append((top + y, left + x))
        return found


BLUES = ((66, 72, 200), (84, 92, 214), (101, 111, 228), (132, 144, 252))
BROWNS = ((144, 28, 0), (163, 57, 21), (181, 83, 40), (198, 108, 58), (213, 130, 74))
YELLOW = ((187, 187, 53),)

DETECTORS: dict[str, tuple[Detector, ...]] = {
    "road_runner": (
        Detector("bird", BLUES, (18, 38), (4, 20), 60, (60, 205)),
        Detector("coyote", BROWNS, (18, 38), (4, 20), 50, (60, 205)),
        Detector("sign", ((0, 0, 0),), (14, 24), (12, 24), 90, (62, 112), (8, 152)),
        Detector("seeds", BLUES, (1, 4), (2, 8), 2, (124, 190)),
    ),
    "seaquest": (
        Detector("submarine", YELLOW, (6, 14), (12, 20), 40, (34, 165)),
        Detector("diver", ((66, 72, 200),), (5, 14), (4, 12), 12, (60, 160)),
        Detector("green fish", ((92, 186, 92),), (5, 10), (5, 10), 12, (60, 160)),
        Detector("other fish", ((160, 171, 79), (198, 89, 179), (170, 170, 170)), (5, 10), (5, 12),
                 12, (60, 160)),
        Detector("own shot", YELLOW, (1, 2), (5, 9), 5, (60, 160)),
        Detector("oxygen", ((214, 214, 214),), (3, 8), (1, 70), 5, (165, 180)),
    ),
    "breakout": (
        Detector("ball", ((200, 72, 72),), (2, 5), (1, 3), 2, (94, 188), (8, 152)),
        Detector("paddle", ((200, 72, 72),), (3, 5), (6, 18), 20, (188, 195), (8, 152)),
    ),
    "riverraid": (
        Detector("plane", ((232, 232, 74),), (9, 16), (4, 16), 30, (110, 163)),
        Detector("fuel", ((214, 92, 92),), (5, 30), (5, 12), 20, (2, 162)),
        Detector("helicopter", ((0, 64, 48), (0, 0, 148)), (2, 14), (4, 14), 8, (2, 162)),
        Detector("tree", ((158, 208, 101),), (4, 16), (4, 20), 15, (2, 162)),
        Detector("house", ((0, 0, 0),), (3, 12), (8, 20), 15, (2, 158)),
        Detector("road", ((111, 111, 111),), (1, 40), (20, LARGE), 40, (2, 162)),
    ),
    "space_invaders": (
        Detector("aliens", ((134, 134, 29),), (6, 12), (5, 12), 18, (20, 185)),
        Detector("shields", ((181, 83, 40),), (6, 22), (3, 10), 25, (150, 180)),
        Detector("player", ((50, 132, 50),), (6, 14), (5, 10), 25, (178, 198)),
        Detector("shot", ((142, 142, 142),), (3, 14), (1, 2), 3, (30, 195)),
    ),
    "freeway": (
        Detector("chickens", ((252, 252, 84),), (5, 10), (4, 9), 14, (20, 195)),
        *(
            Detector(name, (colour,), (6, 12), (5, 10), 20, (22, 185))
            for name, colour in (
                ("red car", (167, 26, 26)), ("blue car", (24, 26, 167)),
                ("light blue car", (84, 92, 214)), ("green car", (135, 183, 84)),
                ("brown car", (162, 98, 33)), ("yellow car", (210, 210, 64)),
                ("olive car", (105, 105, 15)), ("pale car", (180, 231, 117)),
            )
        ),
    ),
    "boxing": (
        Detector("white boxer", ((214, 214, 214),), (20, 50), (10, 40), 90, (32, 180), (30, 130)),
        Detector("black boxer", ((0, 0, 0),), (20, 50), (10, 40), 90, (32, 180), (30, 130)),
    ),
}  # fmt: skip


def rates(
    game: str, screens_NHW: np.ndarray, palette_P3: np.ndarray
) -> dict[str, tuple[float, float]]:
    """Return for each character (share of screens that show it, mean number on a screen)."""
    result = {}
    for detector in DETECTORS[game]:
        count_N = np.array([detector.count(screen, palette_P3) for screen in screens_NHW])
        result[detector.name] = float((count_N > 0).mean()), float(count_N.mean())
    return result
