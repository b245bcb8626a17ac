"""Tests sheets of images: sizes, labels, captions and marks."""

import numpy as np
import pytest

from genray.commands.anomalies import _worst_sheet
from genray.commands.codes import _neighbours_sheet
from genray.gen.data.types import Split
from genray.gen.sheets import LEAST_SIDE, MARK, Tile, draw_sheet

GREEN = (0, 200, 0)


def count(sheet: np.ndarray, colour: tuple[int, int, int]) -> int:
    return int((sheet == np.array(colour)).all(2).sum())


def green(side: int = 8, **options) -> Tile:
    return Tile(np.broadcast_to(np.array(GREEN, np.uint8), (side, side, 3)).copy(), **options)


def marked(sheet: np.ndarray) -> int:
    return count(sheet, tuple(int(MARK[at : at + 2], 16) for at in (1, 3, 5)))  # type: ignore[arg-type]


def test_draw_sheet_enlarges_small_images_whole_and_labels_them():
    bare = draw_sheet([[green()] * 3] * 2)
    assert count(bare, GREEN) == 6 * LEAST_SIDE**2
    labelled = draw_sheet(
        [[green(caption="0.5")] * 3] * 2, ["original", "reconstruction"], "What this is"
    )
    assert count(labelled, GREEN) == 6 * LEAST_SIDE**2 and labelled.shape[0] > bare.shape[0]
    ink = (labelled < 128).all(2)
    assert ink[:40].any(), "a title above"
    assert ink[40:, :60].any(), "labels to the left"
    assert count(draw_sheet([[green(side=100)]]), GREEN) == 100**2, "large ones as they are"


def test_draw_sheet_marks_a_tile_by_a_border_around_it():
    assert marked(draw_sheet([[green(), green()]])) == 0
    border = marked(draw_sheet([[green(marked=True), green()]]))
    assert border == (LEAST_SIDE + 6) ** 2 - LEAST_SIDE**2


@pytest.mark.parametrize("long", ["caption " * 50, "…"])
def test_draw_sheet_cuts_captions_to_the_width(long):
    assert (
        draw_sheet([[green(caption=long)]]).shape[1] == draw_sheet([[green(caption="a")]]).shape[1]
    )


def split(rows: int, label: list[int] | None = None) -> Split:
    import torch

    values = torch.linspace(0, 1, rows)[:, None, None, None].expand(rows, 1, 8, 8).contiguous()
    return Split(values, None if label is None else torch.tensor(label), 0.0, 1.0)


def test_neighbours_sheet_marks_every_query():
    border = (LEAST_SIDE + 6) ** 2 - LEAST_SIDE**2
    rows, distances = np.array([[0, 1], [2, 3]]), np.array([[0.1, 0.2], [0.3, 0.4]])
    sheet = _neighbours_sheet(
        split(2, [0, 1]), split(4, [0, 0, 1, 1]), ("a", "b"), rows, distances, "euclidean"
    )
    assert 2 * border <= marked(sheet) < 2.2 * border  # and the captions of the queries


def test_neighbours_sheet_labels_rows_by_code_and_by_pixels():
    rows, distances = np.array([[0, 1], [2, 3]]), np.array([[0.1, 0.2], [0.3, 0.4]])
    both = split(2, [0, 1]), split(4, [0, 0, 1, 1]), ("a", "b"), rows, distances, "euclidean"
    plain, labelled = _neighbours_sheet(*both), _neighbours_sheet(*both, ["by code", "by pixels"])
    assert marked(labelled) == marked(plain) and not np.array_equal(labelled, plain)


def test_anomalies_sheet_marks_the_class_without():
    border = (LEAST_SIDE + 6) ** 2 - LEAST_SIDE**2
    errors = [np.arange(30) / 100, np.array([0.5, 0.0, 0.6])]
    sheet = _worst_sheet((split(30), split(3)), errors, most=20)
    assert 2 * border <= marked(sheet) < 2.2 * border
