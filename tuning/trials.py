"""What a sweep leaves for each trial: one row, in its own file, readable while the sweep still
runs.

SWEEP/trials/0007-adam-search/trial.json is written at each validation, whole or not at all, so
that a killed trial's row says how far it came. The table of all rows is made of these files:
they are the only record.
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
    """One trial of a sweep: what was tried, how it went, what came of it."""

    trial: str
    """The folder's name: number, arm and phase, e.g. `0007-adam-search`."""
    study: str
    family: str
    data: str
    arm: str
    """The choice that is compared, e.g. an optimizer's name; "all" where nothing is."""
    phase: Phase
    """`default`: the arm as it comes; `search`: a point of its space; `tuned`: the best such
    point with a fresh seed.
    """
    seed: int
    params: dict[str, Any] = field(default_factory=dict)
    """The arm's and the space's overrides: dotted path → value."""
    status: Status = "running"
    """`stopped`: early, by a scheduler. `diverged`: a loss that was no longer finite. `failed`:
    it raised; see `error`.
    """
    metric: str = "validation_loss"
    mode: Mode = "min"
    best: float | None = None
    """The metric's best finite value; None where there never was one."""
    best_step: int | None = None
    last: float | None = None
    """The last finite value."""
    steps: int = 0
    """Steps trained."""
    seconds: float = 0.0
    """CPU seconds of training, looks included: the trial process's own time, not the clock's."""
    state_bytes_per_parameter: float | None = None
    """Bytes of the optimizers' state by learned parameter."""
    curve: list[tuple[int, float, float]] = field(default_factory=list)
    """(step, CPU seconds so far, metric) at each look at the validation split."""
    error: str = ""
    """One line; "" where nothing went wrong."""
    path: str = ""
    """The trial's run directory, relative to the sweep's."""

    def better(self, value: float, than: float | None) -> bool:
        """Whether a value of this row's metric is finite and beats `than` (None: anything finite
        does).
        """
        if not math.isfinite(value):
            return False
        return than is None or (value < than if self.mode == "min" else value > than)


def write_trial(sweep: Path, row: TrialRow) -> None:
    """Write the row into its run directory, whole or not at all. The folder must exist."""
    path = sweep / row.path / TRIAL_FILE
    write_whole(path, json.dumps(dataclasses.asdict(row), indent=1).encode() + b"\n")


def read_trial(path: Path) -> TrialRow:
    """The row of one trial.json. Raises CheckpointError when it is damaged or not one."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        values["curve"] = [
            (int(step), float(seconds), float(value)) for step, seconds, value in values["curve"]
        ]
        row = TrialRow(**values)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path}: not a trial's record ({str(error).splitlines()[0]})"
        ) from error
    if row.status not in get_args(Status) or row.phase not in get_args(Phase):
        raise CheckpointError(
            f"{path}: status {row.status!r} of phase {row.phase!r} is not a trial's"
        )
    return row


def read_trials(sweep: Path) -> list[TrialRow]:
    """All rows of a sweep by the trials' numbers, those of running trials included.

    Raises CheckpointError when `sweep` is no sweep's folder, or a row in it is damaged.
    """
    if not (sweep / "sweep.yaml").is_file():
        raise CheckpointError(
            f"{sweep}: not a sweep (no sweep.yaml); a sweep's folder is what its --out named"
        )
    return [read_trial(path) for path in sorted((sweep / TRIALS_FOLDER).glob(f"*/{TRIAL_FILE}"))]


def best_trial(rows: Iterable[TrialRow]) -> TrialRow | None:
    """The row whose best value is best; of equals the first. None where no row has a finite value.

    Trials that diverged or failed do not stand for choice: their best weights were on the way to
    nothing.
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
    """trials.parquet and trials.csv: one row a trial, each written whole or not at all.

    Parameters become columns `param:PATH`; the curve is JSON. A parameter's column is text in
    parquet when its values are of several types (a choice of names in one arm, numbers in
    another).
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
    """A row without nesting: `param:PATH` for each parameter, the curve as JSON text."""
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
    """Values of one type for a column; numbers of both kinds are floats."""
    kinds = {type(value) for value in values if value is not None}
    if len(kinds) <= 1:
        return values
    convert: Any = float if kinds == {int, float} else str
    return [None if value is None else convert(value) for value in values]
