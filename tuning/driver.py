"""Runs a sweep on Ray Tune: chooses the next trial, stops trials early, and shows progress.

The training processes write the files of their trials, and a resumed sweep reads only these files.
The saved state of Tune is not used, because Tune saves its state only every ten seconds: a trial
that ended just before a crash would run again.
"""

import logging
import math
import os
import re
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ray
from ray import tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler
from ray.tune.search import Searcher

from genray.distributed.session import node_cpus
from genray.errors import ResourceError
from genray.runs.live import Live
from tuning.plan import Slot, Sweep
from tuning.population import align, population
from tuning.trainable import SweepTrial
from tuning.trials import TrialRow, best_trial, write_trial

COLUMNS = (
    ("running", "running", "{}"),
    ("diverged", "diverged", "{}"),
    ("failed", "failed", "{}"),
    ("arm", "best arm", "{}"),
    ("best", "best", "{:.5g}"),
)

EXCEPTION = re.compile(r"(?:[a-z_]\w*\.)*([A-Z]\w*(?:Error|Exception|Fault|Exit|Interrupt)): (.+)")
"""Matches the last line of a traceback. The groups are the exception's name, without its module,
and the message.
"""


def check_resources(sweep: Sweep, cpus: float, gpus: float) -> int:
    """Return how many trials run at once on `cpus` CPUs and `gpus` GPUs.

    Raises ResourceError if the sweep requests more than these resources.
    """
    config = sweep.config
    most = int(cpus / config.cpus_each + 1e-6)
    if config.cpus_each > cpus:
        raise ResourceError(
            f"--cpus-each {config.cpus_each:g}: there are {cpus:g} CPUs; use at most --cpus-each "
            f"{cpus:g}"
        )
    if config.gpus_each > gpus:
        advice = "leave the option out" if not gpus else f"use at most --gpus-each {gpus:g}"
        raise ResourceError(f"--gpus-each {config.gpus_each:g}: there are {gpus:g} GPUs; {advice}")
    if config.gpus_each:
        # A fraction of a GPU never spans two GPUs.
        a_gpu = int(1 / config.gpus_each + 1e-6) if config.gpus_each <= 1 else 1 / config.gpus_each
        most = min(most, int(gpus * a_gpu + 1e-6))
    if config.parallel > most:
        raise ResourceError(
            f"--parallel {config.parallel}: {cpus:g} CPUs and {gpus:g} GPUs are enough for {most} "
            f"trials at once, with --cpus-each {config.cpus_each:g} and --gpus-each "
            f"{config.gpus_each:g}; use at most --parallel {most}"
        )
    return config.parallel or most


