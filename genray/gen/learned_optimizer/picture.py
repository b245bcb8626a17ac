"""Draws the values of held-out functions along the paths of a learned optimizer and known rules."""

from collections.abc import Sequence

import numpy as np

from genray.gen.figures.drawing import (
    COLOURS,
    FAINT,
    figure_pixels,
    new_figure,
    style_axes,
    write_title,
)
from genray.gen.learned_optimizer.evaluation import MOST, Comparison


def draw_comparisons(
    comparisons: Sequence[Comparison], title: str = "", below: str = ""
) -> np.ndarray:
    """Draw one diagram for each comparison, uint8 RGB [H, W, 3].

    A line is the mean over the functions, and its band holds 10 to 90% of them. Learned optimizers
    have thick lines and bands; of known rules only the best has a band.
    """
    columns = min(4, len(comparisons))
    rows = -(-len(comparisons) // columns)
    figure = new_figure(3.3 + 4.0 * columns, 1.0 + 3.5 * rows)
    axes = np.atleast_1d(figure.subplots(rows, columns)).ravel()
    for axis in axes[len(comparisons) :]:
        axis.set_visible(False)
    for axis, comparison in zip(axes, comparisons):
        colours = iter(COLOURS)
        best = comparison.best_rule() if comparison.tuned else ""
        for name, values_SP in comparison.curves.items():
            steps, colour = np.arange(len(values_SP)), next(colours)
            known = name in comparison.tuned
            label = f"{name} ({comparison.tuned[name]})" if known else name
            axis.plot(
                steps, values_SP.mean(1), color=colour, label=label, linewidth=1.2 if known else 2.4
            )
            if not known or name == best:
                low, high = np.quantile(values_SP, (0.1, 0.9), axis=1)
                axis.fill_between(steps, low, high, color=colour, alpha=0.15, linewidth=0)
        axis.set_title(comparison.setting.name, fontsize=11, loc="left")
        axis.set(xlabel="step", yscale="log")
        # A curve that diverges must not hide the others.
        means = np.concatenate([each.mean(1) for each in comparison.curves.values()])
        first = max(each[0].mean() for each in comparison.curves.values())
        axis.set_ylim(max(means.min() / 3, 1e-6), min(3 * first, MOST))
        # The legend is in the upper right corner, or in the lower left one if curves need that.
        bottom, top = axis.get_ylim()
        late = max(each[len(each) // 2 :].mean(1).max() for each in comparison.curves.values())
        free = late < bottom * (top / bottom) ** 0.65
        axis.legend(
            frameon=False,
            fontsize=7.5,
            labelcolor=FAINT,
            loc="upper right" if free else "lower left",
        )
        style_axes(axis, grid=True)
    axes[0].set_ylabel("value of the function")
    if title:
        write_title(figure, title, below)
    return figure_pixels(figure)
