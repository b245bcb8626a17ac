"""Draws the report's charts that have one small panel for each arm.

They show learning rates, the best value of the search, learning curves and performance profiles.
"""

import math
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from tuning.report.charts import (
    BAD,
    FAINT,
    GRID,
    PAPER,
    SMALL,
    TUNED,
    UNTUNED,
    WIDE,
    Chart,
    Panel,
    Window,
    log_axis,
)
from tuning.report.comparison import Comparison
from tuning.report.stats import best_so_far, cost, finished, profile

COLOURS = {"default": UNTUNED, "tuned": TUNED}
MAX_PANELS = 24
"""Most panels of one chart."""


def rates_chart(comparison: Comparison) -> Chart | None:
    """Draw the best value against the learning rate, on a logarithmic axis."""
    path = comparison.rate_path()
    rows = [
        row
        for row in finished(comparison.select(phase="search"))
        if _positive(row.params.get(path))
    ]
    if not rows:
        return None
    rates = [float(row.params[path]) for row in rows]
    window = _common_window(comparison)
    span = min(rates) / 1.6, max(rates) * 1.6
    arms = [arm for arm in comparison.ranked if any(row.arm == arm for row in rows)][:MAX_PANELS]
    return Chart(
        name="learning-rates",
        about="Best of each search trial against its learning rate.",
        x="learning rate η (log axis)",
        y=comparison.metric_label,
        panels=[
            Panel(title=arm, draw=partial(_draw_rates, comparison, path, window, span, arm))
            for arm in arms
        ],
        size=_size(arms),
    )


def _draw_rates(
    comparison: Comparison,
    path: str,
    window: Window,
    span: tuple[float, float],
    arm: str,
    axis: Axes,
) -> None:
    log_axis(axis, *span)
    window.apply(axis, "y")
    line = comparison.find(arm, "default")
    if line is not None and math.isfinite(line.best.median):
        value = comparison.metric_of(line.best.median)
        axis.axhline(window.clip(value), color=UNTUNED, linewidth=1.1, linestyle=(0, (4, 2)))
    # Failed trials are crosses, and trials outside the window are triangles at its bad edge.
    chosen = comparison.chosen(arm)
    for row in finished(comparison.select(arm, "search")):
        if not _positive(row.params.get(path)):
            continue
        rate = float(row.params[path])
        if not math.isfinite(cost(row)):
            axis.plot(
                rate,
                window.bad_edge,
                "x",
                color=BAD,
                markersize=4.5,
                markeredgewidth=1.1,
                clip_on=False,
            )
            continue
        assert row.best is not None
        is_chosen = chosen is not None and row.trial == chosen.trial
        if window.holds(row.best):
            face = TUNED if is_chosen else PAPER
            size = 5.0 if is_chosen else 3.4
            axis.plot(
                rate,
                row.best,
                "o",
                color=TUNED,
                markerfacecolor=face,
                markersize=size,
                markeredgewidth=0.9,
            )
        else:
            mark = "^" if comparison.mode == "min" else "v"
            axis.plot(
                rate,
                window.bad_edge,
                mark,
                color=TUNED,
                markerfacecolor=PAPER,
                markersize=3.6,
                clip_on=False,
            )


def search_chart(comparison: Comparison) -> Chart | None:
    """Draw the best value so far against the number of trials, over all orders of the trials. One
    arm is in colour, the others grey behind it.
    """
    curves = {}
    for arm in comparison.ranked:
        costs = [cost(row) for row in finished(comparison.select(arm, "search"))]
        if len(costs) >= 2 and any(map(math.isfinite, costs)):
            curves[arm] = best_so_far(costs)
    if not curves:
        return None
    window = _common_window(comparison)

    def draw(arm: str, axis: Axes) -> None:
        def clipped(costs: Sequence[float]) -> list[float]:
            return [window.clip(comparison.metric_of(value)) for value in costs]

        # The other arms, in grey.
        for other, curve in curves.items():
            if other != arm:
                axis.plot(
                    range(1, len(curve.median) + 1),
                    clipped(curve.median),
                    color=GRID,
                    linewidth=0.9,
                )
        # This arm: median and quartiles, and the median of its default runs.
        own = curves[arm]
        n = range(1, len(own.median) + 1)
        axis.fill_between(
            n, clipped(own.low), clipped(own.high), color=TUNED, alpha=0.18, linewidth=0
        )
        axis.plot(n, clipped(own.median), color=TUNED, linewidth=1.6)
        line = comparison.find(arm, "default")
        if line is not None and math.isfinite(line.best.median):
            value = window.clip(comparison.metric_of(line.best.median))
            axis.axhline(value, color=UNTUNED, linewidth=1.1, linestyle=(0, (4, 2)))
        window.apply(axis, "y")
        longest = max(len(curve.median) for curve in curves.values())
        axis.set_xlim(1, longest)
        axis.xaxis.set_major_locator(MaxNLocator(4, integer=True))

    arms = list(curves)[:MAX_PANELS]
    return Chart(
        name="best-so-far",
        about="Best of the first n search trials, median and quartiles over all orders of the "
        "trials.",
        x="search trials",
        y=comparison.metric_label,
        panels=[Panel(title=arm, draw=partial(draw, arm)) for arm in arms],
        size=_size(arms),
    )


