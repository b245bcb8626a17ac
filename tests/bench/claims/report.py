"""What the runs of `bench_claims` say: rows of a table, and three pictures."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.bench.atari.statistics import improvement, median_or_missed
from tests.bench.claims.tabular import MEAN_REWARD, OPTIMAL_LEFT, Learned
from tests.bench.claims.variants import TASKS

Points = Sequence[dict[str, Any]]
"""The measurements of a run, in the order of training."""
LAST = 3
"""A run's score is the mean of this many last measurements."""
COLOURS = {
    "vanilla": "#666666",
    "double": "#1f5fbf",
    "prioritized": "#bf5f1f",
    "dueling": "#3f8f3f",
    "all": "#8f3f8f",
}


def final_score(points: Points) -> float:
    """Return the mean score of the last measurements."""
    return float(np.mean([point["score"] for point in points[-LAST:]]))


def updates_to(points: Points, target: float) -> int | None:
    """Return the updates at the first measurement that reaches the target; None: never."""
    return next((point["updates"] for point in points if point["score"] >= target), None)


def overestimation(points: Points) -> float:
    """Return mean max Q − realised return, over the second half of the measurements."""
    half = [point for point in points[len(points) // 2 :] if point["q"] is not None]
    return float(np.mean([point["q"] - point["realised"] for point in half]))


def rows(task: str, runs: Mapping[str, Sequence[Points]]) -> list[tuple[str, ...]]:
    """Return a row for each variant: score, updates to the target and overestimation, each beside
    the probability that a run of the variant does better than a run of vanilla.
    """
    return [
        (
            variant,
            str(len(chosen)),
            _range(figures["score"], "{:.3g}"),
            _better(runs, variant, final_score),
            _updates(figures["updates"]),
            _better(runs, variant, lambda points: -_reached(task, points)),
            _range(figures["overestimation"], "{:+.3f}"),
            _better(runs, variant, lambda points: -overestimation(points)),
        )
        for variant, chosen in runs.items()
        for figures in [figures_of(task, chosen)]
    ]


def figures_of(task: str, runs: Sequence[Points]) -> dict[str, list[Any]]:
    """Return the figures of a variant's runs, one value a run."""
    return {
        "score": [final_score(points) for points in runs],
        "updates": [updates_to(points, TASKS[task].target) for points in runs],
        "overestimation": [overestimation(points) for points in runs],
    }


def _reached(task: str, points: Points) -> float:
    updates = updates_to(points, TASKS[task].target)
    return 1e12 if updates is None else updates  # two misses are a tie


def _better(runs: Mapping[str, Sequence[Points]], variant: str, value: Any) -> str:
    if variant == "vanilla" or "vanilla" not in runs:
        return "–"
    ours, theirs = ([value(points) for points in runs[name]] for name in (variant, "vanilla"))
    found = improvement({"game": ours}, {"game": theirs})
    return f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}]"


def _range(values: Sequence[float], form: str) -> str:
    low, middle, high = (form.format(f(values)) for f in (min, np.mean, max))
    return f"{middle} ({low} to {high})"


def _updates(values: Sequence[int | None]) -> str:
    missed = sum(value is None for value in values)
    middle = median_or_missed(values)
    text = "∞" if np.isinf(middle) else f"{middle:,.0f}"
    return text + (f" ({missed} missed)" if missed else "")


def draw_values(path: Path, runs: Mapping[str, Mapping[str, Sequence[Points]]]) -> None:
    """Draw mean max Q (solid) and the realised return (dashed) of each variant, a row for each
    game; lines are means of the runs, and bands their range.
    """
    figure, grid = _figure(len(runs), max(len(variants) for variants in runs.values()))
    for row, (task, variants) in enumerate(runs.items()):
        for axes, (variant, chosen) in zip(grid[row], variants.items()):
            for key, style, label in (("q", "-", "max Q"), ("realised", "--", "realised return")):
                colour = COLOURS[variant] if key == "q" else "#000000"
                _curve(axes, chosen, key, colour, style, label)
            axes.set_title(f"{task}: {variant}", fontsize=9)
            axes.set_xlabel("updates")
        grid[row][0].set_ylabel("discounted return")
        grid[row][0].legend(frameon=False, fontsize=8)
    _save(figure, path)


def draw_scores(path: Path, runs: Mapping[str, Mapping[str, Sequence[Points]]]) -> None:
    """Draw the score of each variant against updates, a panel for each game."""
    figure, grid = _figure(1, len(runs), width=4.5, height=3.6)
    for axes, (task, variants) in zip(grid[0], runs.items()):
        for variant, chosen in variants.items():
            _curve(axes, chosen, "score", COLOURS[variant], "-", variant)
        axes.axhline(TASKS[task].target, color="#888888", linestyle=":", label="target")
        axes.set(title=task, xlabel="updates", ylabel="score")
        axes.legend(frameon=False, fontsize=8)
    _save(figure, path)


def draw_tabular(path: Path, single: Learned, double: Learned) -> None:
    """Draw what Q-learning and double Q-learning with tables do and believe."""
    figure, ((left, right),) = _figure(1, 2, width=4.0, height=3.2)
    for axes, name, truth, label in (
        (left, "left", OPTIMAL_LEFT, "best possible"),
        (right, "value_B", MEAN_REWARD, "true value"),
    ):
        axes.plot(getattr(single, name), color=COLOURS["vanilla"], label="Q-learning")
        axes.plot(getattr(double, name), color=COLOURS["double"], label="double Q-learning")
        axes.axhline(truth, color="#000000", linestyle=":", label=label)
        axes.set_xlabel("episode")
        axes.legend(frameon=False, fontsize=8)
    left.set(title="share of the wrong action", ylim=(0, 1))
    right.set(title="value of the state behind it")
    _save(figure, path)


def _curve(axes: Any, runs: Sequence[Points], key: str, colour: str, style: str, label: str):
    # The runs of a variant are measured at the same agent steps, hence at the same updates.
    count = min(len(points) for points in runs)
    updates = [point["updates"] for point in runs[0][:count]]
    values = np.array([[point[key] for point in points[:count]] for points in runs], float)
    axes.plot(updates, values.mean(axis=0), color=colour, linestyle=style, label=label)
    axes.fill_between(
        updates, values.min(axis=0), values.max(axis=0), color=colour, alpha=0.15, linewidth=0
    )
    axes.spines[["top", "right"]].set_visible(False)


def _figure(rows: int, columns: int, width: float = 2.4, height: float = 2.4):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    size = (width * columns, height * rows)
    return pyplot.subplots(
        rows, columns, figsize=size, dpi=120, layout="constrained", squeeze=False,
        sharey="row" if rows > 1 or columns > 2 else False,
    )  # fmt: skip


def _save(figure: Any, path: Path) -> None:
    from matplotlib import pyplot

    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    pyplot.close(figure)
