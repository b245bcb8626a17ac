"""Plans a sweep: lists all its trials, and reads and writes the files of its directory.

The plan depends only on the sweep's configuration. The files are:

    SWEEP/sweep.yaml   study.yaml   base.yaml   the configuration, the study, the base settings
    SWEEP/trials/0007-adam-search/              the run directory of a trial; trial.json is its row
"""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import yaml

from genray.bounds import bounded, check_bounds
from genray.config import load_yaml, save_yaml
from genray.errors import CheckpointError, ConfigError, require
from genray.paths import DataName
from tuning.presets import Arm, Study
from tuning.training import ModelFamily, config_class
from tuning.trials import (
    TRIAL_FILE,
    TRIALS_FOLDER,
    Mode,
    Phase,
    TrialRow,
    best_trial,
    read_trial,
    write_trial,
)

MAX_SWEEP_SEED = 1_073_741_823
"""2^30 − 1. The seeds of the comparison are larger and must stay below 2^31."""


@dataclass(frozen=True, kw_only=True)
class SweepConfig:
    """Configuration of a sweep: what is varied, on which model and data, how often, and in which
    order.
    """

    study: str = "optimizers"
    """Name of the study: optimizers, regularisers, gan_stability, architecture or agent."""
    model: ModelFamily = "vae"
    """Model family whose trainer the sweep runs."""
    preset: str = ""
    """The named configuration that every trial starts from. Empty: the first preset of the family;
    Catch for dqn.
    """
    data: DataName = ""
    """The data set, if not the preset's."""
    set: tuple[str, ...] = ()
    """PATH=VALUE … for every trial, e.g. model.latent=8 optimizer.schedule=cosine. A search still
    varies the settings of its space. Settings that the study fixes are refused.
    """
    arms: tuple[str, ...] = ()
    """Use only these arms of the study, e.g. sgd adam. The study optimizers also takes learned:RUN,
    an optimizer of `genray train optimizer`.
    """
    steps: int = bounded(0, min=0, note="(0: the steps of the preset)")
    """Training steps of a trial; 0: the steps of the preset."""
    looks: int = bounded(10, min=1, example=10)
    """Evaluations on the validation data in a trial, evenly spaced. They form the learning curve,
    and the best one counts. A trial has fewer evaluations if its steps cannot be divided into that
    many: 6 for 11 steps, not 10.
    """
    trials: int = bounded(16, min=1, example=16)
    """Search trials of each arm, the same number for all arms. A grid has at most this many."""
    seeds: int = bounded(5, min=0, max=1000, note="(0: no comparison)", example=5)
    """Seeds of the comparison. Each arm runs with its default settings and with its best settings,
    once with each seed. 0: a search without comparison.
    """
    search: Literal["random", "quasi-random", "grid", "optuna"] = "quasi-random"
    """How the points of an arm's space are chosen."""
    scheduler: Literal["none", "asha", "pbt"] = "none"
    """none: every trial runs all its steps, as a comparison needs. asha: trials with worse results
    stop early. pbt: trials with worse results continue from a copy of a better trial, with
    changed settings.
    """
    metric: str = ""
    """The metric that is compared. Empty: validation_loss; evaluation_return for dqn."""
    mode: Literal["auto", "min", "max"] = "auto"
    """Whether lower or higher values are better. auto: by the metric's name."""
    reduction: int = bounded(3, min=2, example=3)
    """asha: the reduction factor. One of this many trials continues at each rung."""
    perturb_every: int = bounded(2, min=1, example=2)
    """pbt: evaluations between two times at which trials become copies."""
    parallel: int = bounded(0, min=0, note="(0: as many as fit)")
    """Trials that run at once; 0: as many as the CPUs and GPUs allow."""
    cpus_each: float = bounded(1.0, above=0, example=1)
    """CPUs that a trial reserves; a trial uses one thread."""
    gpus_each: float = bounded(0.0, min=0, example=0.5)
    """GPUs that a trial reserves, e.g. 0.25: four trials share one GPU."""
    seed: int = bounded(0, min=0, max=MAX_SWEEP_SEED)
    """Seed of the points and of the search trials. The comparison uses the seeds after this one."""

    def validate(self) -> None:
        """Raise ConfigError for values outside their bounds and for options that conflict."""
        check_bounds(self)
        require(
            self.scheduler == "none" or self.seeds == 0,
            f"--scheduler {self.scheduler}: a comparison needs all steps of every trial; use "
            "--scheduler none, or --seeds 0",
        )
        require(
            self.scheduler != "asha" or self.looks >= 2,
            f"--looks {self.looks}: asha stops trials at an evaluation before the last; use 2 or "
            "more, e.g. 9",
        )
        require(
            self.scheduler != "pbt" or self.perturb_every < self.looks,
            f"--perturb-every {self.perturb_every}: a trial has {self.looks} evaluations, so no "
            f"trial would become a copy; use at most {max(1, self.looks - 1)}, or more --looks",
        )
        require(
            self.scheduler != "pbt" or self.trials >= 4,
            f"--trials {self.trials}: population based training needs 4 or more, e.g. 8",
        )
        require(
            self.scheduler != "pbt" or self.search in ("random", "quasi-random"),
            f"--search {self.search}: population based training starts from random points; use "
            "random or quasi-random",
        )