def curves_chart(comparison: Comparison) -> Chart | None:
    """Draw the metric against steps, for every seed of default and tuned runs."""
    phases = [phase for phase in ("default", "tuned") if comparison.select(phase=phase)]
    rows = [
        row for phase in phases for row in comparison.select(phase=phase) if len(row.curve) >= 2
    ]
    if not rows:
        return None
    ends = [value for row in rows for _, _, value in row.curve[len(row.curve) // 4 :]]
    window, last = Window.of(ends, comparison.mode), max(row.curve[-1][0] for row in rows)
    first = min(row.curve[0][0] for row in rows)
    first = 0 if first < last / 2 else first  # of several stages, only the last one is compared

    def draw(arm: str, axis: Axes) -> None:
        # The target, and one line for each seed. A cross marks a diverged run.
        if comparison.target is not None:
            axis.axhline(
                window.clip(comparison.metric_of(comparison.target)),
                color=FAINT,
                linewidth=0.8,
                linestyle=(0, (2, 2)),
            )
        for row in rows:
            if row.arm == arm:
                steps = [step for step, _, _ in row.curve]
                # Curves are cut a little beyond the window, so that no line follows the window's
                # edge.
                margin = 10 * (window.high - window.low)
                values = [
                    min(max(value, window.low - margin), window.high + margin)
                    for _, _, value in row.curve
                ]
                style = (0, (3, 1.2)) if row.phase == "default" else "-"
                axis.plot(steps, values, color=COLOURS[row.phase], linewidth=0.9, linestyle=style)
                if row.status == "diverged":
                    axis.plot(
                        steps[-1],
                        window.clip(values[-1]),
                        "x",
                        color=BAD,
                        markersize=5,
                        markeredgewidth=1.2,
                        clip_on=False,
                    )
        window.apply(axis, "y")
        axis.set_xlim(first, last)
        axis.xaxis.set_major_locator(MaxNLocator(3, integer=True))

    arms = [arm for arm in comparison.ranked if any(row.arm == arm for row in rows)][:MAX_PANELS]
    return Chart(
        name="curves",
        about="The metric at each evaluation on the validation split, one line for each seed.",
        x="training steps",
        y=comparison.metric_label,
        panels=[Panel(title=arm, draw=partial(draw, arm)) for arm in arms],
        size=_size(arms),
    )


def profile_chart(ratios: Mapping[str, Sequence[float]], problems: str = "seeds") -> Chart | None:
    """Draw the share of problems in which an arm reached the target within τ times the steps of the
    fastest arm.

    `ratios`: arm → its steps divided by the fastest arm's, for each problem; ∞ for a miss.
    """
    ratios = {arm: each for arm, each in ratios.items() if each}
    finite = [ratio for each in ratios.values() for ratio in each if math.isfinite(ratio)]
    if not finite:
        return None
    last = max(2.0, max(finite) * 1.15)
    at = np.geomspace(1, last, 200)

    def draw(arm: str, axis: Axes) -> None:
        log_axis(axis, 1, last)
        ticks = [tick for tick in (1, 2, 5, 10, 20, 50, 100, 200, 500) if tick <= last]
        axis.set_xticks(
            ticks[:: math.ceil(len(ticks) / 4)],
            [f"{tick}" for tick in ticks[:: math.ceil(len(ticks) / 4)]],
        )
        for other, each in ratios.items():
            if other != arm:
                axis.step(at, profile(each, at), color=GRID, linewidth=0.9, where="post")
        axis.step(
            at, profile(ratios[arm], at), color=TUNED, linewidth=1.7, where="post", clip_on=False
        )
        axis.set_ylim(0, 1.02)
        axis.set_yticks([0, 0.5, 1], ["0", "½", "1"])
        axis.yaxis.grid(True)

    arms = list(ratios)[:MAX_PANELS]
    return Chart(
        name="profile",
        about=f"Share of {problems} in which the arm reached the target within τ times the steps "
        "of the fastest arm.",
        x="τ: steps to the target / steps of the fastest arm (log axis)",
        y=f"share of {problems}",
        panels=[Panel(title=arm, draw=partial(draw, arm)) for arm in arms],
        size=_size(arms),
    )


# -- helpers ---------------------------------------------------------------------------------------


def _common_window(comparison: Comparison) -> Window:
    """Return one range of the metric for every panel of the search."""
    values = [
        row.best for row in finished(comparison.select(phase="search")) if math.isfinite(cost(row))
    ]
    values += [comparison.metric_of(line.best.median) for line in comparison.lines]
    return Window.of([value for value in values if value is not None], comparison.mode)


def _size(arms: Sequence[str]) -> tuple[float, float]:
    return WIDE if len(arms) == 1 else SMALL


def _positive(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0
