"""Joins the pieces of a jigsaw puzzle into the picture from which they were cut.

Shapes: H height, W width.
"""

from dataclasses import dataclass

import numpy as np

REACH = 3
"""Pixels by which a piece may lie beside its stated position in each direction."""
COST = 0.5
"""Grey levels of disagreement that a piece must save for each pixel by which it moves away from its
stated position, and for each pixel by which it moves otherwise than its neighbours do.
"""


@dataclass(frozen=True)
class Piece:
    """A piece of a puzzle and its stated position."""

    pixels_HW4: np.ndarray
    """uint8 RGBA; pixels with alpha below 128 do not belong to the piece."""
    top: int
    left: int


def join_pieces(pieces: list[Piece]) -> np.ndarray:
    """Return the picture of the pieces, uint8 RGB [H, W, 3].

    Neighbouring pieces of a jigsaw overlap by a pixel or two, and their stated positions are wrong
    by up to 3 pixels. A piece is placed where it agrees best with the pieces under its edges.
    Rectangular pieces do not overlap, and are placed as stated. Incomplete rows and columns at the
    border are cut off. Raises ValueError if the joined picture has a hole.
    """
    canvas = _Canvas(pieces)
    waiting = list(pieces)
    while waiting:
        # The piece with the largest overlap comes next, because its place is the surest.
        overlaps = [canvas.overlap(piece) for piece in waiting]
        canvas.place(waiting.pop(int(np.argmax(overlaps))))
    return canvas.picture()


class _Canvas:
    """The picture while its pieces are placed."""

    def __init__(self, pieces: list[Piece]):
        self.top = min(piece.top for piece in pieces) - REACH
        self.left = min(piece.left for piece in pieces) - REACH
        bottom = max(piece.top + piece.pixels_HW4.shape[0] for piece in pieces) + REACH
        right = max(piece.left + piece.pixels_HW4.shape[1] for piece in pieces) + REACH
        shape = bottom - self.top, right - self.left
        self.rgb_HW3 = np.zeros((*shape, 3), np.int16)
        self.filled_HW = np.zeros(shape, bool)
        self.moved_HW2 = np.zeros((*shape, 2), np.int16)
        """By how much the piece under each pixel was moved."""

    def _under(self, piece: Piece, down: int = 0, right: int = 0) -> tuple[slice, slice]:
        """Return the part of the canvas under a moved piece."""
        top, left = piece.top - self.top + down, piece.left - self.left + right
        height, width = piece.pixels_HW4.shape[:2]
        return slice(top, top + height), slice(left, left + width)

    def overlap(self, piece: Piece) -> int:
        """Return how many filled pixels the piece covers at its stated position."""
        return int((self.filled_HW[self._under(piece)] & _mask(piece)).sum())

    def place(self, piece: Piece) -> None:
        """Add a piece; pixels that are filled already keep their colour."""
        mask_HW = _mask(piece)
        move = (0, 0) if mask_HW.all() else self._best_move(piece, mask_HW)
        under = self._under(piece, *move)
        new_HW = mask_HW & ~self.filled_HW[under]
        self.rgb_HW3[under][new_HW] = piece.pixels_HW4[..., :3][new_HW]
        self.moved_HW2[under][new_HW] = move
        self.filled_HW[under] |= mask_HW

    def _best_move(self, piece: Piece, mask_HW: np.ndarray) -> tuple[int, int]:
        """Return the move (down, right) at which the piece agrees best with the pieces below."""
        stated = self._under(piece)
        below_HW = self.filled_HW[stated] & mask_HW
        if not below_HW.any():
            return 0, 0
        neighbours_2 = np.median(self.moved_HW2[stated][below_HW], 0)
        colours_HW3 = piece.pixels_HW4[..., :3].astype(np.int16)
        costs: dict[tuple[int, int], float] = {}
        for down in range(-REACH, REACH + 1):
            for right in range(-REACH, REACH + 1):
                under = self._under(piece, down, right)
                common_HW = self.filled_HW[under] & mask_HW
                # A move that leaves little overlap would make a gap.
                if common_HW.sum() < 0.3 * below_HW.sum():
                    continue
                error = np.abs(self.rgb_HW3[under][common_HW] - colours_HW3[common_HW]).mean()
                apart = np.abs(neighbours_2 - (down, right)).sum()
                costs[down, right] = error + COST * (abs(down) + abs(right) + apart)
        return min(costs, key=lambda move: costs[move])

    def picture(self) -> np.ndarray:
        """Return the picture without incomplete rows and columns at the border."""
        rows, columns = (np.flatnonzero(self.filled_HW.any(axis)) for axis in (1, 0))
        top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
        filled_HW = self.filled_HW
        # Cut off the side with the largest gap until no side has one.
        while True:
            gaps = {
                "top": 1 - filled_HW[top, left:right].mean(),
                "bottom": 1 - filled_HW[bottom - 1, left:right].mean(),
                "left": 1 - filled_HW[top:bottom, left].mean(),
                "right": 1 - filled_HW[top:bottom, right - 1].mean(),
            }
            side = max(gaps, key=lambda name: gaps[name])
            if gaps[side] == 0:
                break
            top, bottom = top + (side == "top"), bottom - (side == "bottom")
            left, right = left + (side == "left"), right - (side == "right")
        part = slice(top, bottom), slice(left, right)
        if not filled_HW[part].all():
            raise ValueError("the pieces leave a hole")
        return self.rgb_HW3[part].astype(np.uint8)


def _mask(piece: Piece) -> np.ndarray:
    """Return which pixels belong to the piece, bool [H, W]."""
    return piece.pixels_HW4[..., 3] >= 128