@dataclass(frozen=True)
class Slot:
    """One trial of the plan."""

    number: int
    """Position in the plan, from 0."""
    arm: str
    """Name of the arm."""
    phase: Phase
    index: int
    """Index within the arm's phase: of a point in the search, of a seed in the other phases."""

    @property
    def name(self) -> str:
        """Name of the trial's directory."""
        return f"{self.number:04d}-{self.arm}-{self.phase}"


@dataclass(frozen=True)
class Sweep:
    """A sweep's directory, and the content of its files."""

    path: Path
    """The directory."""
    config: SweepConfig
    """The content of sweep.yaml."""
    study: Study
    """The content of study.yaml."""
    base: Any
    """The configuration that every trial starts from: the content of base.yaml."""
    metric: str
    """The metric that is compared."""
    mode: Mode
    """Whether lower (`min`) or higher (`max`) values are better."""
    points: dict[str, list[dict[str, Any]]] = dataclasses.field(default_factory=dict)
    """The points of each arm, in the order of the search. Empty for an Optuna search, whose points
    depend on results.
    """

    def save(self) -> None:
        """Write the files of the directory, which must exist."""
        save_yaml(self.config, self.path / "sweep.yaml")
        save_yaml(self.base, self.path / "base.yaml")
        about = {**self.study.to_dict(), "metric": self.metric, "mode": self.mode}
        (self.path / "study.yaml").write_text(
            yaml.safe_dump(about, sort_keys=False, allow_unicode=True), encoding="utf-8"
        )
        (self.path / TRIALS_FOLDER).mkdir(exist_ok=True)

    @classmethod
    def open(cls, path: Path) -> "Sweep":
        """Read the sweep in directory `path`. Raises CheckpointError if the directory holds no
        sweep.
        """
        config = load_yaml(SweepConfig, path / "sweep.yaml")
        try:
            about = yaml.safe_load((path / "study.yaml").read_text(encoding="utf-8"))
            study = Study.from_dict(about)
            metric, mode = about["metric"], about["mode"]
        except (OSError, yaml.YAMLError, KeyError, TypeError, ConfigError) as error:
            raise CheckpointError(
                f"{path}: damaged sweep (study.yaml: {str(error).splitlines()[0]})"
            ) from error
        base: Any = load_yaml(config_class(config.model), path / "base.yaml")
        return cls(path, config, study, base, metric, mode, plan_points(config, study))

    # -- the plan ----------------------------------------------------------------------------------

    @cached_property
    def slots(self) -> list[Slot]:
        """Every trial of the plan. Arms alternate, so that an interrupted sweep has run about
        as many trials of each arm.
        """
        config, names = self.config, [arm.name for arm in self.study.arms]
        searches = {
            name: len(self.points[name]) if name in self.points else config.trials for name in names
        }
        wanted: list[tuple[Phase, str, int]] = []
        wanted += [("default", name, seed) for seed in range(config.seeds) for name in names]
        wanted += [
            ("search", name, index)
            for index in range(max(searches.values()))
            for name in names
            if index < searches[name]
        ]
        wanted += [("tuned", name, seed) for seed in range(config.seeds) for name in names]
        return [
            Slot(number, name, phase, index) for number, (phase, name, index) in enumerate(wanted)
        ]

    def arm(self, name: str) -> Arm:
        """Return the arm of this name, which must exist."""
        return next(arm for arm in self.study.arms if arm.name == name)

    def row_path(self, slot: Slot) -> Path:
        """Return the path of the slot's trial.json, which may not exist yet."""
        return self.path / TRIALS_FOLDER / slot.name / TRIAL_FILE

    @cached_property
    def _ended(self) -> dict[str, TrialRow]:
        return {}

    def row(self, slot: Slot) -> TrialRow | None:
        """Read the slot's row from disk; None before the trial began. The row of a trial that has
        ended is read only once.
        """
        if slot.name not in self._ended:
            path = self.row_path(slot)
            row = read_trial(path) if path.exists() else None
            # A diverged member of a population can be replaced by a copy of another member.
            if (
                row is None
                or row.status == "running"
                or (row.status, self.config.scheduler) == ("diverged", "pbt")
            ):
                return row
            self._ended[slot.name] = row
        return self._ended[slot.name]

    def rows(self) -> list[TrialRow]:
        """Read the rows of all trials that have begun."""
        return [row for slot in self.slots if (row := self.row(slot)) is not None]

    def search_rows(self, arm: str) -> Iterator[TrialRow | None]:
        """Yield the rows of an arm's search, by index."""
        return (self.row(slot) for slot in self.slots if slot.arm == arm and slot.phase == "search")

    def searched(self, arm: str) -> bool:
        """Whether the arm's search has ended."""
        return all(row is not None and row.status != "running" for row in self.search_rows(arm))

    def tuned(self, arm: str) -> dict[str, Any] | None:
        """Return the settings of the best trial of an arm's search; None if no trial succeeded."""
        best = best_trial(row for row in self.search_rows(arm) if row is not None)
        return (
            None
            if best is None
            else {path: best.params[path] for path in self.arm(arm).space.paths}
        )

    def waiting(self) -> list[tuple[Slot, TrialRow | None]]:
        """List the slots whose trials have not ended, with their rows if the trials have begun.

        Tuned trials of arms whose search failed are omitted.
        """
        found = [
            (slot, row)
            for slot in self.slots
            if (row := self.row(slot)) is None or row.status == "running"
        ]
        failed = {
            arm.name
            for arm in self.study.arms
            if self.searched(arm.name) and self.tuned(arm.name) is None
        }
        return [
            (slot, row) for slot, row in found if slot.phase != "tuned" or slot.arm not in failed
        ]

    def begin(self, slot: Slot, tuned: dict[str, Any]) -> TrialRow:
        """Write and return the first row of a trial.

        `tuned`: the settings of the parameters that the arm's search varies.
        """
        arm, config = self.arm(slot.arm), self.config
        row = TrialRow(
            trial=slot.name,
            study=self.study.name,
            family=config.model,
            arm=slot.arm,
            phase=slot.phase,
            data=self.base.env.title if config.model == "dqn" else self.base.data.data,
            # All arms and both phases of a comparison use the same seeds, so that effects are
            # paired. The search uses a different seed.
            seed=config.seed if slot.phase == "search" else config.seed + 1 + slot.index,
            params={**_plain(arm.fixed), **_plain(tuned)},
            metric=self.metric,
            mode=self.mode,
            path=f"{TRIALS_FOLDER}/{slot.name}",
        )
        (self.path / row.path).mkdir(parents=True, exist_ok=True)
        write_trial(self.path, row)
        return row


def plan_points(config: SweepConfig, study: Study) -> dict[str, list[dict[str, Any]]]:
    """Choose the points of each arm's search. Returns arm → list of settings; empty for Optuna.

    Raises ConfigError if a grid has more points than `config.trials`.
    """
    points: dict[str, list[dict[str, Any]]] = {}
    for number, arm in enumerate(study.arms):
        match config.search:
            case "random":
                found = arm.space.random(config.trials, (config.seed, number))
            case "quasi-random":
                found = arm.space.quasi_random(config.trials, (config.seed, number))
            case "grid":
                found = arm.space.grid(config.trials)
            case _:
                return {}
        points[arm.name] = [arm.space.resolve(point) for point in found]
    return points


def _plain(settings: Any) -> dict[str, Any]:
    return {
        path: list(value) if isinstance(value, tuple) else value for path, value in settings.items()
    }
