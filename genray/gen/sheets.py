"""Draws sheets of small images with a title, a label for each row, captions and marks.

Images are uint8 RGB [H, W, 3], all of one size.
"""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

INK, FAINT, PAPER = "#222222", "#666666", "#ffffff"
MARK = "#D55E00"
"""Okabe and Ito's vermilion, which colour-blind readers can distinguish from grey."""
LEAST_SIDE = 64
"""Least length in pixels of an image's shorter side; smaller images are enlarged by the smallest
whole factor that reaches this length.
"""
_GAP, _EDGE, _BORDER = 8, 12, 3


@dataclass(frozen=True)
class Tile:
    """One image on a sheet."""

    image: np.ndarray
    caption: str = ""
    """One line of text below the image."""
    marked: bool = False
    """Whether the image has a thick coloured border, and its caption the same colour."""


def draw_sheet(
    rows: Sequence[Sequence[Tile]], labels: Sequence[str] = (), title: str = ""
) -> np.ndarray:
    """Draw `rows` of tiles below a `title`, with a label left of each row; uint8 RGB [H, W, 3].

    Captions and labels that are too long are cut; a long title is broken into several lines.
    """
    # Sizes in pixels: of an image, of the captions, of the labels, of the sheet.
    side = min(rows[0][0].image.shape[:2])
    scale = max(1, -(-LEAST_SIDE // side))
    height, width = (scale * each for each in rows[0][0].image.shape[:2])
    small, large = ImageFont.load_default(12), ImageFont.load_default(15)
    caption = 18 if any(tile.caption for row in rows for tile in row) else 0
    left = _EDGE + (max(round(small.getlength(label)) for label in labels) + _GAP if labels else 0)
    left = min(left, 220)
    columns = max(len(row) for row in rows)
    total = max(left + columns * (width + _GAP) - _GAP + _EDGE, 420)
    lines = textwrap.wrap(title, max(20, round(total / 8.2))) if title else []
    top = _EDGE + 20 * len(lines) + (_GAP if lines else 0)
    pitch = height + caption + _GAP
    # Draw the title. Then draw, for each row, its label, and the image and caption of each tile.
    sheet = Image.new("RGB", (total, top + len(rows) * pitch - _GAP + _EDGE), PAPER)
    pen = ImageDraw.Draw(sheet)
    for number, line in enumerate(lines):
        pen.text((_EDGE, _EDGE + 20 * number), line, INK, large)
    for number, row in enumerate(rows):
        y = top + number * pitch
        if labels:
            label = _cut(labels[number], small, left - _EDGE - _GAP)
            pen.text((_EDGE, y + height / 2), label, INK, small, anchor="lm")
        for column, tile in enumerate(row):
            x = left + column * (width + _GAP)
            if tile.marked:
                box = (x - _BORDER, y - _BORDER, x + width + _BORDER - 1, y + height + _BORDER - 1)
                pen.rectangle(box, fill=MARK)
            pixels = tile.image.repeat(scale, axis=0).repeat(scale, axis=1)
            sheet.paste(Image.fromarray(pixels), (x, y))
            text = _cut(tile.caption, small, width + _GAP - 2)
            where = (x + width / 2, y + height + 5)
            pen.text(where, text, MARK if tile.marked else FAINT, small, anchor="mt")
    return np.asarray(sheet)


def _cut(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: float) -> str:
    """Return `text`, with its end replaced by … if it is wider than `width` pixels."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"
