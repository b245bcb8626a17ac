"""Renders the report's tables as HTML. On a narrow screen, each table scrolls horizontally."""

import math
from collections.abc import Sequence
from html import escape
from typing import Any

from tuning.report.comparison import Comparison, Line, readable
from tuning.report.importance import varied
from tuning.report.stats import Estimate, cost
from tuning.report.text import PHASE_WORDS, between, covered, difference, number, plural
from tuning.trials import TrialRow

IMPORTANCES = (
    "The importance of a setting is the loss of accuracy of a random forest that predicts the "
    "ranks of held-out trials, when the setting is shuffled, as a share of the ranks' variance. "
    "An importance does not say which value is good, does not cover settings that were never "
    "varied, and does not separate settings that varied together. With a few dozen trials, only "
    "large differences are meaningful. If the forest explains nothing (R² not above 0), no "
    "importance is."
)


def _table(head: Sequence[tuple[str, str]], rows: Sequence[str], label: str) -> str:
    """Render a table that scrolls horizontally, also by keyboard.

    `head`: (text, class) of each column.
    """
    cells = "".join(f'<th scope="col" class="{kind}">{text}</th>' for text, kind in head)
    return (
        f'<div class="scroll" tabindex="0" role="region" '
        f'aria-label="{escape(label)}"><table><thead><tr>{cells}</tr></thead>\n'
        f"<tbody>{''.join(rows)}</tbody></table></div>\n"
    )


def _cell(text: str, kind: str = "") -> str:
    return f'<td class="{kind}">{text}</td>' if kind else f"<td>{text}</td>"


def _estimate(comparison: Comparison, found: Estimate) -> str:
    """Format the median with its interval."""
    return _smaller(between(comparison, found))


def _smaller(text: str) -> str:
    """Render the interval of "1 (0 to 2)" in small print, without its parentheses."""
    median, _, interval = text.partition(" (")
    return f"{median} <small>{interval.rstrip(')')}</small>" if interval else median


def _time(found: Estimate) -> str:
    if not found.count:
        return "–"
    spread = found.count > 1 and found.low < found.high and math.isfinite(found.median)
    span = f" <small>{_three(found.low)} to {_three(found.high)}</small>" if spread else ""
    return f"{_three(found.median)}{span}"


def _three(value: float) -> str:
    """Format with three digits; whole steps stay unchanged."""
    return number(value if value >= 100 else float(f"{value:.3g}"))


def _median(found: Sequence[Estimate]) -> str:
    """Describe the content of a column of medians."""
    return ", ".join(("median", *filter(None, (covered(found),))))


def arms_table(comparison: Comparison) -> str:
    """Render the table of all arms and phases."""
    target = (
        "" if comparison.target is None else f" {number(comparison.metric_of(comparison.target))}"
    )
    best, test = (
        _median([getattr(line, name) for line in comparison.lines]) for name in ("best", "test")
    )
    head = [
        ("arm", "name"),
        ("", "name"),
        (f"{escape(readable(comparison.metric))}<br>{best}", ""),
        (f"test {escape(readable(comparison.test_metric))}<br>{test}", ""),
        (f"steps to<br>target{target}", ""),
        ("CPU s to<br>target", ""),
        ("diverged<br>+ in search", ""),
        ("state bytes<br>a parameter", ""),
        ("trials<br>spent", ""),
    ]
    rows, last = [], ""
    for line in comparison.lines:
        first = line.arm != last
        same = sum(each.arm == line.arm for each in comparison.lines)
        kind = (
            "first best"
            if first and line.arm == comparison.ranked[0] and len(comparison.arms) > 1
            else "first"
        )
        name = f'<th scope="rowgroup" rowspan="{same}">{escape(line.arm)}</th>' if first else ""
        rows.append(
            f'<tr class="{kind if first else ""}">{name}{_arm_cells(comparison, line)}</tr>'
        )
        last = line.arm
    return _table(head, rows, "Arms")


def _arm_cells(comparison: Comparison, line: Line) -> str:
    diverged = f"{line.diverged} of {line.runs}"
    if line.phase == "tuned" and line.trials:
        diverged += f" <small>+ {line.search_diverged} of {line.trials}</small>"
    if line.failed:
        diverged += f"; {line.failed} failed"
    if line.running:
        diverged += f"; {line.running} unfinished"
    state = "–" if line.state_bytes is None else number(line.state_bytes)
    return "".join(
        (
            _cell(PHASE_WORDS[line.phase], "name"),
            _cell(_estimate(comparison, line.best)),
            _cell(_estimate(comparison, line.test)),
            _cell(
                _time(line.steps)
                + (f" <small>{line.missed} of {line.runs} missed</small>" if line.missed else "")
            ),
            _cell(_time(line.seconds)),
            _cell(diverged, "bad" if line.diverged or line.failed else ""),
            _cell(state),
            _cell(str(line.trials)),
        )
    )


