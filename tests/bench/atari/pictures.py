"""Pictures of a comparison: performance profiles, and the probability of improvement."""

from pathlib import Path

import numpy as np

from tests.bench.atari.report import Comparison
from tests.bench.atari.statistics import profile
from tests.bench.atari.systems import title

COLOURS = ("#1f5fbf", "#bf5f1f", "#3f8f3f", "#8f3f8f", "#666666", "#bfa01f")


def draw_profiles(path: Path, comparison: Comparison, caption: str) -> None:
    """Draw, for each system, the share of runs above each human-normalised score."""
    axes = _axes()
    highest = max(max(runs) for table in comparison.tables.values() for runs in table.values())
    threshold_T = np.linspace(0, max(highest, 0.1) * 1.05, 201)
    for (system, table), colour in zip(comparison.tables.items(), COLOURS * 3):
        found = profile(table, threshold_T)
        axes.plot(threshold_T, found.share_T, color=colour, label=title(system))
        if not np.isnan(found.low_T).any():
            axes.fill_between(
                threshold_T, found.low_T, found.high_T, color=colour, alpha=0.15, linewidth=0
            )
    axes.set(
        title=caption,
        xlabel="human-normalised score τ",
        ylabel="share of runs that score more than τ",
        ylim=(0, 1.02),
        xlim=(0, threshold_T[-1]),
    )
    axes.legend(frameon=False)
    _save(axes, path)


def draw_improvement(path: Path, comparison: Comparison, ours: str, caption: str) -> None:
    """Draw P(a run of `ours` scores more than a run of the other system), with its interval."""
    axes = _axes(height=1.4 + 0.5 * len(comparison.tables))
    found = comparison.improvements(ours)
    for place, estimate in enumerate(found.values()):
        axes.plot(estimate.value, place, "o", color=COLOURS[0])
        axes.hlines(place, estimate.low, estimate.high, color=COLOURS[0], alpha=0.4, linewidth=6)
    axes.axvline(0.5, color="#888888", linestyle=":")
    axes.set(
        title=caption,
        xlabel=f"P({title(ours)} scores more), 95% interval",
        xlim=(0, 1.02),
        ylim=(len(found) - 0.5, -0.5),
        yticks=range(len(found)),
        yticklabels=[title(system) for system in found],
    )
    _save(axes, path)


def _axes(height: float = 4.0):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    _, axes = pyplot.subplots(figsize=(7, height), dpi=120, layout="constrained")
    axes.spines[["top", "right"]].set_visible(False)
    return axes


def _save(axes, path: Path) -> None:
    from matplotlib import pyplot

    path.parent.mkdir(parents=True, exist_ok=True)
    axes.figure.savefig(path)
    pyplot.close(axes.figure)
