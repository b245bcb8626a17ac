"""Draws every learning-rate schedule over the updates of a run."""

from pathlib import Path

import numpy as np

from genray.gen.figures.drawing import COLOURS, new_figure, style_axes, write_figure, write_title
from genray.gen.training.schedules import SCHEDULES, factor


def schedules_figure(path: Path, seed: int = 0, total: int = 300, warmup: int = 15) -> Path:
    """Draw every schedule over `total` updates, on a linear and on a logarithmic scale."""
    figure = new_figure(12, 4.6)
    plain, logarithmic = figure.subplots(1, 2)
    updates = np.arange(total)
    for name, colour in zip(SCHEDULES, COLOURS):
        label = {"inverse-sqrt": "inverse-sqrt: η/√(t+1)"}.get(name, name)
        values = [factor(name, int(update), total) for update in updates]
        for axis in (plain, logarithmic):
            axis.plot(updates, values, color=colour, linewidth=1.8, label=label)
    begin = [factor("cosine", int(update), total, warmup=warmup) for update in updates]
    for axis in (plain, logarithmic):
        axis.plot(
            updates,
            begin,
            "--",
            color=COLOURS[2],
            linewidth=1.2,
            label=f"cosine, warm-up of {warmup}",
        )
        axis.set_xlabel("update t")
        axis.set_xlim(0, total)
        style_axes(axis, grid=True)
    plain.set_ylabel("learning rate / η")
    logarithmic.set(yscale="log", ylim=(3e-4, 1.5))
    logarithmic.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1.0, 0.5))
    write_title(
        figure, "Learning-rate schedules", f"over {total} updates; left linear, right logarithmic"
    )
    return write_figure(figure, path)
