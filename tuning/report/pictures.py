"""Draws the report's larger charts: arms, effects, parameters."""

import math
from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
from matplotlib.axes import Axes

from tuning.report.charts import BAD, FAINT, INK, PAPER, TUNED, UNTUNED, WIDE, Chart, Panel, Window
from tuning.report.comparison import Comparison, readable
from tuning.report.importance import coordinates, varied
from tuning.report.stats import Estimate, cost, finished
from tuning.trials import TrialRow

COLOURS = {"default": UNTUNED, "tuned": TUNED, "search": TUNED}
MARKERS = {"default": "D", "tuned": "o", "search": "o"}


# -- arms ------------------------------------------------------------------------------------------


def arms_chart(comparison: Comparison, test: bool = False) -> Chart | None:
    """Draw medians and intervals, one row for each arm; the seeds are small marks."""
    # Without seeds, the median of a search describes its space more than the arm.
    if comparison.ranking_phase == "search":
        return None
    window = _arms_window(comparison, test)
    if window is None:
        return None
    what = readable(comparison.test_metric) if test else readable(comparison.metric)
    split = "test" if test else "validation"
    better = "lower" if comparison.mode == "min" else "higher"
    height = max(1.5, 0.27 * len(comparison.ranked) + 0.75)
    return Chart(
        name=f"arms-{split}",
        about=f"{what.capitalize()} on the {split} split: medians over seeds with their intervals, "
        "one row for each arm.",
        x=f"{what}{', test split' if test else ''} ({better} is better)",
        y="",
        panels=[Panel(title="", draw=partial(_draw_arms, comparison, window, test))],
        size=(WIDE[0], height),
    )


def _arms_window(comparison: Comparison, test: bool) -> Window | None:
    """Choose the displayed range: wide enough for the ranked phase, and for values of the other
    phase that are not far outside. Close values thus stay distinguishable, and an arrow with the
    value marks each value outside. None if there is nothing to show.
    """
    found = {
        phase: [
            line.test if test else line.best for line in comparison.lines if line.phase == phase
        ]
        for phase in comparison.phases
    }
    if not any(each.count for estimates in found.values() for each in estimates):
        return None
    ends = [
        value
        for each in found[comparison.ranking_phase]
        for value in (each.low, each.median, each.high)
    ]
    ranking_phase = Window.of([comparison.metric_of(value) for value in ends], comparison.mode)
    good_edge = ranking_phase.low if comparison.mode == "min" else ranking_phase.high
    near = [
        value
        for estimates in found.values()
        for each in estimates
        if abs((value := comparison.metric_of(each.median)) - good_edge)
        <= 2 * (ranking_phase.high - ranking_phase.low)
    ]
    inside = [
        comparison.metric_of(value)
        for value in ends
        if ranking_phase.holds(comparison.metric_of(value))
    ]
    values = [*near, *inside]
    return Window.of(values, comparison.mode, share=1.0) if values else ranking_phase


def _draw_arms(comparison: Comparison, window: Window, test: bool, axis: Axes) -> None:
    arms = comparison.ranked[::-1]
    phases = [phase for phase in comparison.phases if phase != "search"] or ["search"]
    if comparison.target is not None and not test:
        target = comparison.metric_of(comparison.target)
        if window.holds(target):
            axis.axvline(target, color=FAINT, linewidth=0.8, linestyle=(0, (2, 2)))
    for number, phase in enumerate(phases):
        shift = 0.0 if len(phases) == 1 else 0.17 - 0.34 * number
        for place, arm in enumerate(arms):
            line = comparison.find(arm, phase)
            found = None if line is None else line.test if test else line.best
            if found is not None and found.count:
                values = comparison.by_seed(arm, phase, test).values()
                _draw_estimate(axis, comparison, window, found, list(values), place + shift, phase)
    axis.set_yticks(range(len(arms)), arms)
    axis.tick_params(axis="y", length=0)
    axis.set_ylim(-0.6, len(arms) - 0.4)
    window.apply(axis, "x")
    axis.spines["left"].set_visible(False)
    if len(phases) > 1:
        _legend(axis, phases)


