"""Runs one trial of a sweep in its run directory, without Ray, and records the results in its row.

A trial whose loss is not finite gets the status `diverged`. A trial that raises another exception
gets the status `failed`. The run directory keeps the best checkpoint by validation, and a recent
checkpoint from which a killed trial continues.
"""

import dataclasses
import hashlib
import json
import math
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from genray.config import save_yaml
from genray.errors import RunFault
from genray.runs.rundir import MetricsLog, RunDir
from genray.threads import user_threads
from tuning.settings import changed
from tuning.training import EvaluationResult, Training, open_training, with_seed
from tuning.trials import TrialRow, read_trial, write_trial

WORST = 1e30
"""Value of the metric for a trial without a finite result: WORST if lower is better, else −WORST.
Search algorithms do not accept NaN.
"""
SAVE_EVERY_S = 15.0
"""CPU seconds of training between checkpoints that are not the best so far."""
ROW_FILE, CLONE_FILE = "row.json", "clone.json"
CLONES_FILE = "clones.jsonl"
"""File with one JSON line for each time that the trial became a copy of another trial: the step,
the other trial, and the settings.
"""


class TrialRun:
    """Runs one trial in its run directory. If the directory has a checkpoint, the trial continues.

    Args:
        sweep: the directory of the sweep; the run directory is `sweep`/`row.path`.
        row: the trial's row as far as it is known.
        base: the configuration, which the row's settings change.
        barrier: for a member of a population, the number of evaluations between barriers. The
            checkpoints at barriers are kept until all members have passed the next barrier. 0: the
            trial is not a member of a population.
    """

    def __init__(self, sweep: Path, row: TrialRow, base: Any, barrier: int = 0):
        self.sweep, self.row = sweep, row
        self._base, self._barrier = base, barrier
        self._run = RunDir(sweep / row.path)
        self._training: Training | None = None
        self._log: MetricsLog | None = None
        self._evaluations: Iterator[EvaluationResult] = iter(())
        self._saved_at_s = 0.0
        self._seconds = row.seconds
        self._locked = False

    # -- training ----------------------------------------------------------------------------------

    def advance(self) -> dict[str, Any]:
        """Train up to the next evaluation that counts, and return the result for Ray Tune.

        The result has the metric, all finite figures of the evaluation, `best`, `look` (the number
        of evaluations), `steps`, `cpu_seconds`, `status` and `done`. Exceptions of the training end
        the trial and are not raised.
        """
        values: Mapping[str, float] = {}
        # Train; an exception ends the trial.
        if self.row.status == "running":
            try:
                values = self._next_evaluation()
            except Exception as error:
                self._end(_failure_status(error, self._training), _line(error))
        # Search algorithms need a finite number for every trial.
        known = (
            self.row.curve[-1][2]
            if self.row.curve and self.row.status in ("running", "done")
            else None
        )
        metric = _worst(self.row.mode) if known is None or not math.isfinite(known) else known
        figures = {name: value for name, value in values.items() if math.isfinite(value)}
        return {
            **figures,
            self.row.metric: metric,
            "best": self.row.best
            if self.row.best is not None and metric != _worst(self.row.mode)
            else metric,
            "look": len(self.row.curve),
            "steps": self.row.steps,
            "cpu_seconds": self.row.seconds,
            "status": self.row.status,
            "done": self.row.status != "running",
        }

    def _next_evaluation(self) -> Mapping[str, float]:
        """Train up to the next evaluation that counts, and return its figures."""
        training = self.open()
        # All evaluations exist already if the process was killed before it completed the row.
        if len(self.row.curve) >= training.planned_evaluations:
            self._end("done")
            return {}
        start = time.process_time()
        # Train up to an evaluation that counts. Training and evaluation count as the trial's time,
        # saving does not.
        for result in self._evaluations:
            self._seconds += time.process_time() - start
            assert self._log is not None
            self._log.write(result.step, {**result.values, "cpu_seconds": self._seconds})
            if result.counts:
                self._record(result, training)
                return result.values
            self._save_if_due(training, result.step, None)
            start = time.process_time()
        self._seconds += time.process_time() - start
        self._end("done")
        return {}

    def _record(self, result: EvaluationResult, training: Training) -> None:
        """Add an evaluation to the row, and save a checkpoint if one is due."""
        # Update the row with the new value.
        row, value = self.row, result.values.get(self.row.metric, math.nan)
        if row.state_bytes_per_parameter is None:
            row = replace(row, state_bytes_per_parameter=training.state_bytes_per_parameter())
        better = row.better(value, row.best)
        if math.isfinite(value):
            row = replace(row, last=value)
        if better:
            row = replace(row, best=value, best_step=result.step)
        self.row = replace(
            row,
            steps=result.step,
            seconds=round(self._seconds, 4),
            curve=[*row.curve, (result.step, round(self._seconds, 4), value)],
        )
        # The checkpoint is saved before the row. If the trial is killed in between, the row must
        # not name a best checkpoint that is not on the disk.
        at_barrier = self._barrier > 0 and len(self.row.curve) % self._barrier == 0
        self._save_if_due(training, result.step, value if better else None, must=at_barrier)
        if len(self.row.curve) >= training.planned_evaluations:
            self._end("done")
        else:
            write_trial(self.sweep, self.row)

    def _save_if_due(
        self, training: Training, step: int, best: float | None, must: bool = False
    ) -> None:
        """Save a checkpoint if it is the best so far, if `must`, or after SAVE_EVERY_S."""
        if not must and best is None and self._seconds - self._saved_at_s < SAVE_EVERY_S:
            return
        self._checkpoint(training, step, best)
        self._saved_at_s = self._seconds

    def _checkpoint(self, training: Training, step: int, best: float | None) -> None:
        """Save the training and the row at `step` in one directory, so that they always agree."""

        def fill(folder: Path) -> None:
            training.save(folder)
            self._write_row(folder)

        score = None if best is None else best if self.row.mode == "max" else -best
        # Other members may not have reached this barrier yet. A killed sweep then continues from
        # the previous barrier.
        keep = self._barrier + 2 if self._barrier else 1
        self._run.write_checkpoint(step, fill, keep=keep, score=score)

    def _end(self, status: Any, error: str = "") -> None:
        """Write the trial's final status to its row."""
        self.row = replace(self.row, status=status, error=error, seconds=round(self._seconds, 4))
        write_trial(self.sweep, self.row)

    # -- opening and closing -----------------------------------------------------------------------

    def open(self) -> Training:
        """Return the training. The first call creates the training, and continues from the newest
        checkpoint if there is one.
        """
        if self._training is None:
            training = self._start()
            folder = self._run.latest_checkpoint() if self._run.list_checkpoints() else None
            if folder is not None:
                training.load(folder)
                row = read_trial(folder / ROW_FILE)
                self.row, self._seconds, self._saved_at_s = row, row.seconds, row.seconds
            else:
                self.row = replace(
                    self.row, curve=[], best=None, best_step=None, last=None, steps=0, seconds=0.0
                )
                self._seconds = 0.0
            self._begin(training, int(folder.name) if folder is not None else -1)
        assert self._training is not None
        return self._training

    def _start(self) -> Training:
        """Lock the run directory, and create the training at step 0."""
        config = with_seed(self.row.family, changed(self._base, self.row.params), self.row.seed)
        config.validate()
        self._run.path.mkdir(parents=True, exist_ok=True)
        self._run.__enter__()
        self._locked = True
        torch.set_num_threads(user_threads() or 1)  # Several trials share the cores.
        save_yaml(config, self._run.path / "config.yaml")
        return open_training(self.row.family, config)

    def _begin(self, training: Training, step: int | None = None) -> None:
        self._log = MetricsLog(self._run, step)
        self._training, self._evaluations = training, iter(training.evaluations())

    def close(self) -> None:
        """Save a running trial, so that it can continue, and unlock its run directory."""
        training, self._training = self._training, None
        # Save a running trial, so that it can continue.
        if training is not None:
            if self.row.status == "running" and self.row.curve and training.is_finite():
                self._checkpoint(
                    training,
                    self.row.steps,
                    self.row.best if self.row.best_step == self.row.steps else None,
                )
            training.close()
        if self._log is not None:
            self._log.close()
            self._log = None
        if self._locked:
            self._run.__exit__(None, None, None)
            self._locked = False

    # -- copying state, for population based training ----------------------------------------------

    def save(self, folder: Path, *, with_model: bool = False) -> None:
        """Save the complete state of training and its digest in `folder`.

        Of a trial that diverged or failed, only a note is saved that there is no state.
        `with_model`: also save the row, and the model as `folder`/model, even if the trial has
        ended. The state can then be loaded without any other file of this trial.
        """
        training, alive = (
            self._training,
            self.row.status == "running" and self._training is not None,
        )
        about: dict[str, Any] = {"trial": self.row.trial, "step": self.row.steps, "alive": alive}
        about["value"] = self.row.curve[-1][2] if self.row.curve else math.nan
        # A running trial has a state that others can copy. With the model, the state of a trial
        # that has ended is saved, too.
        if training is not None and (alive or (with_model and self.row.status == "done")):
            training.save(folder)
            about["digest"] = digest(training.state())
            if with_model:
                self._write_row(folder)
                training.save_model(folder / "model")
        (folder / CLONE_FILE).write_text(json.dumps(about), encoding="utf-8")

    def _write_row(self, folder: Path) -> None:
        row = replace(self.row, seconds=self._seconds)
        (folder / ROW_FILE).write_text(json.dumps(dataclasses.asdict(row)), encoding="utf-8")

    def load(self, folder: Path) -> None:
        """Continue from the state that this trial or another trial has saved in `folder`.

        The state is restored bit for bit, but the settings are those of this trial. Raises RunFault
        if the loaded state differs from the saved state.
        """
        about = json.loads((folder / CLONE_FILE).read_text(encoding="utf-8"))
        own = about["trial"] == self.row.trial and (folder / ROW_FILE).exists()
        # The note of a trial without a state changes nothing.
        if not about["alive"] and not own:
            return
        self.close()
        # Load the state, and compare its digest with the saved digest.
        training = self._start()
        training.load(folder)
        about["digest"], saved = digest(training.state()), about["digest"]
        if about["digest"] != saved:
            raise RunFault(
                f"{folder}: the restored state differs from the state that {about['trial']} saved"
            )
        self._begin(training, about["step"] if own else None)
        # Restore the row, or mark the trial as a copy.
        if own:
            row = read_trial(folder / ROW_FILE)
            self.row = replace(row, params=self.row.params, path=self.row.path)
            self._seconds = self._saved_at_s = row.seconds
        else:
            # The row keeps the trial's earlier results. All new results belong to the copy.
            self.row = replace(self.row, steps=about["step"], status="running", error="")
        if about["trial"] != self.row.trial:
            self._become_clone(training, about)
        write_trial(self.sweep, self.row)

    def _become_clone(self, training: Training, about: Mapping[str, Any]) -> None:
        """Record that this trial now has the state of another trial, and save a checkpoint."""
        rates = {
            path: value for path, value in self.row.params.items() if isinstance(value, int | float)
        }
        # Record the copy in the metrics and in CLONES_FILE.
        assert self._log is not None
        self._log.write(about["step"], {"cloned": 1, **rates})
        line = {
            "step": about["step"],
            "of": about["trial"],
            "digest": about["digest"],
            "settings": self.row.params,
        }
        with (self._run.path / CLONES_FILE).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        value = about["value"]
        better = self.row.better(value, self.row.best)
        if better:
            self.row = replace(self.row, best=value, best_step=about["step"])
        # A checkpoint is saved at once, because the trial's newest checkpoint precedes the copy.
        self._checkpoint(training, about["step"], value if better else None)


def digest(tensors: Iterable[torch.Tensor]) -> str:
    """Return the SHA-256 of the bytes of all tensors, in order, as hexadecimal digits."""
    total = hashlib.sha256()
    for tensor in tensors:
        total.update(
            tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
        )
    return total.hexdigest()


def _failure_status(error: Exception, training: Training | None) -> str:
    """Return the status of a trial that raised `error`: "diverged" or "failed".

    Weights that are not finite can cause many kinds of exceptions, so the weights are checked, too.
    """
    diverged = isinstance(error, RunFault) or (training is not None and not training.is_finite())
    return "diverged" if diverged else "failed"


def _line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0] if text else 'no message'}"


def _worst(mode: str) -> float:
    return WORST if mode == "min" else -WORST
