"""Runs a sweep from start to end.

Checks the configuration, runs the trials on Ray, and resumes a stopped sweep. `tuning.promotion`
evaluates trials on test data and promotes the best trial to a model.

    sweep = run_sweep(SweepConfig(study="optimizers", model="vae", steps=500), Path("runs/sweep"))
    for row in read_trials(sweep):
        print(row.arm, row.phase, row.best)
"""

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from genray.distributed.session import ray_session
from genray.errors import ConfigError, UsageError, require
from genray.paths import absolute_paths
from genray.runs.live import Live
from genray.runs.rundir import RunDir
from tuning.driver import COLUMNS, run_trials
from tuning.plan import Sweep, SweepConfig, plan_points
from tuning.presets import Study, named_study
from tuning.promotion import measure_test, promote
from tuning.settings import changed, format_settings, parse_settings, setting
from tuning.trainable import default_metric
from tuning.training import (
    FitTraining,
    on_cpu,
    open_training,
    planned_evaluations,
    preset,
    rehearse,
    with_budget,
)
from tuning.trials import (
    TRIAL_FILE,
    TRIALS_FOLDER,
    Mode,
    read_trials,
    write_table,
)

__all__ = ["SweepConfig", "base_config", "measure_test", "promote", "resume_sweep", "run_sweep"]

MORE_IS_BETTER = ("accuracy", "return", "psnr", "precision", "recall", "modes")
"""Metrics whose names end with one of these words are maximized."""


def run_sweep(
    config: SweepConfig, out: Path, *, study: Study | None = None, address: str | None = None
) -> Path:
    """Run a sweep in the new directory `out`, and return the directory.

    `study`: your own study, instead of the one that `config` names. `address`: a Ray cluster to run
    on (all its nodes must then share the disk of `out`); default: a private Ray.

    Raises ConfigError or ResourceError before any trial starts if the sweep cannot be run, and
    leaves no files then. Raises KeyboardInterrupt when the sweep was stopped; it can be resumed.
    """
    config.validate()
    run = RunDir.create(out)
    try:
        sweep = prepare(config, run.path, study)
        sweep.save()
        return _run(sweep, address)
    except (UsageError, KeyboardInterrupt):
        if not any((run.path / TRIALS_FOLDER).glob(f"*/{TRIAL_FILE}")):
            run.discard()  # no trial has begun
        raise


def resume_sweep(path: Path, *, address: str | None = None) -> Path:
    """Run the remaining trials of a sweep that was stopped or killed. Raises CheckpointError if
    `path` holds no sweep.
    """
    _wait_for_old_processes(path)
    return _run(Sweep.open(path), address)


def prepare(config: SweepConfig, path: Path, study: Study | None = None) -> Sweep:
    """Build and check the sweep of `config`: spaces, points, metric, and that a trial of each arm
    can be trained.

    Raises ConfigError for invalid values.
    """
    # The study, and the base configuration with the settings of --set and of the study.
    base = base_config(config)
    study = study or named_study(config.study, config.model, base)
    study = study.only(config.arms) if config.arms else study
    _check_set(config, study, base)
    base = changed(base, study.base)
    _validate(base, "--set" if config.set else "")
    # Trials without a GPU train on the CPU, which does not support float16.
    if config.gpus_each == 0:
        part = "run.device" if config.model == "dqn" else "fit.device"
        require(
            setting(base, part) != "cuda",
            f"--set {part}=cuda: trials get no GPU; use --gpus-each 1, or a fraction such as 0.25",
        )
        require(
            config.model == "dqn" or setting(base, "fit.amp") != "float16",
            "--set fit.amp=float16: trials get no GPU; use --gpus-each 1, or leave the setting out",
        )
        base = on_cpu(config.model, base)
    # A population has one search space, so population based training needs a study with one arm.
    require(
        config.scheduler != "pbt" or len(study.arms) == 1,
        f"--scheduler pbt: {study.name} compares {len(study.arms)} arms; name one arm, e.g. --arms "
        f"{study.arms[0].name}",
    )
    study.check(base)
    base = _with_steps(config, base)
    # Check every point before any trial starts.
    points = plan_points(config, study)
    for arm in study.arms:
        for settings in points.get(arm.name, []):
            _validate(
                changed(base, {**arm.fixed, **settings}),
                f"arm {arm.name}, {format_settings(settings)}",
            )
    # Rehearse each arm (a step of each stage of a fit, none of an agent), to check that the arm
    # can be trained and reports the metric.
    metric, mode = _metric(config)
    for arm in study.arms:
        reported = rehearse(
            config.model, on_cpu(config.model, changed(base, {**arm.fixed, **arm.default}))
        )
        known = ", ".join(sorted(reported))
        require(
            metric in reported,
            f"--metric {metric}: trials of arm {arm.name} do not report this metric; they report "
            f"{known}",
        )
    return Sweep(path, config, study, base, metric, mode, points)


def base_config(config: SweepConfig) -> Any:
    """Return the configuration that every trial starts from, before the study's own settings. Its
    paths are absolute.
    """
    base = preset(config.model, config.preset, config.data)
    return absolute_paths(changed(base, parse_settings(config.set)))