def _draw_estimate(
    axis: Axes,
    comparison: Comparison,
    window: Window,
    found: Estimate,
    costs: Sequence[float],
    y: float,
    phase: str,
) -> None:
    colour = COLOURS[phase]
    low, high = (window.clip(value) for value in comparison.interval(found))
    seeds = [comparison.metric_of(value) for value in costs]
    middle = comparison.metric_of(found.median)
    if found.count > 1 and (low < high or window.holds(low)):
        axis.plot([low, high], [y, y], color=colour, linewidth=1.6, solid_capstyle="round")
    inside = [value for value in seeds if window.holds(value)]
    axis.plot(inside, [y] * len(inside), "|", color=colour, markersize=4.5, markeredgewidth=0.8)
    if window.holds(middle):
        face = PAPER if phase == "default" else colour
        axis.plot(
            middle,
            y,
            MARKERS[phase],
            markersize=4.6,
            markerfacecolor=face,
            markeredgecolor=colour,
            clip_on=False,
        )
    elif math.isfinite(middle):  # outside the window: an arrow on its edge, with the value
        lower = comparison.mode == "min"
        axis.plot(
            window.bad_edge, y, ">" if lower else "<", markersize=4.5, color=colour, clip_on=False
        )
        place, side = (-5 if lower else 5, 0), "right" if lower else "left"
        axis.annotate(
            f"{middle:.3g}",
            (window.bad_edge, y),
            place,
            textcoords="offset points",
            ha=side,
            va="center",
            color=colour,
            fontsize=7.5,
        )
    else:  # more than half of the seeds have no result
        axis.plot(window.bad_edge, y, "X", markersize=5, color=BAD, clip_on=False)


def _legend(axis: Axes, phases: Sequence[str]) -> None:
    names = {"default": "untuned", "tuned": "tuned"}
    for phase in phases:
        face = PAPER if phase == "default" else COLOURS[phase]
        axis.plot(
            [],
            [],
            MARKERS[phase],
            color=COLOURS[phase],
            markerfacecolor=face,
            markersize=4.6,
            label=names[phase],
        )
    axis.legend(
        loc="lower center",
        bbox_to_anchor=(0.5, 1.0),
        ncols=len(phases),
        frameon=False,
        handletextpad=0.2,
        borderpad=0,
    )


# -- effects and parameters ------------------------------------------------------------------------


def effects_chart(comparison: Comparison) -> Chart | None:
    """Draw the change that each arm makes, compared with the baseline."""
    effects = comparison.effects()
    if not effects:
        return None
    spans = [comparison.interval(found.difference) for found in effects.values()]
    ends = [value for span in spans for value in span if math.isfinite(value)]
    ends += [
        value
        for each in effects.values()
        if math.isfinite(value := comparison.metric_of(each.difference.median))
    ]
    # The axis is symmetric around 0.
    reach = max([abs(value) for value in ends] or [1.0]) * 1.15 or 1.0

    def draw(axis: Axes) -> None:
        axis.axvline(0, color=INK, linewidth=0.9)
        for place, found in enumerate(reversed(effects.values())):
            middle = comparison.metric_of(found.difference.median)
            low, high = (
                min(max(value, -reach), reach) for value in comparison.interval(found.difference)
            )
            axis.plot(
                [low, high], [place, place], color=TUNED, linewidth=1.8, solid_capstyle="round"
            )
            # A filled mark is a certain effect, and a cross is an infinite one.
            if math.isfinite(middle):
                axis.plot(
                    middle,
                    place,
                    "o",
                    color=TUNED,
                    markerfacecolor=TUNED if found.significant else PAPER,
                    markersize=5,
                )
            else:
                axis.plot(
                    math.copysign(reach, middle),
                    place,
                    "X",
                    color=BAD,
                    markersize=5.5,
                    clip_on=False,
                )
        axis.set_yticks(range(len(effects)), list(effects)[::-1])
        axis.tick_params(axis="y", length=0)
        axis.set_ylim(-0.6, len(effects) - 0.4)
        axis.set_xlim(-reach, reach)
        axis.xaxis.grid(True)
        axis.spines["left"].set_visible(False)

    better = "left is better" if comparison.mode == "min" else "right is better"
    return Chart(
        name="effects",
        about=f"Change against {comparison.baseline}, with its interval.",
        x=f"change of {readable(comparison.metric)} against {comparison.baseline} ({better})",
        y="",
        panels=[Panel(title="", draw=draw)],
        size=(WIDE[0], max(1.4, 0.27 * len(effects) + 0.7)),
    )


