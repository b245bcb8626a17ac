"""Builds the tables of a sweep's report: a line for each arm and phase, and the charts' data."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tuning.report.importance import Importances, importances, varied
from tuning.report.stats import (
    Effect,
    Estimate,
    best_so_far,
    cost,
    effect,
    estimate,
    finished,
    from_cost,
    ratios_to_quickest,
    target_cost,
    to_target,
)
from tuning.trials import TrialRow, best_trial

BASELINES = ("none", "off", "baseline")
"""Arms with one of these names are the baseline of their study."""
PHASES = ("default", "tuned", "search")


def words(name: str) -> str:
    """Convert a metric's name to text."""
    return name.replace("_", " ").replace("/", " ")


Tests = Mapping[str, Mapping[str, float]]
"""Trial → its metrics on the test split; empty if they are not available."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """One arm in one phase. The estimates of best and test are costs (see stats.py)."""

    arm: str
    phase: str
    runs: int
    """Number of finished runs."""
    running: int
    diverged: int
    failed: int
    stopped: int
    best: Estimate
    test: Estimate
    steps: Estimate
    """Steps until the target was reached."""
    seconds: Estimate
    """CPU seconds until the target was reached."""
    missed: int
    """Number of runs that never reached the target."""
    state_bytes: float | None
    """Bytes of optimizer state for each learned parameter."""
    trials: int
    """Number of finished search trials before these runs."""
    search_diverged: int
    """Number of these search trials that diverged."""


class Comparison:
    """Evaluates the rows of one sweep.

    `tests`: metrics on the test split, for the trials that have any. `waiting`: number of planned
    trials that have not ended, including those without a row.
    """

    def __init__(self, rows: Sequence[TrialRow], tests: Tests | None = None, waiting: int = 0):
        self.rows, self.tests, self.waiting = list(rows), dict(tests or {}), waiting
        self.arms = list(dict.fromkeys(row.arm for row in self.rows))
        first = self.rows[0] if self.rows else None
        self.metric = first.metric if first else "validation_loss"
        self.mode = first.mode if first else "min"
        self.study, self.family, self.data = (
            (first.study, first.family, first.data) if first else ("", "", "")
        )
        self.target = target_cost(self.rows)

    def of(self, arm: str | None = None, phase: str | None = None) -> list[TrialRow]:
        return [row for row in self.rows if arm in (None, row.arm) and phase in (None, row.phase)]

    @property
    def phases(self) -> list[str]:
        return [phase for phase in PHASES if self.of(phase=phase)]

    @cached_property
    def judged(self) -> str:
        """The phase by which arms are ranked: tuned if every arm has a tuned run that has ended or
        will have none; otherwise default if any default run has ended; otherwise the best trial
        of the search.
        """
        if finished(self.of(phase="tuned")) and not self.untuned:
            return "tuned"
        return next(
            (phase for phase in ("default", "tuned") if finished(self.of(phase=phase))), "search"
        )

    @property
    def untuned(self) -> list[str]:
        """Arms without a finished tuned run that may still get one: none of their searches is
        known to have failed.
        """
        waiting = [arm for arm in self.arms if not finished(self.of(arm, "tuned"))]
        return [arm for arm in waiting if not self._hopeless(arm)]

    def _hopeless(self, arm: str) -> bool:
        """Whether the arm's search ended without a successful trial, so it has no tuned runs."""
        rows = self.of(arm, "search")
        return bool(rows) and len(finished(rows)) == len(rows) and best_trial(rows) is None

    def metric_of(self, value: float) -> float:
        return from_cost(value, self.mode)

    @property
    def metric_label(self) -> str:
        """The metric's name with its direction. The unit depends on the family (nats, a
        share, …) and is not known here.
        """
        return f"{words(self.metric)} ({'lower' if self.mode == 'min' else 'higher'} is better)"

    @property
    def test_metric(self) -> str:
        """The validation metric's name on the test split; "" if no test result has it."""
        names = [self.metric.removeprefix("validation_").removeprefix("evaluation_"), self.metric]
        return next(
            (name for name in names if any(name in figures for figures in self.tests.values())), ""
        )

    def test_cost(self, row: TrialRow) -> float | None:
        """Return the row's test metric as a cost: ∞ for a failure, None if it was not measured."""
        if not self.test_metric:
            return None
        if not math.isfinite(cost(row)):
            return math.inf
        value = self.tests.get(row.trial, {}).get(self.test_metric)
        return None if value is None else value if self.mode == "min" else -value

    # -- arms --------------------------------------------------------------------------------------

    def line(self, arm: str, phase: str) -> Line:
        rows, search = self.of(arm, phase), finished(self.of(arm, "search"))
        done = finished(rows)
        times = [to_target(row, self.target) for row in done]
        states = [
            row.state_bytes_per_parameter
            for row in rows
            if row.state_bytes_per_parameter is not None
        ]
        tests = [value for row in done if (value := self.test_cost(row)) is not None]
        return Line(
            arm=arm,
            phase=phase,
            runs=len(done),
            running=len(rows) - len(done),
            diverged=sum(row.status == "diverged" for row in done),
            failed=sum(row.status == "failed" for row in done),
            stopped=sum(row.status == "stopped" for row in done),
            best=estimate([cost(row) for row in done]),
            test=estimate(tests),
            steps=estimate([steps for steps, _ in times]),
            seconds=estimate([seconds for _, seconds in times]),
            missed=sum(not math.isfinite(steps) for steps, _ in times),
            state_bytes=states[0] if states else None,
            trials=0 if phase == "default" else len(search),
            search_diverged=0
            if phase == "default"
            else sum(row.status == "diverged" for row in search),
        )

    @cached_property
    def lines(self) -> list[Line]:
        """Arms from the best to the worst in the ranked phase, default before tuned. Search
        lines appear only if an arm has no other.
        """
        phases = [phase for phase in self.phases if phase != "search"] or ["search"]
        return [
            self.line(arm, phase) for arm in self.ranked for phase in phases if self.of(arm, phase)
        ]

    @cached_property
    def ranked(self) -> list[str]:
        def key(arm: str) -> tuple[float, float]:
            costs = [cost(row) for row in finished(self.of(arm, self.judged))]
            if not costs:
                return math.inf, math.inf
            return (estimate(costs).median if self.judged != "search" else min(costs)), min(costs)

        return sorted(self.arms, key=key)

    def find(self, arm: str, phase: str) -> Line | None:
        return next((line for line in self.lines if (line.arm, line.phase) == (arm, phase)), None)

    def by_seed(self, arm: str, phase: str, test: bool = False) -> dict[int, float]:
        """Return seed → cost."""
        values = {
            row.seed: self.test_cost(row) if test else cost(row)
            for row in finished(self.of(arm, phase))
        }
        return {seed: value for seed, value in values.items() if value is not None}

    def chosen(self, arm: str) -> TrialRow | None:
        """Return the search trial whose settings the arm's tuned runs use."""
        return best_trial(self.of(arm, "search"))

    # -- data of the charts ------------------------------------------------------------------------

    @property
    def baseline(self) -> str | None:
        return (
            next((arm for arm in self.arms if arm.lower() in BASELINES), None)
            if len(self.arms) > 1
            else None
        )

    def effects(self, test: bool = False) -> dict[str, Effect]:
        """Return each arm's cost minus the baseline's, in the ranked phase. Empty without a
        baseline, or without a phase with seeds.
        """
        if self.baseline is None or self.judged == "search":
            return {}
        base = self.by_seed(self.baseline, self.judged, test)
        found = {
            arm: effect(self.by_seed(arm, self.judged, test), base)
            for arm in self.ranked
            if arm != self.baseline
        }
        return {arm: each for arm, each in found.items() if each is not None}

    def profile_ratios(self) -> dict[str, list[float]]:
        """Return arm → steps to the target divided by the fastest arm's, at each seed of the ranked
        phase.
        """
        if self.judged == "search" or len(self.arms) < 2 or self.target is None:
            return {}
        times = {
            arm: {
                row.seed: to_target(row, self.target)[0]
                for row in finished(self.of(arm, self.judged))
            }
            for arm in self.ranked
        }
        return ratios_to_quickest(times)

    @cached_property
    def importances(self) -> dict[str, Importances]:
        found = {arm: importances(self.of(arm, "search")) for arm in self.ranked}
        return {arm: each for arm, each in found.items() if each is not None}

    # -- tables ------------------------------------------------------------------------------------

    def tables(self) -> dict[str, list[dict[str, Any]]]:
        """Return name → records in the metric's sign; ∞ (−∞ if higher is better) means none."""
        return {
            "arms": [self._record(line) for line in self.lines],
            "learning_rates": self._learning_rates(),
            "best_so_far": self._best_so_far(),
            "chosen": [
                {"arm": arm, "trial": best.trial, "best": best.best}
                | {name: str(best.params.get(name)) for name in varied(self.of(arm, "search"))}
                for arm in self.ranked
                if (best := self.chosen(arm)) is not None
            ],
            "profile": [
                {"arm": arm, "problem": number, "steps_by_quickest": ratio}
                for arm, ratios in self.profile_ratios().items()
                for number, ratio in enumerate(sorted(ratios))
            ],
            "effects": [
                {
                    "arm": arm,
                    "against": self.baseline,
                    "split": split,
                    "difference": self.metric_of(found.difference.median),
                }
                | dict(zip(("low", "high"), self.interval(found.difference)))
                | {"paired": found.paired, "better": found.better, "pairs": found.pairs}
                for split in ("validation", "test")
                for arm, found in self.effects(split == "test").items()
            ],
            "importances": [
                {
                    "arm": arm,
                    "parameter": name,
                    "importance": value,
                    "explained": found.explained,
                    "trials": found.trials,
                }
                for arm, found in self.importances.items()
                for name, value in found.importance.items()
            ],
            "test": [{"trial": trial, **figures} for trial, figures in self.tests.items()],
        }

    def interval(self, found: Estimate) -> tuple[float, float]:
        """Return the interval's bounds in the metric, the lower one first."""
        low, high = self.metric_of(found.low), self.metric_of(found.high)
        return (high, low) if low > high else (low, high)

    def _record(self, line: Line) -> dict[str, Any]:
        record: dict[str, Any] = {"arm": line.arm, "phase": line.phase, "runs": line.runs}
        for name, found in (("best", line.best), ("test", line.test)):
            low, high = self.interval(found)
            record |= {
                f"{name}_median": self.metric_of(found.median),
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
            "metric": self.metric,
            "mode": self.mode,
        }
        return record | {"target": None if self.target is None else self.metric_of(self.target)}

    def rate_path(self) -> str:
        """Return the parameter that is the learning rate; "" if no search varied it."""
        names = dict.fromkeys(name for row in self.of(phase="search") for name in row.params)
        rates = sorted(
            (name for name in names if name.endswith("learning_rate")),
            key=lambda name: (name.count("_"), name),
        )
        return rates[0] if rates else ""

    def _learning_rates(self) -> list[dict[str, Any]]:
        path = self.rate_path()
        return [
            {
                "arm": row.arm,
                "trial": row.trial,
                "learning_rate": row.params[path],
                "best": row.best,
                "status": row.status,
            }
            for row in self.of(phase="search")
            if path and path in row.params
        ]

    def _best_so_far(self) -> list[dict[str, Any]]:
        records = []
        for arm in self.ranked:
            found = best_so_far([cost(row) for row in finished(self.of(arm, "search"))])
            for n, values in enumerate(
                zip(found.median, found.low, found.high, found.mean), start=1
            ):
                names = ("median", "quartile_better", "quartile_worse", "mean")
                records.append(
                    {"arm": arm, "trials": n} | dict(zip(names, map(self.metric_of, values)))
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
