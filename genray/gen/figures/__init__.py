"""Draws figures about optimisation: valley, surface, schedules, gradients by depth, losses, depth,
batches; and about the size of codes.

Every `…_figure` function writes one PNG. A separate function computes the figure's numbers, so
that tests can check them.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from genray.errors import require
from genray.gen.figures.batches import batches_figure
from genray.gen.figures.codes import codes_figure
from genray.gen.figures.depth import depth_figure
from genray.gen.figures.gradients import gradients_figure
from genray.gen.figures.losses import losses_figure
from genray.gen.figures.schedules import schedules_figure
from genray.gen.figures.surface import surface_figure
from genray.gen.figures.valley import valley_figure

FIGURES: dict[str, Callable[[Path, int], Path]] = {
    "valley": valley_figure,
    "surface": surface_figure,
    "schedules": schedules_figure,
    "gradients": gradients_figure,
    "losses": losses_figure,
    "depth": depth_figure,
    "batches": batches_figure,
    "codes": codes_figure,
}
"""Functions that draw a figure, by the figure's name."""


def main_figures(out: Path, names: Sequence[str] = (), seed: int = 0) -> list[Path]:
    """Write the named figures as NAME.png into `out`; returns their paths.

    Without names, all figures are written.

    Raises ConfigError for an unknown name, ResourceError when a file cannot be written.
    """
    for name in names:
        require(name in FIGURES, f"{name}: no such figure; there are {', '.join(FIGURES)}")
    return [FIGURES[name](out / f"{name}.png", seed) for name in dict.fromkeys(names or FIGURES)]
