"""Builds the tables of a sweep's report, and writes them as CSV and parquet."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tuning.report.comparison import Comparison, Line
from tuning.report.importance import varied
from tuning.report.stats import best_so_far, cost, finished


def comparison_tables(comparison: Comparison) -> dict[str, list[dict[str, Any]]]:
    """Return name → records in the metric's sign; ∞ (−∞ if higher is better) means none."""
    return {
        "arms": [_record(comparison, line) for line in comparison.lines],
        "learning_rates": _learning_rates(comparison),
        "best_so_far": _best_so_far(comparison),
        "chosen": [
            {"arm": arm, "trial": best.trial, "best": best.best}
            | {
                name: str(best.params.get(name))
                for name in varied(comparison.select(arm, "search"))
            }
            for arm in comparison.ranked
            if (best := comparison.chosen(arm)) is not None
        ],
        "profile": [
            {"arm": arm, "problem": number, "steps_by_quickest": ratio}
            for arm, ratios in comparison.profile_ratios().items()
            for number, ratio in enumerate(sorted(ratios))
        ],
        "effects": [
            {
                "arm": arm,
                "against": comparison.baseline,
                "split": split,
                "difference": comparison.metric_of(found.difference.median),
            }
            | dict(zip(("low", "high"), comparison.interval(found.difference)))
            | {"paired": found.paired, "better": found.better, "pairs": found.pairs}
            for split in ("validation", "test")
            for arm, found in comparison.effects(split == "test").items()
        ],
        "importances": [
            {
                "arm": arm,
                "parameter": name,
                "importance": value,
                "explained": found.explained,
                "trials": found.trials,
            }
            for arm, found in comparison.importances.items()
            for name, value in found.importance.items()
        ],
        "test": [{"trial": trial, **figures} for trial, figures in comparison.tests.items()],
    }


def _record(comparison: Comparison, line: Line) -> dict[str, Any]:
    record: dict[str, Any] = {"arm": line.arm, "phase": line.phase, "runs": line.runs}
    for name, found in (("best", line.best), ("test", line.test)):
        low, high = comparison.interval(found)
        record |= {
            f"{name}_median": comparison.metric_of(found.median),
            f"{name}_low": low,
            f"{name}_high": high,
        }
    for name, found in (
        ("steps_to_target", line.steps),
        ("cpu_seconds_to_target", line.seconds),
    ):
        record |= {
            f"{name}_median": found.median,
            f"{name}_low": found.low,
            f"{name}_high": found.high,
        }
    names = ("missed", "diverged", "failed", "stopped", "running", "trials", "search_diverged")
    record |= {name: getattr(line, name) for name in names}
    record |= {
        "state_bytes_per_parameter": line.state_bytes,
        "metric": comparison.metric,
        "mode": comparison.mode,
    }
    return record | {
        "target": None if comparison.target is None else comparison.metric_of(comparison.target)
    }


def _learning_rates(comparison: Comparison) -> list[dict[str, Any]]:
    path = comparison.rate_path()
    return [
        {
            "arm": row.arm,
            "trial": row.trial,
            "learning_rate": row.params[path],
            "best": row.best,
            "status": row.status,
        }
        for row in comparison.select(phase="search")
        if path and path in row.params
    ]


def _best_so_far(comparison: Comparison) -> list[dict[str, Any]]:
    records = []
    for arm in comparison.ranked:
        found = best_so_far([cost(row) for row in finished(comparison.select(arm, "search"))])
        for n, values in enumerate(zip(found.median, found.low, found.high, found.mean), start=1):
            names = ("median", "quartile_better", "quartile_worse", "mean")
            records.append(
                {"arm": arm, "trials": n} | dict(zip(names, map(comparison.metric_of, values)))
            )
    return records


def write_tables(
    folder: Path, tables: Mapping[str, Sequence[Mapping[str, Any]]], parquet: bool = True
) -> list[Path]:
    """Write NAME.csv and NAME.parquet of every table that has records. Returns the CSV files."""
    import pyarrow
    from pyarrow import parquet as arrow_parquet

    written = []
    for name, records in tables.items():
        if not records:
            continue
        columns = list(dict.fromkeys(column for record in records for column in record))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(records)
        path = folder / f"{name}.csv"
        path.write_text(text.getvalue(), encoding="utf-8", errors="backslashreplace")
        written.append(path)
        if parquet:
            table = pyarrow.table(
                {column: [record.get(column) for record in records] for column in columns}
            )
            arrow_parquet.write_table(table, path.with_suffix(".parquet"))
    return written
