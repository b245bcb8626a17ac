"""Renders the report as one HTML page without scripts and external files.

The page supports light and dark mode, and wide and narrow screens.
"""

import base64
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from tuning.report.charts import Chart
from tuning.report.comparison import Comparison
from tuning.report.markup import (
    arms_table,
    chosen_table,
    effects_table,
    importances_table,
    trials_table,
)
from tuning.report.summary import limits, summary, title
from tuning.report.text import plural

STYLE = Path(__file__).with_suffix(".css")
TUNED = '<span class="key tuned">● tuned</span>'
UNTUNED = '<span class="key untuned">◇ untuned</span>'
BAD = '<span class="key bad">×</span>'

HOW = {
    "arms": f"{UNTUNED}: the arm's default settings; {TUNED}: the best setting of its search. "
    "Dots show medians over seeds, and small marks show seeds. Bars show the intervals of the "
    "medians; the table's head states how often such an interval contains the true median. The "
    "dotted line is the target. An arrow on the edge has the value of a median outside the chart. "
    "A cross means that there is no finite value.",
    "learning-rates": "Each ring is a search trial; the filled ring was chosen. "
    f"{BAD} on the edge: the trial diverged or failed. A triangle on the edge: the value lies "
    "outside the chart. Dashed: the untuned median. In a wide, flat valley, a guessed rate is good "
    "enough; around a single low point in a steep valley, it is not.",
    "best-so-far": "The best of the first n trials: median and quartiles over all orders of the "
    "trials, computed exactly, so that the curve does not depend on one order. Grey: the other "
    "arms. Dashed: the untuned median.",
    "curves": "Every seed, at each evaluation on the validation split. Solid: tuned; dashed: "
    f"untuned; horizontal dotted line: the target; {BAD}: a run diverged.",
    "profile": "The share of the seeds in which an arm reached the target within τ times the steps "
    "of the fastest arm with that seed. At 1: how often the arm was the fastest; at the right end: "
    "how often the arm reached the target at all. Grey: the other arms.",
    "effects": "The difference between the runs with the arm and the runs of the baseline, paired "
    "by seed where both have the same seeds. A filled dot: an interval of 95% or more excludes 0, "
    "which needs six seeds.",
    "parameters": "Each line is a search trial, from its settings to the rank of its result (best "
    'on top). <span class="key tuned">Blue</span>: the best quarter; '
    '<span class="key bad">dashed</span>: diverged or failed.',
}
TITLES = {
    "arms": "Arms",
    "learning-rates": "Learning-rate sensitivity",
    "best-so-far": "Best value by number of trials",
    "curves": "Learning curves",
    "profile": "Performance profile",
    "effects": "Effects of the arms",
    "parameters": "Parameters",
    "samples": "Samples",
}


def page(
    comparison: Comparison,
    charts: Mapping[str, Sequence[Chart]],
    settings: Mapping[str, Any] | None = None,
    samples: Sequence[tuple[str, bytes]] = (),
    files: Sequence[str] = (),
) -> str:
    """Return the whole page as HTML.

    `charts`: the charts of each section (the keys of TITLES). `samples`: captions and PNG files.
    `files`: names of files in the page's directory.
    """
    # Sections without content are omitted.
    sections: dict[str, tuple[str, str]] = {"summary": ("Summary", _summary(comparison, settings))}
    if comparison.lines:
        sections["arms"] = (TITLES["arms"], _figures("arms", charts) + arms_table(comparison))
    for name in ("effects", "learning-rates", "best-so-far", "curves", "profile"):
        if charts.get(name):
            text = _figures(name, charts) + (effects_table(comparison) if name == "effects" else "")
            sections[name] = (TITLES[name], text)
    parameters = (
        _figures("parameters", charts) + chosen_table(comparison) + importances_table(comparison)
    )
    if parameters:
        sections["parameters"] = (TITLES["parameters"], parameters)
    if samples:
        sections["samples"] = (TITLES["samples"], _samples(samples))
    sections["limits"] = ("What this does not show", _list(limits(comparison)))
    if comparison.rows:
        sections["trials"] = ("Trials", trials_table(comparison))
    if files:
        links = ", ".join(f'<a href="{escape(name)}">{escape(name)}</a>' for name in files)
        sections["files"] = ("Tables as files", f"<p>{links}, and the same as parquet.</p>")
    body = "\n".join(
        f'<section id="{name}"><h2>{heading}</h2>\n{text}</section>'
        for name, (heading, text) in sections.items()
    )
    links = "".join(f'<a href="#{name}">{heading}</a>' for name, (heading, _) in sections.items())
    under = ", ".join(
        (
            plural(len(comparison.rows), "trial"),
            f"{sum(row.seconds for row in comparison.rows) / 60:.1f} CPU minutes of training",
        )
    )
    heading = escape(title(comparison))
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{heading}</title>\n<style>\n{STYLE.read_text(encoding='utf-8')}</style>\n</head>\n<body>\n"
        f'<header><h1>{heading}</h1><p class="under">{under}</p><nav>{links}</nav></header>\n'
        f"<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def _summary(comparison: Comparison, settings: Mapping[str, Any] | None) -> str:
    parts = summary(comparison, settings)
    return (
        '<dl class="summary">'
        + "".join(f"<dt>{escape(a)}</dt><dd>{escape(b)}</dd>" for a, b in parts)
        + "</dl>"
    )


def _figures(name: str, charts: Mapping[str, Sequence[Chart]]) -> str:
    """Render a section's charts, with a text on how to read them."""
    shown = charts.get(name, ())
    if not shown:
        return ""
    parts = [f'<p class="how">{HOW[name]}</p>'] if name in HOW else []
    alone = []
    for chart in shown:
        svgs = chart.svgs()
        if len(svgs) == 1:
            alone.append(f"<figure>{svgs[0]}</figure>")
        else:
            parts.append(
                f'<figure class="panels">{"".join(f"<div>{svg}</div>" for svg in svgs)}</figure>'
            )
            parts.append(f'<p class="axes">Across: {escape(chart.x)}. Up: {escape(chart.y)}.</p>')
    if alone:
        parts.append(f'<div class="figures">{"".join(alone)}</div>')
    return "\n".join(parts)


def _samples(samples: Sequence[tuple[str, bytes]]) -> str:
    figures = "".join(
        f'<figure><img alt="{escape(caption)}" '
        f'src="data:image/png;base64,{base64.b64encode(png).decode()}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
        for caption, png in samples
    )
    how = (
        "Samples of the best run of each arm by validation, with its best weights. The images were "
        "not selected."
    )
    return f'<p class="how">{how}</p>\n<div class="samples">{figures}</div>'


def _list(points: Sequence[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(point)}</li>" for point in points) + "</ul>"
