"""Defines the Ray Tune `Trainable` of the model families, for sweeps and for any `tune.run`.

    tune.run(trainable("vae", vae_digits()), config=space.to_tune(), metric="validation_loss",
    mode="min", num_samples=20)

Each Tune step is one evaluation on validation data. A trial that diverges or raises reports this in
its last result (`status`, and the worst possible metric), and Tune continues.
"""

import os
from pathlib import Path
from typing import Any, Literal, cast

import torch
from ray import tune
from ray.tune.result import SHOULD_CHECKPOINT

from genray.errors import require
from genray.gen.families import BUILDERS
from genray.gen.learned_optimizer.network import build_learned_optimizer
from genray.machine import keep_freed_memory
from genray.paths import absolute_paths
from genray.rl.building import build_network
from genray.runs import modelstore
from tuning.settings import changed, check_path
from tuning.spaces import Space
from tuning.training import config_class, rehearse
from tuning.trial_run import SAVE_EVERY_S, TrialRun
from tuning.trials import TRIAL_FILE, Mode, TrialRow, read_trial, write_trial

METRICS: dict[str, tuple[str, Mode]] = {"dqn": ("evaluation_return", "max")}
"""Metric and mode of a family, if no other metric is named."""


def default_metric(family: str) -> tuple[str, Mode]:
    """Return (name, mode) of a family's metric."""
    return METRICS.get(family, ("validation_loss", "min"))


class _Trial(tune.Trainable):
    """Runs trials one after another in one process. Tune reuses the process, so that PyTorch is
    imported once.
    """

    working_directory = "."
    """The directory that relative paths of configurations start from; Tune would change to its own
    directory.
    """
    least_evaluations = 0
    """For population based training: the least number of evaluations of a trial. A diverged trial
    makes them, too, because a copy of another trial can replace its state.
    """

    def setup(self, config: dict[str, Any]) -> None:
        self._go_to_working_directory()
        keep_freed_memory()
        self._run: TrialRun | None = None
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.cleanup()
        self._go_to_working_directory()
        self._run = self.make_run(new_config)
        return True

    def _go_to_working_directory(self) -> None:
        if Path(self.working_directory).is_dir():
            os.chdir(self.working_directory)

    def make_run(self, config: dict[str, Any]) -> TrialRun:
        """Create the trial that Tune's `config` describes."""
        raise NotImplementedError

    def step(self) -> dict[str, Any]:
        assert self._run is not None
        result = self._run.advance()
        if self.least_evaluations and result["status"] in ("diverged", "done"):
            result["done"] = self.iteration + 1 >= self.least_evaluations
        return result

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        assert self._run is not None
        self._run.save(Path(checkpoint_dir))

    def load_checkpoint(self, checkpoint: Any) -> None:
        assert self._run is not None
        self._run.load(Path(checkpoint))

    def cleanup(self) -> None:
        if self._run is not None:
            self._run.close()


class SweepTrial(_Trial):
    """A trial of a sweep. Its row is in SWEEP/trials/NAME/trial.json, and Tune's directory for the
    trial has the same name.
    """

    sweep = Path()
    family, base = "", cast(Any, None)
    space = Space()
    """For population based training: the space of the values in Tune's configuration, which are
    newer than the row's settings.
    """
    barrier = 0
    """For population based training: evaluations between copies."""

    def setup(self, config: dict[str, Any]) -> None:
        self._go_to_working_directory()
        # The first step imports more of PyTorch and takes a second or two longer. This rehearsal
        # keeps that time out of the trial's count.
        rehearse(self.family, self.base)
        super().setup(config)

    def make_run(self, config: dict[str, Any]) -> TrialRun:
        # config["trial"] may be wrong: a trial that copies another's configuration also copies its
        # name.
        row = read_trial(self.sweep / "trials" / Path(self.logdir).name / TRIAL_FILE)
        if len(self.space):
            row.params.update(self.space.resolve(config))
        return TrialRun(self.sweep, row, self.base, self.barrier)


