"""Finds the nearest training screen of a screen, and counts near-copies.

Two screens are compared by their moving pixels, the pixels that differ from the background: the
similarity is the number of pixels that move in both screens with the same colour, divided by the
number of pixels that move in either screen (Jaccard index). Screens of two backgrounds have
similarity 0.

Shapes: N screens, M training screens, K places, H height, W width.
"""

from collections.abc import Sequence

import numpy as np
from scipy import sparse

from genray.gen.sprites.tokens import Language, Token

COPY = 0.98
"""A screen of at least this similarity to a training screen is a near-copy."""
CANDIDATES = 8
"""Number of training screens whose pixels are compared; they share the most sprites."""


class TrainingScreens:
    """Searches the training screens.

    Args:
        language: of the screens.
        screens_MHW: the training screens, palette indices.
    """

    def __init__(self, language: Language, screens_MHW: np.ndarray):
        self._language, self._screens = language, screens_MHW
        self._background_M = self._backgrounds(screens_MHW)
        self._column: dict[tuple[int, int, int], int] = {}
        self._matrix_MK = self._matrix([language.encode(each) for each in screens_MHW], grow=True)
        self._total_M = np.asarray(self._matrix_MK.power(2).sum(1)).ravel()

    def nearest(self, screens_NHW: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the row of the most similar training screen and its similarity, both [N].

        The candidates are the training screens that share most of the screen's shapes at the same
        places, weighted by their pixels.
        """
        tokens = [self._language.encode(each) for each in screens_NHW]
        matrix_NK = self._matrix(tokens, grow=False)
        total_N = np.array([self._weight(screen) for screen in tokens])
        shared_NM = (matrix_NK @ self._matrix_MK.T).toarray()
        union_NM = total_N[:, None] + self._total_M - shared_NM
        alike_NM = shared_NM / np.maximum(union_NM, 1)
        same_NM = self._backgrounds(screens_NHW)[:, None] == self._background_M
        alike_NM[~same_NM] = -1
        count = min(CANDIDATES, alike_NM.shape[1])
        rows_NC = np.argpartition(-alike_NM, count - 1, axis=1)[:, :count]
        found_N = np.zeros(len(screens_NHW), np.int64)
        best_N = np.zeros(len(screens_NHW))
        for number, (screen_HW, rows_C) in enumerate(zip(screens_NHW, rows_NC)):
            similarity_C = self._similarity(screen_HW, self._screens[rows_C])
            similarity_C[~same_NM[number, rows_C]] = 0
            found_N[number] = rows_C[similarity_C.argmax()]
            best_N[number] = similarity_C.max()
        return found_N, best_N

    def _similarity(self, screen_HW: np.ndarray, others_CHW: np.ndarray) -> np.ndarray:
        (moving_HW,) = self._language.moving(screen_HW[None])
        moving_CHW = self._language.moving(others_CHW)
        both_C = (moving_HW & moving_CHW & (screen_HW == others_CHW)).sum((1, 2))
        either_C = (moving_HW | moving_CHW).sum((1, 2))
        return np.where(either_C > 0, both_C / np.maximum(either_C, 1), 1.0)

    def _backgrounds(self, screens_NHW: np.ndarray) -> np.ndarray:
        """Return the number of each screen's background, int64 [N]."""
        return np.array([self._language.background_of(each) for each in screens_NHW], np.int64)

    def _places(self, tokens: Sequence[Token]) -> set[tuple[int, int, int]]:
        """Return (shape, y, x) of every shape on a screen, without its background."""
        first = self._language.first_group
        return {
            (token.shape, token.y + at * run.dy, token.x + at * run.dx)
            for token in tokens
            if token.group >= first
            for run in (self._language.runs[token.run],)
            for at in range(run.length)
        }

    def _weight(self, tokens: Sequence[Token]) -> int:
        shapes = self._language.vocabulary.shapes
        return sum(shapes[shape].size for shape, _, _ in self._places(tokens))

    def _matrix(self, screens: Sequence[Sequence[Token]], *, grow: bool) -> sparse.csr_matrix:
        """Return a matrix whose entry is the square root of a shape's number of pixels, if a screen
        has the shape at the place of the column. `grow`: add columns for new places.
        """
        shapes = self._language.vocabulary.shapes
        values, columns, starts = [], [], [0]
        for tokens in screens:
            for place in self._places(tokens):
                if grow:
                    self._column.setdefault(place, len(self._column))
                if place in self._column:
                    columns.append(self._column[place])
                    values.append(shapes[place[0]].size ** 0.5)
            starts.append(len(columns))
        return sparse.csr_matrix(
            (values, columns, starts), shape=(len(screens), len(self._column)), dtype=np.float32
        )