def _check_set(config: SweepConfig, study: Study, base: Any) -> None:
    """Raise ConfigError if --set names a setting that the plan or the study sets itself.

    --set may name a setting that a search varies, if no arm has its own default for it. Untuned
    runs then use the value of --set, and some studies centre the search space on it.
    """
    # Options of the sweep that replace settings.
    part, every = ("run", "evaluate_every") if config.model == "dqn" else ("fit", "validate_every")
    instead = {f"{part}.seed": "--seed", f"{part}.{every}": "--looks"}
    if config.steps:
        instead |= {f"{part}.steps": "--steps alone", f"{part}.epochs": "--steps alone"}
    for path, text in parse_settings(config.set).items():
        word = f"--set {path}={text}"
        require(
            path not in instead,
            f"{word}: the sweep sets it for each trial; use {instead.get(path)}",
        )
        # Settings of the study and of its arms that differ from the base.
        for whose, settings in (
            (f"study {study.name}", study.base),
            *(
                (f"arm {arm.name} of {study.name}", {**arm.default, **arm.fixed})
                for arm in study.arms
            ),
        ):
            if path in settings and setting(changed(base, {path: settings[path]}), path) != setting(
                base, path
            ):
                raise ConfigError(
                    f"{word}: {whose} sets it to {settings[path]} in its trials; leave it out"
                )


def _with_steps(config: SweepConfig, base: Any) -> Any:
    """Return `base` with its budget in steps, because the number of steps in an epoch depends on
    the data.
    """
    steps = config.steps
    if not steps and config.model != "dqn":
        training = open_training(config.model, on_cpu(config.model, base))
        assert isinstance(training, FitTraining)
        steps = training.fit.total_steps()
    return with_budget(config.model, base, steps, config.looks)


def _metric(config: SweepConfig) -> tuple[str, Mode]:
    metric, mode = default_metric(config.model)
    if config.metric:
        metric, mode = config.metric, "max" if config.metric.endswith(MORE_IS_BETTER) else "min"
    return metric, mode if config.mode == "auto" else config.mode


def _validate(config: Any, where: str) -> None:
    try:
        config.validate()
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}" if where else str(error)) from error


# -- running ---------------------------------------------------------------------------------------


def _run(sweep: Sweep, address: str | None) -> Path:
    with _exclusive_lock(sweep.path):
        total = len(sweep.slots)
        if sweep.waiting():
            with (
                ray_session(address),
                Live(f"{sweep.study.name} {sweep.config.model}", total, COLUMNS, "trials") as live,
            ):
                live.say(_announcement(sweep))
                run_trials(sweep, planned_evaluations(sweep.config.model, sweep.base), live)
        write_table(sweep.path, read_trials(sweep.path))
        if sweep.waiting():
            raise KeyboardInterrupt
    return sweep.path


def _announcement(sweep: Sweep) -> str:
    """Describe the sweep in one line, e.g. "optimizers: 2 arms with 16 search trials, …"."""
    config, arms = sweep.config, len(sweep.study.arms)
    done = len(sweep.slots) - len(sweep.waiting())
    evaluations = planned_evaluations(config.model, sweep.base)
    each = f"{config.trials} search trials" + (
        f", {config.seeds} untuned and {config.seeds} tuned run{'s' * (config.seeds > 1)}"
        * bool(config.seeds)
    )
    return (
        f"{sweep.study.name}: {arms} arm{'s' * (arms > 1)} with {each}"
        f"{' each' * (arms > 1)}: "
        f"{len(sweep.slots)} trials by {sweep.metric} "
        f"({'lower' if sweep.mode == 'min' else 'higher'} is better)"
        + (
            f", {evaluations} evaluations each instead of {config.looks}"
            if evaluations != config.looks
            else ""
        )
        + (f", {done} of them done" if done else "")
    )


def _wait_for_old_processes(path: Path, patience_s: float = 60.0) -> None:
    """Wait until all processes of a killed sweep have stopped training.

    Ray ends these processes some seconds after their driver. Raises ConfigError if one still trains
    after `patience_s` seconds.
    """
    deadline = time.monotonic() + patience_s
    for lock in sorted((path / TRIALS_FOLDER).glob("*/.lock")):
        while _is_locked(lock):
            if time.monotonic() > deadline:
                raise ConfigError(
                    f"--resume {path}: trial {lock.parent.name} is still training in another "
                    "process; wait for that process, or end it"
                )
            time.sleep(0.2)


@contextmanager
def _exclusive_lock(path: Path) -> Iterator[None]:
    """Lock the sweep, so that only one driver runs. The system releases the lock when this process
    ends. Raises ConfigError if another process holds the lock.
    """
    with (path / ".lock").open("w", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(
                f"{path}: this sweep is running in another process; wait for it"
            ) from error
        yield


def _is_locked(lock: Path) -> bool:
    """Whether another process holds the lock on the file."""
    with lock.open(encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