class PlanSearch(Searcher):
    """Suggests the trials of the plan that have not ended, in the order of the plan.

    An *arm* is one choice that the study compares, e.g. an optimizer. Its *tuned* trials use the
    best settings of its search, so they begin only when the search has ended.

    Args:
        sweep: the plan, and the rows of its trials.
    """

    def __init__(self, sweep: Sweep):
        super().__init__(metric=sweep.metric, mode=sweep.mode)
        self._sweep = sweep
        self._waiting: list[tuple[Slot, TrialRow | None]] = sweep.waiting()
        self._optuna: dict[str, Any] = {}
        self._asked: dict[str, str] = {}  # Tune's trial id -> arm, if Optuna waits for the result
        # Tune's trial id -> a trial that Optuna suggested before the sweep was resumed
        self._resumed: dict[str, Slot] = {}

    @property
    def num_waiting(self) -> int:
        """Number of trials that have not been suggested yet."""
        return len(self._waiting)

    def suggest(self, trial_id: str) -> Any:
        """Return Tune's configuration of the next trial, which has only the trial's name.

        Returns None if the remaining trials must wait, and Searcher.FINISHED if there are none.
        """
        # A tuned trial waits until the search of its arm has ended.
        for position, (slot, row) in enumerate(self._waiting):
            if row is None and slot.phase == "tuned" and not self._sweep.searched(slot.arm):
                continue
            del self._waiting[position]
            if row is None:
                settings = self._settings(slot, trial_id)
                if settings is None:  # no trial of this arm's search succeeded
                    return self.suggest(trial_id)
                row = self._sweep.begin(slot, settings)
            elif slot.phase == "search" and not self._sweep.points:
                self._resumed[trial_id] = slot
            return {"trial": row.trial}
        return None if self._waiting else Searcher.FINISHED

    def _settings(self, slot: Slot, trial_id: str) -> dict[str, Any] | None:
        """Return the settings that the arm's search varies, for a trial that begins now."""
        sweep, arm = self._sweep, self._sweep.arm(slot.arm)
        # Settings come from the arm, from its best search trial, from the plan, or from Optuna.
        if slot.phase == "default":
            return dict(arm.default)
        if slot.phase == "tuned":
            return sweep.tuned(slot.arm)
        if sweep.points:
            return sweep.points[slot.arm][slot.index]
        self._asked[trial_id] = slot.arm
        return arm.space.resolve(self._optuna_of(slot.arm).suggest(trial_id))

    def _optuna_of(self, arm: str) -> Any:
        """Return the Optuna search of an arm. A new search receives the results of all trials that
        have ended already.
        """
        if arm not in self._optuna:
            import optuna
            from ray.tune.search.optuna import OptunaSearch

            optuna.logging.set_verbosity(optuna.logging.WARNING)
            sweep, space = self._sweep, self._sweep.arm(arm).space
            ended = [
                row for row in sweep.search_rows(arm) if row is not None and row.status != "running"
            ]
            number = [each.name for each in sweep.study.arms].index(arm)
            sampler = optuna.samplers.TPESampler(
                seed=(sweep.config.seed * 1009 + number) * 1009 + len(ended)
            )
            self._optuna[arm] = search = OptunaSearch(
                OptunaSearch.convert_search_space(space.to_tune()),
                metric="best",
                mode=sweep.mode,
                sampler=sampler,
            )
            for row in ended:
                self._add_to_optuna(search, arm, row)
        return self._optuna[arm]

    def _add_to_optuna(self, search: Any, arm: str, row: TrialRow) -> None:
        """Add to Optuna's study a trial that this Optuna search did not suggest."""
        known, point = (
            row.best is not None and row.status in ("done", "stopped"),
            self._sweep.arm(arm).space.point,
        )
        search.add_evaluated_point(point(row.params), row.best if known else 0.0, error=not known)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Pass a trial's result to Optuna, if the arm's search uses Optuna."""
        arm = self._asked.pop(trial_id, None)
        if arm is not None:
            self._optuna[arm].on_trial_complete(trial_id, result, error)
        slot = self._resumed.pop(trial_id, None)
        row = self._sweep.row(slot) if slot is not None else None
        # An Optuna search that is created later reads the row itself.
        if row is not None and row.status != "running" and row.arm in self._optuna:
            self._add_to_optuna(self._optuna[row.arm], row.arm, row)

    def save(self, checkpoint_path: str) -> None:
        """Write a note instead of a state, because a resumed sweep reads the trials' files."""
        Path(checkpoint_path).write_text("see the sweep's trials\n", encoding="utf-8")

    def restore(self, checkpoint_path: str) -> None:
        """Do nothing."""


class Halving(AsyncHyperBandScheduler):
    """ASHA with evaluations as its unit of time. [Li 2020, https://arxiv.org/abs/1810.05934]

    Args:
        sweep: the sweep. Trials that ended before the sweep was resumed are compared, too.
        evaluations: number of evaluations of a trial of full length.
    """

    def __init__(self, sweep: Sweep, evaluations: int):
        super().__init__(
            time_attr="look",
            max_t=max(2, evaluations),
            grace_period=1,
            reduction_factor=sweep.config.reduction,
        )
        # In a resumed sweep, report the earlier results again: of ended trials now, and of trials
        # that continue when Tune adds them.
        self._begun: dict[str, TrialRow] = {}
        for row in sweep.rows():
            if row.status == "running":
                self._begun[row.trial] = row
            else:
                self._replay(row, f"before {row.trial}")

    def _replay(self, row: TrialRow, trial_id: str) -> None:
        """Report the finite values of a row's curve to the scheduler."""
        sign = -1.0 if row.mode == "min" else 1.0
        for evaluation, value in enumerate(
            (value for _, _, value in row.curve if math.isfinite(value)), 1
        ):
            self._brackets[0].on_result(
                SimpleNamespace(trial_id=trial_id), evaluation, sign * value
            )

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        super().on_trial_add(tune_controller, trial)
        row = self._begun.pop(trial.config["trial"], None)
        if row is not None:
            self._replay(row, trial.trial_id)


