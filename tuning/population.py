"""Prepares population based training: resets the members to a common evaluation, and configures
Tune's scheduler.

Members are the trials of the population. They synchronise at barriers, every `perturb_every`
evaluations. At a barrier, members with worse results become copies of better members. After a
crash, a sweep continues from the last barrier that every member has saved. Training after that
barrier is repeated bit for bit, because a copy needs both members at the same step.
"""

import random
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.schedulers import PopulationBasedTraining

from genray.errors import CheckpointError
from genray.runs.files import remove_directory
from genray.runs.rundir import RunDir, verify_checkpoint
from tuning.plan import Slot, Sweep
from tuning.trial_run import ROW_FILE
from tuning.trials import TrialRow, read_trial, write_trial


def members(sweep: Sweep) -> list[tuple[Slot, TrialRow | None]]:
    """List the members that continue. Diverged members are included while others train, because a
    copy of a better member can replace them.
    """
    waiting = sweep.waiting()
    diverged = [
        (slot, row)
        for slot in sweep.slots
        if (row := sweep.row(slot)) is not None and row.status == "diverged"
    ]
    return sorted([*waiting, *diverged], key=lambda member: member[0].number) if waiting else []


def align(sweep: Sweep) -> int:
    """Reset the members to the last barrier that all of them have saved.

    Returns the number of the evaluation at that barrier; 0 for the start of training.
    """
    every, waiting = sweep.config.perturb_every, members(sweep)
    kept = {
        slot: _barriers(sweep.path / row.path, every) if row is not None else {}
        for slot, row in waiting
    }
    alive = [slot for slot, row in waiting if row is None or row.status == "running"]
    evaluation = min((max(kept[slot], default=0) for slot in alive), default=0)
    for slot, row in waiting:
        if row is None:
            continue
        if not evaluation:
            # No member was copied yet, so all settings are those of the plan.
            for folder in RunDir(sweep.path / row.path).list_checkpoints():
                remove_directory(folder)
            sweep.begin(slot, sweep.points[slot.arm][slot.index])
        elif evaluation in kept[slot]:
            _reset(sweep, row, kept[slot][evaluation])
        # A member without this checkpoint had diverged earlier and waits for the next barrier.
    return evaluation


def _barriers(run: Path, every: int) -> dict[int, Path]:
    """Map evaluation numbers to a member's checkpoints at barriers."""
    found: dict[int, Path] = {}
    for folder in RunDir(run).list_checkpoints():
        try:
            verify_checkpoint(folder)
        except CheckpointError:
            continue
        evaluations = len(read_trial(folder / ROW_FILE).curve)
        if evaluations and evaluations % every == 0:
            found[evaluations] = folder
    return found


def _reset(sweep: Sweep, row: TrialRow, checkpoint: Path) -> None:
    """Remove the member's checkpoints after `checkpoint`, and restore the row of that time."""
    for folder in RunDir(sweep.path / row.path).list_checkpoints():
        if int(folder.name) > int(checkpoint.name):
            remove_directory(folder)
    write_trial(sweep.path, read_trial(checkpoint / ROW_FILE))


def population(sweep: Sweep, evaluation: int) -> tuple[dict[str, Any], PopulationBasedTraining]:
    """Return (Tune's config, the scheduler) for population based training of the search trials.

    `evaluation`: the number of the evaluation that all members have reached. The scheduler is
    synchronous, so that a trial and its copy are at the same step, and a sweep is reproducible.
    [Jaderberg 2017, https://arxiv.org/abs/1711.09846]
    """
    arm = sweep.study.arms[0]
    rows = {
        slot.name: row or sweep.begin(slot, sweep.points[arm.name][slot.index])
        for slot, row in members(sweep)
    }
    points = {name: arm.space.point(row.params) for name, row in rows.items()}

    def coordinate_of(name: str) -> Any:
        return tune.sample_from(lambda spec: points[spec["config"]["trial"]][name])

    config = {name: coordinate_of(name) for name in arm.space.coordinates}
    # Tune's scheduler uses Python's global random generator.
    random.seed(sweep.config.seed + 1009 * evaluation)
    scheduler = PopulationBasedTraining(
        time_attr="training_iteration",
        perturbation_interval=sweep.config.perturb_every,
        hyperparam_mutations=arm.space.to_tune(),
        custom_explore_fn=arm.space.clip,
        synch=True,
        log_config=False,
    )
    return {"trial": tune.grid_search(list(rows)), **config}, scheduler
