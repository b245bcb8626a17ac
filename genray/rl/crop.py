"""Crops the top and the bottom of Atari's screen, and resizes the rest to the size of a frame.

Shapes: E lanes, H height and W width of the screen, R rows and C columns of the frame, K rows or
columns of the screen that one pixel of the frame covers.
"""

import numpy as np

from genray.compiling import compiled


class Crop:
    """Cuts rows from screens and resizes the rest: uint8 [E, H, W] → uint8 [E, R, C].

    A pixel of the frame is the mean of the area of the screen that it covers, as in OpenCV's
    INTER_AREA, with which ALE resizes.

    Args:
        height, width: H and W of the screens.
        top, bottom: numbers of rows to cut. At least R rows must remain.
        frame_shape: (R, C).
    """

    def __init__(
        self, height: int, width: int, top: int, bottom: int, frame_shape: tuple[int, int]
    ):
        self.frame_shape, self._top = frame_shape, top
        self._rows = area_weights(height - top - bottom, frame_shape[0])
        self._columns = area_weights(width, frame_shape[1])

    def __call__(self, screen_EHW: np.ndarray) -> np.ndarray:
        """Return the frames of the screens, in a new array."""
        frame_ERC = np.empty((len(screen_EHW), *self.frame_shape), np.uint8)
        _resize(screen_EHW, self._top, *self._rows, *self._columns, frame_ERC)
        return frame_ERC


def area_weights(size: int, cells: int) -> tuple[np.ndarray, np.ndarray]:
    """Divide `size` pixels into `cells` ≤ `size` equal cells; return which pixels a cell covers.

    Returns the first pixel of each cell, int64 [cells], and the share of the cell's area that this
    pixel and the K − 1 pixels after it have, float32 [cells, K]. Each row of shares adds up to 1.
    """
    edges = np.arange(cells + 1) * (size / cells)
    first = np.floor(edges[:-1] + 1e-9).astype(np.int64)
    pixel = first[:, None] + np.arange(int(np.ceil(size / cells)) + 1)
    covered = np.minimum(pixel + 1, edges[1:, None]) - np.maximum(pixel, edges[:-1, None])
    share = np.where(covered > 1e-9, covered, 0) / (size / cells)
    return first, share.astype(np.float32)


@compiled
def _resize(screen_EHW, top, row_R, share_RK, column_C, share_CK, frame_ERC):
    """Fill `frame_ERC` with the weighted means of the screens' pixels, rounded."""
    strip_W = np.empty(screen_EHW.shape[2], np.float32)
    for lane in range(frame_ERC.shape[0]):
        for r in range(frame_ERC.shape[1]):
            # Add up the covered rows of the screen, and then the covered columns of the sum.
            strip_W[:] = 0
            for k in range(share_RK.shape[1]):
                # A share of 0 can belong to a pixel after the last one.
                if share_RK[r, k] > 0:
                    row = top + row_R[r] + k
                    for w in range(screen_EHW.shape[2]):
                        strip_W[w] += share_RK[r, k] * screen_EHW[lane, row, w]
            for c in range(frame_ERC.shape[2]):
                total = np.float32(0)
                for k in range(share_CK.shape[1]):
                    if share_CK[c, k] > 0:
                        total += share_CK[c, k] * strip_W[column_C[c] + k]
                frame_ERC[lane, r, c] = np.uint8(np.rint(total))
