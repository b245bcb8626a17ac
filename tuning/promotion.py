"""Evaluates trials of a sweep on test data, and saves the best trial as a model. Needs no Ray."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from genray import __version__
from genray.config import load_yaml
from genray.errors import CheckpointError, require
from genray.runs.modelstore import NAME
from genray.runs.rundir import verify_checkpoint
from tuning.plan import Sweep
from tuning.settings import format_settings
from tuning.training import Training, config_class, on_cpu, open_training
from tuning.trials import TrialRow, best_trial, read_trials


def measure_test(sweep: Path, row: TrialRow) -> dict[str, float]:
    """Evaluate the trial's best checkpoint on the test split. Returns name → figure.

    No other function reads the test split. Raises CheckpointError if the trial has no best
    checkpoint, because its metric was never finite.
    """
    with _best(sweep, row) as training:
        return training.measure_test()


@contextmanager
def _best(sweep: Path, row: TrialRow) -> Iterator[Training]:
    """Open the trial's training at its best step, with the test split available."""
    folder = sweep / row.path
    checkpoint = folder / "checkpoints" / f"{row.best_step or 0:08d}"
    if row.best_step is None or not (checkpoint / "manifest.json").exists():
        raise CheckpointError(
            f"{folder}: there is no checkpoint of the best step; the trial's status is "
            f"{row.status} ({row.error or 'no error'})"
        )
    verify_checkpoint(checkpoint)
    config: Any = load_yaml(config_class(row.family), folder / "config.yaml")
    training = open_training(row.family, on_cpu(row.family, config), sealed=False)
    try:
        training.load(checkpoint)
        yield training
    finally:
        training.close()


def promote(sweep: Path, name: str, models: Path, trial: str = "") -> Path:
    """Save a trial's model as `models`/`name`, and return that directory.

    `trial`: the name of a trial; empty for the best trial by validation. The model's config.json
    records how the sweep found the model. Raises ConfigError for an invalid or existing name or an
    unknown trial, and CheckpointError if no trial succeeded.
    """
    # Check the name, and choose the trial.
    require(
        bool(NAME.fullmatch(name)),
        f"--name {name!r}: use 1 to 64 characters of A-Z a-z 0-9 . _ -, beginning with a letter or "
        "a digit, e.g. best-vae",
    )
    folder = models / name
    require(not folder.exists(), f"--name {name}: {folder} exists already; choose another name")
    opened, rows = Sweep.open(sweep), read_trials(sweep)
    known = {row.trial: row for row in rows}
    require(
        not trial or trial in known,
        f"--trial {trial}: no such trial in this sweep; {sweep / 'trials.csv'} lists the trials",
    )
    row = known[trial] if trial else best_trial(rows)
    if row is None:
        raise CheckpointError(
            f"{sweep}: no trial has ended without an error; there is nothing to promote"
        )
    # Record how the model was found, for its config.json and its card.
    origin = {
        "sweep": sweep.resolve().name,
        "study": row.study,
        "arm": row.arm,
        "phase": row.phase,
        "trial": row.trial,
        "seed": row.seed,
        "params": row.params,
        "metric": row.metric,
        "mode": row.mode,
        "validation": row.best,
        "step": row.best_step,
        "of_trials": len([each for each in rows if each.status != "running"]),
        "search": opened.config.search,
        "scheduler": opened.config.scheduler,
        "genray": __version__,
    }
    chosen = "chosen by a person from" if trial else "the best of"
    words = (
        f"Trial {row.trial} of the sweep {origin['sweep']} ({row.study}): {row.metric} "
        f"{row.best:.5g}, {chosen} {origin['of_trials']} trials. The best of many trials has "
        "better figures on the data that chose it than on new data, so use the figures on test "
        f"data.\n\nSettings: {format_settings(row.params) or 'those of the preset'}; seed "
        f"{row.seed}."
    )
    # Load the best checkpoint, measure it on the test split, and save the model.
    models.mkdir(parents=True, exist_ok=True)
    with _best(sweep, row) as training:
        return training.export(folder, origin, words)