def effects_table(comparison: Comparison) -> str:
    """Render the table of each arm's difference from the baseline."""
    rows = []
    on_test = comparison.effects(test=True)
    for arm, found in comparison.effects().items():
        test = on_test.get(arm)
        rows.append(
            f'<tr><th scope="row">{escape(arm)}</th>'
            + _cell(_smaller(difference(comparison, found.difference)))
            + _cell(f"{found.better} of {found.pairs}{'' if found.paired else ' (all pairs)'}")
            + _cell("–" if test is None else _smaller(difference(comparison, test.difference)))
            + _cell("–" if test is None else f"{test.better} of {test.pairs}")
            + "</tr>"
        )
    change, change_of_test = (
        _median([each.difference for each in effects.values()])
        for effects in (comparison.effects(), on_test)
    )
    head = [
        ("arm", "name"),
        (f"change of {escape(readable(comparison.metric))}<br>{change}", ""),
        ("better in", ""),
        (f"change of test {escape(readable(comparison.test_metric))}<br>{change_of_test}", ""),
        ("better in", ""),
    ]
    return _table(head, rows, "Effects")


def chosen_table(comparison: Comparison) -> str:
    """Render the table of each arm's best search trial; empty if there is none."""
    rows = []
    for arm in comparison.ranked:
        best = comparison.chosen(arm)
        if best is not None:
            text = escape(_settings(best, varied(comparison.select(arm, "search"))))
            cells = (
                _cell(number(best.best)) + _cell(text, "text") + _cell(escape(best.trial), "name")
            )
            rows.append(f'<tr><th scope="row">{escape(arm)}</th>{cells}</tr>')
    if not rows:
        return ""
    head = [
        ("arm", "name"),
        (escape(readable(comparison.metric)), ""),
        ("settings", "name"),
        ("trial", "name"),
    ]
    return "<h3>Best search trial of each arm</h3>\n" + _table(head, rows, "Best settings")


def importances_table(comparison: Comparison) -> str:
    """Render the table of the importances of parameters; empty if there are none."""
    rows = []
    for arm, found in comparison.importances.items():
        ordered = sorted(found.importance.items(), key=lambda each: -each[1])
        for place, (name, value) in enumerate(ordered):
            first = (
                f'<th scope="rowgroup" rowspan="{len(ordered)}">{escape(arm)}</th>'
                if place == 0
                else ""
            )
            explained = (
                f'<td rowspan="{len(ordered)}">{number(round(found.explained, 2))}</td>'
                if place == 0
                else ""
            )
            known = found.explained > 0
            bar = (
                f'<span class="bar"><i style="width:{100 * min(1, max(0, value)):.0f}%"></i></span>'
                if known
                else ""
            )
            cells = (
                _cell(escape(name), "name")
                + _cell(number(round(value, 2)) if known else "–")
                + _cell(bar, "name")
            )
            rows.append(
                f'<tr class="{"first" if place == 0 else ""}">{first}{explained}{cells}</tr>'
            )
    if not rows:
        return ""
    head = [
        ("arm", "name"),
        ("R² of ranks,<br>held out", ""),
        ("setting", "name"),
        ("importance", ""),
        ("", ""),
    ]
    return f'<h3>Importances</h3>\n<p class="how">{IMPORTANCES}</p>' + _table(
        head, rows, "Importances"
    )


def trials_table(comparison: Comparison) -> str:
    """Render the table of all trials."""
    rows = [_trial(row) for row in comparison.rows]
    head = [
        ("trial", "name"),
        ("seed", ""),
        ("status", "name"),
        ("best", ""),
        ("at step", ""),
        ("steps", ""),
        ("CPU s", ""),
        ("settings", "name"),
    ]
    return f"<details><summary>{plural(len(rows), 'trial')}</summary>\n{_table(head, rows, 'All trials')}</details>"  # noqa: E501


def _trial(row: TrialRow) -> str:
    bad = "bad" if row.status in ("diverged", "failed") else ""
    status = f"{row.status}: {escape(row.error)}" if row.error else row.status
    text = escape(_settings(row)) + (f"<br><small>{status}</small>" if row.error else "")
    return (
        f'<tr class="first"><td class="name">{escape(row.trial)}</td>{_cell(str(row.seed))}'
        + _cell(row.status, f"name {bad}".strip())
        + _cell(
            number(row.best) if math.isfinite(cost(row)) else f"<small>{number(row.best)}</small>"
        )
        + _cell("–" if row.best_step is None else f"{row.best_step:,}")
        + _cell(f"{row.steps:,}")
        + _cell(f"{row.seconds:.1f}")
        + _cell(text, "text")
        + "</tr>"
    )


def _settings(row: TrialRow, names: Sequence[str] | None = None) -> str:
    """Format the row's settings, or only those in `names`."""

    def shown(value: Any) -> str:
        return (
            number(value)
            if isinstance(value, int | float) and not isinstance(value, bool)
            else str(value)
        )

    settings = {name: value for name, value in row.params.items() if names is None or name in names}
    return ", ".join(f"{name} {shown(value)}" for name, value in settings.items()) or "the defaults"