def parameters_charts(comparison: Comparison) -> Iterator[Chart]:
    """Draw parallel coordinates for each search with at least two parameters and four trials."""
    for number, arm in enumerate(comparison.ranked):
        rows = finished(comparison.select(arm, "search"))
        names = varied(rows)
        if len(names) >= 2 and len(rows) >= 4:
            yield Chart(
                name=f"parameters-{number}",
                about=f"The search trials of {arm}: one line each through its parameters to its "
                "result.",
                x="",
                y="",
                panels=[Panel(title=arm, draw=partial(_draw_parameters, comparison, rows, names))],
                size=(WIDE[0], 2.3),
            )


def _draw_parameters(
    comparison: Comparison, rows: Sequence[TrialRow], names: Sequence[str], axis: Axes
) -> None:
    scales = [coordinates([row.params.get(name) for row in rows]) for name in names]
    costs = np.array([cost(row) for row in rows])
    finite = np.isfinite(costs)
    # Trials are placed by rank, best on top: a few bad trials would compress all others.
    order = np.argsort(np.argsort(costs, kind="stable"), kind="stable")
    result = 1 - order / max(1, len(rows) - 1)
    good = finite & (order < max(1, len(rows) // 4))
    for place in range(len(names) + 1):
        axis.axvline(place, color=FAINT, linewidth=0.7)
    # One line for each trial, the best ones last and on top.
    for number in np.argsort(-costs, kind="stable"):
        values = [*(scale.position[number] for scale in scales), result[number]]
        if not finite[number]:
            axis.plot(values, color=BAD, linewidth=0.8, linestyle=(0, (2, 1.5)), alpha=0.8)
        elif good[number]:
            axis.plot(values, color=TUNED, linewidth=1.5)
        else:
            axis.plot(values, color=FAINT, linewidth=0.7, alpha=0.55)
    # Labels of the values, and the best result.
    for place, scale in enumerate(scales):
        for height, text in scale.ticks:
            axis.annotate(
                text,
                (place, height),
                (3, 0),
                textcoords="offset points",
                va="center",
                color=INK,
                fontsize=7.5,
            )
    best = rows[int(np.argmin(costs))].best if finite.any() else None
    axis.annotate(
        "none" if best is None else f"best {best:.4g}",
        (len(names), 1.0),
        (-3, 5),
        textcoords="offset points",
        ha="right",
        color=INK,
        fontsize=7.5,
    )
    labels = [
        f"{_short(name)}{' (log)' if scale.log else ''}" for name, scale in zip(names, scales)
    ]
    axis.set_xticks(range(len(names) + 1), [*labels, "result's rank"])
    axis.tick_params(axis="x", length=0)
    axis.set_yticks([])
    axis.set_xlim(-0.02, len(names) + 0.02)
    axis.set_ylim(-0.06, 1.06)
    for side in axis.spines.values():
        side.set_visible(False)


def _short(name: str) -> str:
    return name.rpartition(".")[2].replace("_", " ").replace("learning rate", "η")
