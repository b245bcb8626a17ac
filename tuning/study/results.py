"""Publishes a study: writes a Markdown page, small pictures and tables from its sweeps' rows."""

import csv
import io
import math
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from tuning.report.charts import Chart
from tuning.report.comparison import Comparison, Line, readable
from tuning.report.panels import profile_chart, rates_chart, search_chart
from tuning.report.pictures import arms_chart, effects_chart
from tuning.report.stats import Estimate
from tuning.report.summary import limits, summary
from tuning.report.tables import comparison_tables, write_tables
from tuning.report.text import PHASE_WORDS, between, covered, difference, number, plural
from tuning.trials import TrialRow

COLOURS = 64
"""Number of colours of a published picture. Charts need no more, and the file is a third as
large.
"""
PUBLISHED = ("arms", "effects", "chosen")


@dataclass(frozen=True)
class Part:
    """One sweep of the study: its title, its question and its results."""

    name: str
    heading: str
    about: str
    comparison: Comparison
    settings: Mapping[str, object]
    samples: Sequence[tuple[str, bytes]] = ()
    commit: str = "unknown"
    """The commit that ran the sweep."""


def publish(folder: Path, parts: Sequence[Part], heading: str, about: Sequence[str]) -> Path:
    """Write README.md, NAME-*.csv and NAME-*.png, and return the path of README.md. Older files of
    the same names are replaced.

    `about`: paragraphs above the results: the command, the machine, the cost.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lines = [f"# {heading}", "", *(line for text in about for line in (text, ""))]
    for part in parts:
        lines += _part(folder, part)
    lines += _pooled(folder, parts)
    points = dict.fromkeys(point for part in parts for point in limits(part.comparison))
    lines += ["## What this does not show", "", *(f"- {point}" for point in points), ""]
    page = folder / "README.md"
    page.write_text("\n".join(lines), encoding="utf-8", errors="backslashreplace")
    return page


def _part(folder: Path, part: Part) -> list[str]:
    comparison = part.comparison
    lines = [f"## {part.heading}", "", part.about, ""]
    for title, text in summary(comparison, part.settings):
        lines += [f"**{title}.** {_markdown(text)}", ""]
    lines += [*_arms_table(comparison), ""]
    lines += _effects_table(comparison)
    charts: list[Chart | None] = [
        arms_chart(comparison),
        arms_chart(comparison, test=True),
        effects_chart(comparison),
        rates_chart(comparison),
        search_chart(comparison),
    ]
    for chart in charts:
        if chart is not None:
            name = f"{part.name}-{chart.name}.png"
            _write_picture(chart, folder / name)
            lines += [f"![{chart.about}]({name})", ""]
    for number_, (caption, png) in enumerate(part.samples):
        name = f"{part.name}-samples-{number_}.png"
        (folder / name).write_bytes(png)
        lines += [f"![samples: {caption}]({name})", "", f"Samples of {caption}.", ""]
    tables = {
        name: records
        for name, records in comparison_tables(comparison).items()
        if name in PUBLISHED
    }
    write_tables(
        folder, {f"{part.name}-{name}": records for name, records in tables.items()}, parquet=False
    )
    (folder / f"{part.name}-trials.csv").write_text(
        _trials(comparison.rows), encoding="utf-8", errors="backslashreplace"
    )
    names = [f"{part.name}-{name}.csv" for name, records in tables.items() if records] + [
        f"{part.name}-trials.csv"
    ]
    return [*lines, "Tables: " + ", ".join(f"[{name}]({name})" for name in names) + ".", ""]


def _pooled(folder: Path, parts: Sequence[Part]) -> list[str]:
    """Draw the performance profile over all sweeps that compare the same arms; each seed of each
    sweep is one problem.
    """
    groups: dict[str, dict[str, list[float]]] = {}
    names: dict[str, list[str]] = {}
    for part in parts:
        found = part.comparison.profile_ratios()
        if found and not part.comparison.baseline:
            pooled = groups.setdefault(part.comparison.study, {})
            names.setdefault(part.comparison.study, []).append(part.name)
            for arm, ratios in found.items():
                pooled.setdefault(arm, []).extend(ratios)
    lines: list[str] = []
    for study, pooled in groups.items():
        count = max(map(len, pooled.values()))
        chart = profile_chart(pooled, problems="problems")
        if chart is None or any(len(each) != count for each in pooled.values()):
            continue
        name = f"{study}-profile.png"
        _write_picture(chart, folder / name)
        lines += [
            f"## Performance profile: {readable(study)}",
            "",
            f"Over {count} problems ({' and '.join(names[study])}; each seed is a problem): the "
            "share in which a tuned arm reached the target within τ times the steps of the "
            "fastest arm. Grey: the other arms.",
            "",
            f"![{chart.about}]({name})",
            "",
        ]
    return lines


def _write_picture(chart: Chart, path: Path) -> None:
    chart.write_png(path)
    with Image.open(path) as picture:
        picture.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)


# -- tables ----------------------------------------------------------------------------------------


def _arms_table(comparison: Comparison) -> list[str]:
    metric, test = readable(comparison.metric), readable(comparison.test_metric)
    target = (
        "" if comparison.target is None else f" {number(comparison.metric_of(comparison.target))}"
    )
    best, on_test = (
        _median([getattr(line, name) for line in comparison.lines]) for name in ("best", "test")
    )
    head = (
        f"| arm | | {metric}: {best} | test{' ' + test if test else ''}: {on_test} | steps to "
        f"target{target} | "
        "CPU s to target | missed | diverged | state bytes a parameter | trials spent |"
    )
    return [
        head,
        "|---|---|" + "---:|" * 8,
        *(_arm_line(comparison, line) for line in comparison.lines),
    ]


def _median(found: Sequence[Estimate]) -> str:
    """Describe the content of a column of medians."""
    share = covered(found)
    return f"median ({share})" if share else "median"


def _arm_line(comparison: Comparison, line: Line) -> str:
    diverged = f"{line.diverged} of {line.runs}"
    if line.phase == "tuned" and line.trials:
        diverged += f"; search {line.search_diverged} of {line.trials}"
    if line.failed:
        diverged += f"; {line.failed} failed"
    cells = [
        line.arm,
        PHASE_WORDS[line.phase],
        between(comparison, line.best),
        between(comparison, line.test),
        number(line.steps.median) if line.steps.count else "–",
        number(line.seconds.median) if line.seconds.count else "–",
        f"{line.missed} of {line.runs}",
        diverged,
        "–" if line.state_bytes is None else number(line.state_bytes),
        str(line.trials),
    ]
    return f"| {' | '.join(map(_markdown, cells))} |"


def _effects_table(comparison: Comparison) -> list[str]:
    on_test, lines = comparison.effects(test=True), []
    for arm, found in comparison.effects().items():
        test = on_test.get(arm)
        cells = [arm, difference(comparison, found.difference), f"{found.better} of {found.pairs}"]
        if test is not None:
            cells += [difference(comparison, test.difference), f"{test.better} of {test.pairs}"]
        else:
            cells += ["–", "–"]
        lines.append(f"| {' | '.join(map(_markdown, cells))} |")
    if not lines:
        return []
    metric, test_metric = readable(comparison.metric), readable(comparison.test_metric)
    change = _median([found.difference for found in comparison.effects().values()])
    head = f"| against {comparison.baseline}, by seed | change of {metric}: {change} | better in | "
    return [
        f"{head}change of test {test_metric} | better in |",
        "|---|---:|---:|---:|---:|",
        *lines,
        "",
    ]


def _trials(rows: Sequence[TrialRow]) -> str:
    """Return a CSV of every trial without its curve. The settings that the arm's search varies are
    written as PATH=VALUE.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ("trial", "seed", "status", "best", "best_step", "steps", "cpu_seconds", "settings")
    )
    for row in rows:
        settings = " ".join(f"{path}={_short(value)}" for path, value in row.params.items())
        best = "" if row.best is None or not math.isfinite(row.best) else f"{row.best:.6g}"
        line = (
            row.trial,
            row.seed,
            row.status,
            best,
            row.best_step,
            row.steps,
            f"{row.seconds:.2f}",
            settings,
        )
        writer.writerow(line)
    return text.getvalue()


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value).replace(" ", "")


def _markdown(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")


def cost_line(comparison: Comparison) -> str:
    """State the number of trials and their cost."""
    minutes = sum(row.seconds for row in comparison.rows) / 60
    return f"{plural(len(comparison.rows), 'trial')}, {number(round(minutes, 1))} CPU minutes"


def commit() -> str:
    """Return the commit of this source tree, if git knows it."""
    try:
        found = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return found.stdout.strip()


def machine() -> str:
    """Describe the machine that produced the figures."""
    import torch

    model = platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next(
            line.partition(":")[2].strip() for line in lines if line.startswith("model name")
        )
    except (OSError, StopIteration):
        pass
    return (
        f"{model}, {plural(os.cpu_count() or 1, 'core')}, Python {platform.python_version()}, "
        f"torch {torch.__version__}"
    )
