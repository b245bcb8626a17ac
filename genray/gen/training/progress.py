"""Keeps samples of every epoch, and draws how the samples and the losses of a run changed.

RUN/pictures/
  epoch-000540.png   16 images of fixed latents, after step 540; one file for each epoch
  progress.png       10 moments of the run (rows) x 6 fixed latents (columns)
  losses.png         the task's `curves` against the epoch

The two sheets are drawn from files of the run directory alone, so a resumed run draws the sheets of
an uninterrupted one.
"""

import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from genray.gen.sheets import Tile, draw_sheet
from genray.gen.training.fit import Fit
from genray.media import contact_sheet, write_png
from genray.runs.rundir import RunDir

MOMENTS, LATENTS = 10, 6
"""Rows and columns of progress.png."""
COLUMNS = 4
"""Columns of the pictures of an epoch."""
MOST_EPOCHS = 200
"""A longer run keeps only every n-th epoch, so that it has at most this number of pictures."""
REFRESH_S = 60.0
"""Seconds between two drawings of the sheets, which take less than a second together."""


class Progress:
    """Keeps the samples of one run, if its task has `progress_images`, and draws both sheets.

    Args:
        fit: the training loop. A task with several stages gets no sheets.
        run: the run directory. The methods raise ResourceError if it cannot be written.
    """

    def __init__(self, fit: Fit, run: RunDir):
        self._fit, self._run = fit, run
        self._single = len(fit.task.stages) == 1
        self._drawn_at = time.monotonic()

    def is_due(self, epoch: float, last: bool) -> bool:
        """Whether the samples after `epoch` passes over the data are kept. The last ones are."""
        an_epoch = self._fit.steps_an_epoch(len(self._fit.train))
        every = -(-self._fit.total_steps() // (an_epoch * MOST_EPOCHS))
        return self._single and (last or (epoch.is_integer() and epoch % every == 0))

    def keep(self) -> None:
        """Write the samples of this step."""
        images = self._fit.progress_images() if self._single else None
        if images is not None:
            path = self._run.pictures / f"epoch-{self._fit.step:06d}.png"
            write_png(path, contact_sheet(list(images), COLUMNS, gap=0))

    def draw(self, now: bool = False) -> None:
        """Draw both sheets, if `now` or after REFRESH_S seconds without a drawing."""
        if not self._single or (not now and time.monotonic() - self._drawn_at < REFRESH_S):
            return
        name = self._fit.whole_data.name
        moments = self._moments()
        if len(moments) > 1:
            of = self._fit.task.progress_of
            sheet = progress_sheet(moments, f"{name}: the same {LATENTS} {of} during training")
            write_png(self._run.pictures / "progress.png", sheet)
        if self._fit.task.curves:
            log = read_log(self._run.path / "metrics.jsonl")
            draw_curves(self._run.pictures / "losses.png", log, self._fit.task.curves, name)
        self._drawn_at = time.monotonic()

    def _moments(self) -> list[tuple[float, list[np.ndarray]]]:
        """Return the kept epochs and their images, up to the current step."""
        side = self._fit.whole_data.shape[-2:]
        an_epoch = self._fit.steps_an_epoch(len(self._fit.train))
        steps = {
            int(number): path
            for path in self._run.pictures.glob("epoch-*.png")
            if (number := path.stem.removeprefix("epoch-")).isdecimal()
        }
        kept = sorted(step for step in steps if step <= self._fit.step)
        return [
            (step / an_epoch, _tiles(steps[step], *side)) for step in evenly_spaced(kept, MOMENTS)
        ]


def evenly_spaced(items: Sequence[int], count: int) -> list[int]:
    """Return `count` of the items, evenly spaced, with the first and the last; all if fewer."""
    if len(items) <= count:
        return list(items)
    return [items[round(at)] for at in np.linspace(0, len(items) - 1, count)]


def _tiles(path: Path, height: int, width: int) -> list[np.ndarray]:
    """Read the images of an epoch, uint8 RGB [height, width, 3] each, row by row."""
    with Image.open(path) as file:
        grid = np.asarray(file.convert("RGB"))
    return [
        grid[top : top + height, left : left + width]
        for top in range(0, grid.shape[0], height)
        for left in range(0, grid.shape[1], width)
    ]


def progress_sheet(
    moments: Sequence[tuple[float, Sequence[np.ndarray]]], title: str = ""
) -> np.ndarray:
    """Draw a row of LATENTS images for each moment, labelled with its epoch; uint8 RGB [H, W, 3].

    Each moment is an epoch and images uint8 RGB [H, W, 3] of the same latents.
    """
    rows = [[Tile(image) for image in images[:LATENTS]] for _, images in moments]
    labels = ["untrained" if not epoch else f"epoch {epoch:.4g}" for epoch, _ in moments]
    return draw_sheet(rows, labels, title)


def read_log(path: Path) -> list[dict[str, float]]:
    """Return the lines of metrics.jsonl; an incomplete last line is left out."""
    lines = path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else []
    return [json.loads(line) for line in lines]


def draw_curves(
    path: Path,
    log: Sequence[dict[str, float]],
    curves: Sequence[tuple[str, Sequence[str]]],
    title: str = "",
) -> None:
    """Draw one diagram for each axis of `curves` against the epoch, as a PNG.

    A thin line has every logged value, and a thick line their running mean over a 25th of the run.

    Args:
        path: the file, which is replaced.
        log: lines of metrics.jsonl, each with `epoch` and some of the curves' values.
        curves: the label of each vertical axis, and the names of the values on this axis. An axis
            whose label contains "accuracy" shows 0..1, with a dashed line at ½.
        title: the beginning of the title, such as the name of the data.
    """
    # Matplotlib takes half a second to import, which only a run that draws curves should need.
    from genray.gen.figures.drawing import COLOURS, new_figure, style_axes, write_figure

    figure = new_figure(5.2 * len(curves), 3.6)
    for axis, (label, names) in zip(np.atleast_1d(figure.subplots(1, len(curves))), curves):
        for name, colour in zip(names, COLOURS):
            points = [(line["epoch"], line[name]) for line in log if {name, "epoch"} <= line.keys()]
            if points:
                at, values = np.array(points).T
                axis.plot(at, values, color=colour, linewidth=0.7, alpha=0.35)
                axis.plot(at, _smooth(values), color=colour, label=name.replace("_", " "))
        if "accuracy" in label:
            axis.set_ylim(0, 1)
            axis.axhline(0.5, color="#8a8a8a", linestyle="--", linewidth=1)
        axis.set(xlabel="epoch", ylabel=label, title=f"{title}: {label}" if title else label)
        if axis.lines:
            axis.legend(frameon=False)
        style_axes(axis, grid=True)
    write_figure(figure, path)


def _smooth(values: np.ndarray) -> np.ndarray:
    """Return the running mean over a 25th of the values, with shorter windows at both ends."""
    half = len(values) // 50
    sums = np.concatenate([[0.0], np.cumsum(values)])
    at = np.arange(len(values))
    low, high = np.maximum(at - half, 0), np.minimum(at + half + 1, len(values))
    return (sums[high] - sums[low]) / (high - low)