class Progress(tune.Callback):
    """Shows the progress of the sweep, and records the outcomes that only Tune knows.

    These outcomes are a trial that was stopped early and a process that died. They are written to
    the rows of the trials.

    Args:
        sweep: the sweep whose rows are read and written.
        live: the display.
    """

    def __init__(self, sweep: Sweep, live: Live):
        self._sweep, self._live = sweep, live
        self._shown_at = 0.0
        # Tune's trial id -> the name in the plan; PBT copies configurations, which contain the
        # names.
        self._names: dict[str, str] = {}

    def on_trial_start(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        self._names.setdefault(trial.trial_id, trial.config["trial"])

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        if trial.last_result.get("done"):  # False if the sweep itself was interrupted
            self._end_trial(trial, "stopped", "")

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        file = trial.error_file
        text = (
            Path(file).read_text(encoding="utf-8", errors="replace")
            if file and Path(file).exists()
            else ""
        )
        self._end_trial(trial, "failed", failure_reason(text))

    def _end_trial(self, trial: Any, status: Any, error: str) -> None:
        name = self._names.get(trial.trial_id, trial.config["trial"])
        slot = next(slot for slot in self._sweep.slots if slot.name == name)
        row = self._sweep.row(slot)
        if row is not None and row.status == "running":
            write_trial(self._sweep.path, replace(row, status=status, error=error))

    def on_step_end(self, iteration: int, trials: Any, **info: Any) -> None:
        if time.monotonic() - self._shown_at >= 2.0:
            self._shown_at = time.monotonic()
            self.show(sum(trial.status == Trial.RUNNING for trial in trials))

    def show(self, running: int = 0) -> None:
        """Update the display. `running`: the number of trials that train.

        The rows count a few more trials as running, which still wait for a process.
        """
        rows = self._sweep.rows()
        counts = Counter(row.status for row in rows)
        best = best_trial(rows)
        values: dict[str, Any] = {
            "running": running,
            "diverged": counts["diverged"],
            "failed": counts["failed"],
        }
        values |= {"best": best and best.best, "arm": best and best.arm}
        self._live.update(values, len(rows) - counts["running"])


def failure_reason(text: str) -> str:
    """Return one line from Ray Tune's error text of a trial: the exception, or how the process
    died.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    raised = "its creation task" in text or "ray::" in text
    named = [match for line in lines if (match := EXCEPTION.fullmatch(line))] if raised else []
    if named:  # The last exception is the final effect of the earlier ones.
        return f"{named[-1][1]}: {named[-1][2]}"
    if "low on memory" in text:
        return "its process was killed because its machine ran low on memory"
    if "node has died" in text:
        return "its machine was lost"
    return "its process died (out of memory, or killed)"


def run_trials(sweep: Sweep, evaluations: int, live: Live) -> None:
    """Run all trials that have not ended, on the Ray cluster that this process has joined.

    `evaluations`: the number of evaluations of a trial of full length. Returns early after Ctrl-C.
    Raises ResourceError if the cluster lacks the requested resources.
    """
    config = sweep.config
    resources = ray.cluster_resources()
    cpus = resources.get("CPU", 0.0)
    parallel = check_resources(sweep, cpus, resources.get("GPU", 0.0))
    share = config.cpus_each
    if config.parallel:  # On a cluster, each trial must still fit on one node.
        share = max(share, min(math.floor(1e4 * cpus / parallel) / 1e4, max(node_cpus())))
    # Tune's own logs would duplicate each trial's run directory.
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # The new output cannot be silenced completely.
    # Class attributes of the trials.
    members: dict[str, Any] = {
        "sweep": sweep.path.resolve(),
        "base": sweep.base,
        "working_directory": os.getcwd(),
    }
    members["family"] = config.model
    options: dict[str, Any] = {}
    # With a search algorithm, Tune keeps one trial pending, and when two processes become free it
    # ends one of them. The next trial would then wait seconds while a new process imports PyTorch.
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = (
        "auto" if config.scheduler == "pbt" else str(parallel + 1)
    )
    # For population based training, Tune gets all members at once. In other sweeps, `PlanSearch`
    # suggests one trial of the plan after another.
    if config.scheduler == "pbt":
        start = align(sweep)
        options["config"], scheduler = population(sweep, start)
        members |= {
            "least_evaluations": evaluations - start,
            "barrier": config.perturb_every,
            "space": sweep.study.arms[0].space,
        }
        # Tune copies only the newest checkpoints. A few more are kept, because Tune may delete one
        # while another trial still reads it.
        options["checkpoint_config"] = tune.CheckpointConfig(num_to_keep=4)
    else:
        search = PlanSearch(sweep)
        scheduler = Halving(sweep, evaluations) if config.scheduler == "asha" else FIFOScheduler()
        options |= {"search_alg": search, "num_samples": max(1, search.num_waiting)}
    # Silence Tune's log, because the trials' rows contain its errors already.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    sessions = len(list((sweep.path / "tune").glob("session-*")))
    progress = Progress(sweep, live)
    # Each start of the driver is a new session of Tune.
    tune.run(
        type("Trial", (SweepTrial,), members),
        name=f"session-{sessions + 1}",
        storage_path=str((sweep.path / "tune").resolve()),
        metric=sweep.metric,
        mode=sweep.mode,
        scheduler=scheduler,
        resources_per_trial={"cpu": share, "gpu": config.gpus_each},
        # `max_concurrent_trials` is not used: with it, Tune prepares no trial while others train,
        # and population based training sees only the members that run at once. Each trial's share
        # of the CPUs limits the concurrency instead.
        trial_dirname_creator=lambda trial: trial.config["trial"],
        reuse_actors=True,
        raise_on_failed_trial=False,
        callbacks=[progress],
        verbose=0,
        **options,
    )
    progress.show()
