"""Reads and writes the rows of a sweep's trials, and the table of all rows.

The row of a trial is a JSON file such as SWEEP/trials/0007-adam-search/trial.json. The file is
replaced atomically at each evaluation, so it can be read while the sweep runs, and the row of a
killed trial shows its progress. The table is built from these files.
"""

import csv
import dataclasses
import io
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from genray.errors import CheckpointError
from genray.runs.files import write_whole

Phase = Literal["default", "search", "tuned"]
Status = Literal["done", "stopped", "diverged", "failed", "running"]
Mode = Literal["min", "max"]

TRIAL_FILE = "trial.json"
TRIALS_FOLDER = "trials"


@dataclass(frozen=True, kw_only=True)
class TrialRow:
    """The settings and results of one trial of a sweep."""

    trial: str
    """The name of the trial's directory: number, arm and phase, e.g. `0007-adam-search`."""
    study: str
    family: str
    data: str
    arm: str
    """The choice that is compared, e.g. an optimizer's name; "all" in a sweep without
    comparison.
    """
    phase: Phase
    """`default`: the arm with its default settings. `search`: a point of the arm's space. `tuned`:
    the best point of the search with a new seed.
    """
    seed: int
    params: dict[str, Any] = field(default_factory=dict)
    """The settings of the arm and of the point: dotted path → value."""
    status: Status = "running"
    """`stopped`: ended early by a scheduler. `diverged`: a loss was no longer finite. `failed`: an
    exception was raised; see `error`.
    """
    metric: str = "validation_loss"
    mode: Mode = "min"
    best: float | None = None
    """Best finite value of the metric; None if there never was one."""
    best_step: int | None = None
    last: float | None = None
    """Last finite value of the metric."""
    steps: int = 0
    """Number of steps trained."""
    seconds: float = 0.0
    """CPU seconds of the trial's process for training and evaluations, not wall-clock time."""
    state_bytes_per_parameter: float | None = None
    """Bytes of the optimizers' state for each learned parameter."""
    curve: list[tuple[int, float, float]] = field(default_factory=list)
    """(step, CPU seconds so far, metric) at each evaluation on the validation split."""
    error: str = ""
    """One line; empty if there was no error."""
    path: str = ""
    """The trial's run directory, relative to the sweep's directory."""

    def better(self, value: float, than: float | None) -> bool:
        """Whether a value of this row's metric is finite and better than `than` (None: any finite
        value is better).
        """
        if not math.isfinite(value):
            return False
        return than is None or (value < than if self.mode == "min" else value > than)


def write_trial(sweep: Path, row: TrialRow) -> None:
    """Write the row into its run directory atomically. The directory must exist."""
    path = sweep / row.path / TRIAL_FILE
    write_whole(path, json.dumps(dataclasses.asdict(row), indent=1).encode() + b"\n")


def read_trial(path: Path) -> TrialRow:
    """Read the row of one trial.json. Raises CheckpointError if the file is damaged or not a
    row.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        values["curve"] = [
            (int(step), float(seconds), float(value)) for step, seconds, value in values["curve"]
        ]
        row = TrialRow(**values)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path}: not the row of a trial ({str(error).splitlines()[0]})"
        ) from error
    if row.status not in get_args(Status) or row.phase not in get_args(Phase):
        raise CheckpointError(
            f"{path}: not the row of a trial (status {row.status!r}, phase {row.phase!r})"
        )
    return row


def read_trials(sweep: Path) -> list[TrialRow]:
    """Read all rows of a sweep in the order of the trials' numbers, including those of running
    trials.

    Raises CheckpointError if `sweep` is not a sweep's directory, or a row is damaged.
    """
    if not (sweep / "sweep.yaml").is_file():
        raise CheckpointError(
            f"{sweep}: not a sweep (no sweep.yaml); name the directory of a sweep, e.g. runs/sweep"
        )
    return [read_trial(path) for path in sorted((sweep / TRIALS_FOLDER).glob(f"*/{TRIAL_FILE}"))]


def best_trial(rows: Iterable[TrialRow]) -> TrialRow | None:
    """Return the row with the best value, the first one of equals; None if there is no such row.

    Trials that diverged or failed are excluded, because their best weights led to the failure.
    """
    best: TrialRow | None = None
    for row in rows:
        sound = row.best is not None and row.status in ("done", "stopped")
        if (
            sound
            and row.best is not None
            and row.better(row.best, None if best is None else best.best)
        ):
            best = row
    return best


def write_table(sweep: Path, rows: Sequence[TrialRow]) -> None:
    """Write trials.parquet and trials.csv with one row for each trial. Each file is replaced
    atomically.

    Parameters become columns `param:PATH`; the curve is JSON. In parquet, a parameter's column is
    text if its values have several types (e.g. names in one arm, numbers in another).
    """
    import pyarrow as arrow
    from pyarrow import parquet

    records = [flatten(row) for row in rows]
    names = list(dict.fromkeys(name for record in records for name in record))
    if not records:
        names = [each.name for each in dataclasses.fields(TrialRow) if each.name != "params"]
    columns = {name: _column([record.get(name) for record in records]) for name in names}
    sink = io.BytesIO()
    parquet.write_table(arrow.table(columns), sink)
    write_whole(sweep / "trials.parquet", sink.getvalue())
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    write_whole(sweep / "trials.csv", text.getvalue().encode(errors="backslashreplace"))


def flatten(row: TrialRow) -> dict[str, Any]:
    """Return the row as one record: `param:PATH` for each parameter, the curve as JSON text."""
    values = {
        each.name: getattr(row, each.name)
        for each in dataclasses.fields(row)
        if each.name != "params"
    }
    values["curve"] = json.dumps(row.curve)
    return values | {f"param:{path}": _scalar(value) for path, value in row.params.items()}


def _scalar(value: Any) -> Any:
    return (
        value if value is None or isinstance(value, bool | int | float | str) else json.dumps(value)
    )


def _column(values: list[Any]) -> list[Any]:
    """Convert the values of a column to one type; a mix of integers and floats becomes floats."""
    kinds = {type(value) for value in values if value is not None}
    if len(kinds) <= 1:
        return values
    convert: Any = float if kinds == {int, float} else str
    return [None if value is None else convert(value) for value in values]
