"""Helpers for all figures: colours, titles, axes, the training rows of digits, the PNG file."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from genray.media import write_png

# Okabe and Ito's colours, which colour-blind readers can distinguish.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
INK, FAINT = "#222222", "#8a8a8a"


def digits() -> tuple[Tensor, Tensor]:
    """Return the training rows of digits: float32 [1297, 64] in 0..1, and labels int64 [1297]."""
    from genray.gen.data.config import DataConfig
    from genray.gen.data.load import load_data

    train = load_data(DataConfig(validation=0.0)).train
    assert train.label is not None
    return train.all().flatten(1), train.label


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of `width` x `height` inches."""
    # pyplot is not used: it keeps every figure in a global list, and may need a display.
    return Figure(figsize=(width, height), dpi=110, layout="constrained", facecolor="white")


def style_axes(axis: Axes, grid: bool = False) -> None:
    """Remove the top and right borders, and draw a faint grid behind the curves if `grid`."""
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axis.spines[side].set_color("#b0b0b0")
    axis.tick_params(colors=INK, labelsize=9, color="#b0b0b0")
    if grid:
        axis.grid(True, color="#e6e6e6", linewidth=0.7)
        axis.set_axisbelow(True)


def write_title(figure: Figure, title: str, below: str) -> None:
    """Write a title and a line below it at the top left, and reserve space above the axes."""
    inches = figure.get_figheight()
    figure.get_layout_engine().set(rect=(0, 0, 1, 1 - 0.62 / inches))  # type: ignore[union-attr, call-arg]
    figure.text(0.01, 1 - 0.08 / inches, title, va="top", fontsize=14, fontweight="bold", color=INK)
    figure.text(0.01, 1 - 0.36 / inches, below, va="top", fontsize=9.5, color="#555555")


def figure_pixels(figure: Figure) -> np.ndarray:
    """Return the figure as a picture, uint8 RGB [H, W, 3]."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]


def write_figure(figure: Figure, path: Path) -> Path:
    """Write the figure as a PNG, atomically, and return the path."""
    return write_png(path, figure_pixels(figure))
