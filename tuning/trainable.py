"""The face that Ray Tune sees: a class to run trials with, in a sweep of ours or in anybody's
`tune.run`.

    tune.run(trainable("vae", vae_digits()), config=space.to_tune(), metric="validation_loss",
    mode="min", num_samples=20)

Each step of Tune is one look at validation data. A trial that diverges or raises ends with a
result that says so (`status`, and the worst possible metric): Tune goes on.
"""

import os
from pathlib import Path
from typing import Any, Literal, cast

import torch
from ray import tune
from ray.tune.result import SHOULD_CHECKPOINT

from genray.errors import require
from genray.gen.families import BUILDERS
from genray.machine import keep_freed_memory
from genray.paths import absolute_paths
from genray.rl.networks import build_network
from genray.runs import modelstore
from tuning.settings import changed, check_path
from tuning.spaces import Space
from tuning.training import config_class, rehearse
from tuning.trial_run import SAVE_EVERY_S, TrialRun
from tuning.trials import TRIAL_FILE, Mode, TrialRow, read_trial, write_trial

METRICS: dict[str, tuple[str, Mode]] = {"dqn": ("evaluation_return", "max")}
"""What a family is judged by unless another metric is named."""


def default_metric(family: str) -> tuple[str, Mode]:
    """(name, mode) of a family's metric."""
    return METRICS.get(family, ("validation_loss", "min"))


class _Trial(tune.Trainable):
    """One trial after the other in one process: Tune reuses it, so that PyTorch is imported
    once.
    """

    home = "."
    """Where relative paths of configurations begin; Tune would move into a folder of its own."""
    reborn_after = 0
    """In population based training: looks that a trial makes, diverged or not, since another's
    state may revive it.
    """

    def setup(self, config: dict[str, Any]) -> None:
        self._go_home()
        keep_freed_memory()
        self._run: TrialRun | None = None
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.cleanup()
        self._go_home()
        self._run = self.make_run(new_config)
        return True

    def _go_home(self) -> None:
        if Path(self.home).is_dir():
            os.chdir(self.home)

    def make_run(self, config: dict[str, Any]) -> TrialRun:
        raise NotImplementedError

    def step(self) -> dict[str, Any]:
        assert self._run is not None
        result = self._run.advance()
        if self.reborn_after and result["status"] in ("diverged", "done"):
            result["done"] = self.iteration + 1 >= self.reborn_after
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
    """A trial of a sweep: its row waits in SWEEP/trials/NAME/trial.json, and Tune's folder for
    it has the same name.
    """

    sweep = Path()
    family, base = "", cast(Any, None)
    space = Space()
    """In population based training: what Tune's configuration holds beside the name, newer than
    the row's settings.
    """
    barrier = 0
    """In population based training: looks between copies."""

    def setup(self, config: dict[str, Any]) -> None:
        self._go_home()
        # What PyTorch imports at a first step costs a second or two, which no trial should be
        # charged with.
        rehearse(self.family, self.base)
        super().setup(config)

    def make_run(self, config: dict[str, Any]) -> TrialRun:
        # Not config["trial"]: a trial that takes over another's configuration takes the name in it,
        # too.
        row = read_trial(self.sweep / "trials" / Path(self.logdir).name / TRIAL_FILE)
        if len(self.space):
            row.params.update(self.space.resolve(config))
        return TrialRun(self.sweep, row, self.base, self.barrier)


class FreeTrial(_Trial):
    """A trial of somebody's own `tune.run`: the run directory is the trial's folder on the
    machine that trains it.

    That folder is lost with the machine or with Ray's session. Tune's checkpoints, which lie on
    its storage, hold everything: the exact state to continue from, and the model in `model/`.
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
        # A switch that is off leaves its setting as the base has it.
        off = {name[:-1] for name, value in config.items() if name.endswith("?") and not value}
        settings: dict[str, Any] = {
            path: list(value) if isinstance(value, tuple) else value
            for path, value in config.items()
            if not path.endswith("?") and path not in off
        }
        # A mistyped key would train every trial alike: refused here, before anything is trained.
        for path in off:
            check_path(type(self.base), path)
        changed(self.base, {path: value for path, value in settings.items() if path != "seed"})
        data = "" if self.family == "dqn" else self.base.data.data
        folder = Path(self.logdir) / "run"
        if (folder / TRIAL_FILE).exists():  # it was paused
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
    """A class for `tune.run` or `tune.Tuner`: trains `base` (e.g. `vae_digits()`) with the
    settings that Tune chooses.

    Keys of Tune's `config` are dotted paths of the family's configuration, and `seed`; a trial
    with any other key raises ConfigError. Results hold `metric` (by default the family's own)
    and every other figure of a look, `steps`, `cpu_seconds` and `status`. Test data are sealed.

    Tune writes a checkpoint to its storage after each look that is the trial's best so far, at
    the trial's end, and every 15 CPU seconds of training. `tune.run(…, resume=True)` continues
    each trial from its newest checkpoint, bit for bit. `load_model(analysis.best_checkpoint)`
    gives the best model; `genray sample CHECKPOINT` reads it, too.

    Raises ConfigError for an unknown family or a base that makes no sense.
    """
    require(
        isinstance(base, config_class(family)),
        f"trainable({family!r}, …): its base is a {type(base).__name__}",
    )
    base = absolute_paths(base)
    base.validate()
    name, way = default_metric(family)
    members = {
        "family": family, "base": base, "home": os.getcwd(),
        "metric": metric or name, "mode": mode or (way if metric in ("", name) else "min"),
    }  # fmt: skip
    return type(f"{family.capitalize()}Trial", (FreeTrial,), members)


def load_model(checkpoint: Any) -> torch.nn.Module:
    """The model, in evaluation mode on the CPU, of a checkpoint that a trial of `trainable` wrote.

    `checkpoint`: Tune's `Checkpoint` (of a result, or `analysis.best_checkpoint`), or the folder
    of one. Raises CheckpointError where the checkpoint holds no model, as after a trial that
    diverged.
    """
    if isinstance(checkpoint, str | Path):
        return modelstore.load_model(
            Path(checkpoint) / "model", {**BUILDERS, "dqn": build_network}
        )[0]
    with checkpoint.as_directory() as folder:
        return load_model(folder)
