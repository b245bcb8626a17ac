"""Writes the report of a sweep: SWEEP/report/index.html, tables as CSV and parquet, charts as PNG.

The report evaluates default and tuned runs on the test split, but only when no trial is left to
run, so that test data influence no choice. The test metrics are saved in report/test.json, so that
a second report does not compute them again.
"""

import io
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

from genray.config import load_yaml
from genray.errors import ConfigError, GenrayError
from genray.runs.files import write_whole
from genray.runs.rundir import RunDir
from tuning.plan import Sweep
from tuning.report.charts import Chart
from tuning.report.comparison import Comparison
from tuning.report.page import page
from tuning.report.panels import curves_chart, profile_chart, rates_chart, search_chart
from tuning.report.pictures import arms_chart, effects_chart, parameters_charts
from tuning.report.stats import cost
from tuning.report.tables import comparison_tables, write_tables
from tuning.report.text import PHASE_WORDS, number, plural
from tuning.trials import TrialRow, read_trials, write_table

Measure = Callable[[Path, TrialRow], dict[str, float]]
Sample = Callable[[Path, TrialRow], bytes | None]
MAX_SAMPLES = 12
"""Most sample grids in the page."""


def write_report(
    sweep: Path,
    *,
    measure: Measure | None = None,
    sample: Sample | None = None,
    say: Callable[[str], None] | None = None,
) -> Path:
    """Write the report of the sweep's results so far, and return the page's path. May be called
    repeatedly.

    `measure(sweep, row)` returns the row's metrics on the test split. `sample(sweep, row)` returns
    a PNG of its samples, or None. Both use the trial's best weights; the defaults load these from
    the sweep. `say` receives messages about slow work. Raises CheckpointError if `sweep` is not a
    sweep's directory, ConfigError if the report cannot be written.
    """
    rows = read_trials(sweep)
    folder = sweep / "report"
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"{folder}: {error.strerror}; make the sweep's directory writable, because the report "
            "is written there"
        ) from error
    write_table(sweep, rows)
    # The test split stays sealed while trials are still to be run.
    waiting = _waiting(sweep)
    comparison = Comparison(rows, {} if waiting else _tests(sweep, rows, measure, say), waiting)
    # Write charts, tables and the page.
    charts = make_charts(comparison)
    for group in charts.values():
        for chart in group:
            chart.write_png(folder / f"{chart.name}.png")
    tables = write_tables(folder, comparison_tables(comparison))
    text = page(
        comparison,
        charts,
        settings=_settings(sweep),
        samples=_samples(sweep, comparison, sample),
        files=[path.name for path in tables],
    )
    return write_whole(folder / "index.html", text.encode(errors="backslashreplace"))


def make_charts(comparison: Comparison) -> dict[str, list[Chart]]:
    """Draw the charts that these rows allow. Returns section → charts.

    There are no charts if no trial has a finite metric, because their axes would be empty. The
    page's summary and its list of trials then explain the failures.
    """
    if not any(math.isfinite(cost(row)) for row in comparison.rows):
        return {}
    found: dict[str, list[Chart | None]] = {
        "arms": [arms_chart(comparison), arms_chart(comparison, test=True)],
        "effects": [effects_chart(comparison)],
        "learning-rates": [rates_chart(comparison)],
        "best-so-far": [search_chart(comparison)],
        "curves": [curves_chart(comparison)],
        "profile": [profile_chart(comparison.profile_ratios())],
        "parameters": list(parameters_charts(comparison)),
    }
    return {
        name: [chart for chart in charts if chart is not None] for name, charts in found.items()
    }


def _waiting(sweep: Path) -> int:
    """Count the planned trials that have not ended. Returns 0 if the sweep cannot be opened,
    because it cannot continue either.
    """
    try:
        return len(Sweep.open(sweep).waiting())
    except GenrayError:
        return 0


# -- the test split --------------------------------------------------------------------------------


def _tests(
    sweep: Path,
    rows: Sequence[TrialRow],
    measure: Measure | None,
    say: Callable[[str], None] | None,
) -> dict[str, dict[str, float]]:
    """Return trial → metrics on the test split, for default and tuned runs that succeeded."""
    cache = sweep / "report" / "test.json"
    known = _read_cache(cache)
    asked = [row for row in rows if row.phase in ("default", "tuned") and row.status != "running"]
    asked = [row for row in asked if math.isfinite(cost(row))]
    figures = {}
    missing = [row for row in asked if known.get(row.trial, {}).get("of") != _identity(row)]
    if missing and say is not None:
        say(f"evaluating {plural(len(missing), 'trial')} on the test split …")
    if missing and measure is None:
        from tuning.promotion import measure_test as measure  # imports PyTorch
    for row in missing:
        assert measure is not None
        try:
            values = {name: float(value) for name, value in measure(sweep, row).items()}
        except (GenrayError, OSError) as error:
            # The checkpoint may be missing. The page then shows a gap, and a later report tries
            # again.
            if say is not None:
                say(f"{row.trial}: no test figures ({str(error).splitlines()[0]})")
            continue
        known[row.trial] = {"of": _identity(row), "figures": values}
        write_whole(cache, json.dumps(known, indent=1).encode() + b"\n")
    for row in asked:
        entry = known.get(row.trial, {})
        if entry.get("of") == _identity(row):
            figures[row.trial] = entry["figures"]
    return figures


def _identity(row: TrialRow) -> list[Any]:
    """Identify a trial's best weights, as opposed to those of another trial of this name, or of
    this trial after it was resumed.
    """
    return [row.best, row.best_step, row.steps, row.seed]


def _read_cache(path: Path) -> dict[str, Any]:
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


# -- samples ---------------------------------------------------------------------------------------


def _samples(sweep: Path, comparison: Comparison, sample: Sample | None) -> list[tuple[str, bytes]]:
    """Return (caption, PNG) of each arm's best run, best arm first. Only some families make
    samples.
    """
    shown: list[tuple[str, bytes]] = []
    for arm in comparison.ranked:
        rows = [
            row
            for row in comparison.select(arm, comparison.ranking_phase)
            if math.isfinite(cost(row))
        ]
        if rows and len(shown) < MAX_SAMPLES:
            best = min(rows, key=cost)
            png = (sample or best_samples)(sweep, best)
            if png is not None:
                which = f"{PHASE_WORDS[best.phase]}, seed {best.seed}"
                shown.append((f"{arm}: {number(best.best)} ({which})", png))
    return shown


def best_samples(sweep: Path, row: TrialRow) -> bytes | None:
    """Render a PNG of 64 samples of the trial's best weights, always from the same latents. None if
    the model makes no samples, or the weights are missing.
    """
    folder = RunDir(sweep / row.path).checkpoints / f"{row.best_step or 0:08d}"
    if row.family not in ("gan", "vae") or not folder.is_dir():
        return None
    from tuning.training import FitTraining, config_class

    try:
        training = FitTraining(
            row.family, load_yaml(config_class(row.family), sweep / row.path / "config.yaml"), True
        )
        training.load(folder)
        samples = training.fit.pictures()["samples"]
    except (GenrayError, KeyError):
        return None
    file = io.BytesIO()
    Image.fromarray(samples).save(file, "png", optimize=True)
    return file.getvalue()


# -- helpers ---------------------------------------------------------------------------------------


def _settings(sweep: Path) -> dict[str, Any]:
    """Read the sweep's own settings from its file."""
    try:
        settings = yaml.safe_load((sweep / "sweep.yaml").read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError):
        return {}
    return settings if isinstance(settings, dict) else {}