class FreeTrial(_Trial):
    """A trial of a user's own `tune.run`. Its run directory is Tune's trial directory on the
    machine that trains it.

    That directory is lost with the machine or with Ray's session. Tune's checkpoints on its storage
    hold everything: the exact training state, and the model in `model/`.
    """

    family, metric = "", ""
    mode: Mode = "min"
    base: Any = None
    _saved_at_s: float = 0.0

    def step(self) -> dict[str, Any]:
        result = super().step()
        assert self._run is not None
        row, seconds = self._run.row, self._run.row.seconds
        # Tune writes a checkpoint after a result with this key, whatever its own configuration
        # says.
        better = row.best_step == row.steps
        if row.status in ("running", "done") and (
            better or result["done"] or seconds - self._saved_at_s >= SAVE_EVERY_S
        ):
            result[SHOULD_CHECKPOINT] = True
            self._saved_at_s = seconds
        return result

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        assert self._run is not None
        self._run.save(Path(checkpoint_dir), with_model=True)

    def make_run(self, config: dict[str, Any]) -> TrialRun:
        self._saved_at_s = 0.0
        # If a switch is off, its setting keeps the value of the base.
        off = {name[:-1] for name, value in config.items() if name.endswith("?") and not value}
        settings: dict[str, Any] = {
            path: list(value) if isinstance(value, tuple) else value
            for path, value in config.items()
            if not path.endswith("?") and path not in off
        }
        # A mistyped key would leave every trial the same, so it raises an error before training.
        for path in off:
            check_path(type(self.base), path)
        changed(self.base, {path: value for path, value in settings.items() if path != "seed"})
        data = "" if self.family == "dqn" else self.base.data.data
        folder = Path(self.logdir) / "run"
        if (folder / TRIAL_FILE).exists():  # the trial was paused
            row = read_trial(folder / TRIAL_FILE)
            row.params.update({path: value for path, value in settings.items() if path != "seed"})
            return TrialRun(folder.parent, row, self.base)
        row = TrialRow(
            trial=self.trial_id,
            study="",
            family=self.family,
            data=data,
            arm="all",
            phase="search",
            seed=settings.pop("seed", 0),
            params=settings,
            metric=self.metric,
            mode=self.mode,
            path="run",
        )
        folder.mkdir(parents=True, exist_ok=True)
        write_trial(folder.parent, row)
        return TrialRun(folder.parent, row, self.base)


def trainable(
    family: str, base: Any, *, metric: str = "", mode: Literal["min", "max"] | None = None
) -> type[tune.Trainable]:
    """Return a class for `tune.run` or `tune.Tuner` that trains `base` (e.g. `vae_digits()`) with
    the settings that Tune chooses.

    Keys of Tune's `config` are dotted paths of the family's configuration, and `seed`. A trial with
    any other key raises ConfigError. Results hold `metric` (by default the family's own), all other
    figures of an evaluation, `steps`, `cpu_seconds` and `status`. The test data are sealed.

    Tune writes a checkpoint to its storage after each evaluation that is the trial's best so far,
    at the trial's end, and every 15 CPU seconds of training. `tune.run(…, resume=True)` continues
    each trial from its newest checkpoint, bit for bit. `load_model(analysis.best_checkpoint)`
    returns the best model; `genray sample CHECKPOINT` reads the checkpoint, too.

    Raises ConfigError for an unknown family or an invalid base.
    """
    require(
        isinstance(base, config_class(family)),
        f"trainable({family!r}, …): base is a {type(base).__name__}; must be a "
        f"{config_class(family).__name__}",
    )
    base = absolute_paths(base)
    base.validate()
    name, way = default_metric(family)
    members = {
        "family": family, "base": base, "working_directory": os.getcwd(),
        "metric": metric or name, "mode": mode or (way if metric in ("", name) else "min"),
    }  # fmt: skip
    return type(f"{family.capitalize()}Trial", (FreeTrial,), members)


def load_model(checkpoint: Any) -> torch.nn.Module:
    """Load the model of a checkpoint that a trial of `trainable` wrote, in evaluation mode on the
    CPU.

    `checkpoint`: Tune's `Checkpoint` (of a result, or `analysis.best_checkpoint`), or its
    directory. Raises CheckpointError if the checkpoint holds no model, e.g. after a trial that
    diverged.
    """
    if isinstance(checkpoint, str | Path):
        return modelstore.load_model(
            Path(checkpoint) / "model",
            {**BUILDERS, "dqn": build_network, "learned_optimizer": build_learned_optimizer},
        )[0]
    with checkpoint.as_directory() as folder:
        return load_model(folder)
