"""The training loop of autoencoders, VAEs, GANs and classifiers. Resuming a run is bit-exact.

A `Task` (`task.py`) defines the networks, one training step, their evaluation and their pictures.
`Fit` decides the order of the data, when to evaluate and when to stop, and saves the complete
training state.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from genray.errors import require
from genray.gen.data.types import Data, Split
from genray.gen.training.batches import Batches
from genray.gen.training.checkpoint import (
    check_finite,
    check_finite_weights,
    check_same_rows,
    checkpoint_errors,
    read_state,
    write_state,
)
from genray.gen.training.config import FitConfig
from genray.gen.training.early_stopping import EarlyStopping
from genray.gen.training.randomness import fixed_randomness
from genray.gen.training.task import Batch, Export, Task, evaluating

__all__ = [
    "Batch",
    "Export",
    "Fit",
    "FitConfig",
    "Step",
    "Task",
    "evaluating",
    "fixed_randomness",
]


@dataclass
class Step:
    """The result of one training step."""

    step: int
    """Number of steps so far, over all stages."""
    epoch: float
    """Number of passes over the stage's data so far."""
    stage: str
    values: dict[str, float] = field(default_factory=dict)
    """Means of the task's values since the last report; empty between reports."""
    held_out: dict[str, float] = field(default_factory=dict)
    """`Task.evaluate` of the validation split; empty when this step was not evaluated."""
    last_of_stage: bool = False


class Fit:
    """Trains a task on data. Iterate over a Fit to train; every step yields a `Step`.

    With several workers, every worker runs its own Fit with its own `World`, and all workers make
    the same decisions.

    Args:
        task: the networks and their training step.
        data: all splits.
        config: length, evaluation and checkpoints.

    Raises:
        ConfigError: the workers do not divide the batch size, a stage would make no update, or a
            stage has fewer rows than a batch.
    """

    def __init__(self, task: Task, data: Data, config: FitConfig):
        config.validate()
        self.task, self.config, self._device = task, config, task.device
        self.whole_data = data.to(task.device)
        """All data on the task's device, copied once for training and evaluation."""
        self.step = 0
        """Number of steps so far, over all stages."""
        self.threads = 0
        """Number of PyTorch's CPU threads in this run, saved in checkpoints; 0: not chosen yet."""
        self.evaluation_unfinished = False
        """True from the start to the end of a step's evaluation, and after one that failed."""
        self._stage, self._stage_step, self._done = 0, 0, False
        self._early_stopping = EarlyStopping(config.patience)
        world = task.world
        require(
            config.batch_size % world.size == 0,
            f"--batch-size {config.batch_size}: {world.size} workers do not divide it; use e.g. "
            f"{math.ceil(config.batch_size / world.size) * world.size}",
        )
        require(
            self.total_steps() >= config.accumulate,
            f"--accumulate {config.accumulate}: a stage has {self.total_steps()} steps, so that no "
            f"update would be made; use at most --accumulate {self.total_steps()}, or more --steps",
        )
        # Start the random numbers of the run, and the first stage.
        torch.manual_seed(config.seed)
        task.networks.to(self._device)
        self._begin_stage()

    # -- stages ------------------------------------------------------------------------------------

    def _begin_stage(self) -> None:
        # The learning-rate schedule depends on the stage's number of updates. This number is
        # computed from the whole data, although the stage's data may be smaller.
        updates = self.total_steps() // self.config.accumulate
        with fixed_randomness([self.config.seed, 1, self._stage]):
            data = self.task.begin_stage(self._stage, self.whole_data, updates)
        # The stage may have created new rows and networks on the CPU.
        self.data = data.to(self._device)
        self.train = self.data.train
        self.task.networks.to(self._device)
        require(
            len(self.train) >= self.config.batch_size,
            f"--batch-size {self.config.batch_size}: {self.task.stages[self._stage]} has "
            f"{len(self.train)} rows; use at most that many",
        )
        self._batches = Batches(
            self.train, self.config.batch_size, self.config.seed, self._stage, self.task.world
        )
        # The sums of the step's values since the last report, and the number of these steps.
        self._sums: dict[str, Tensor] = {}
        self._count = 0

    def _end_stage(self) -> None:
        self._early_stopping.end_stage(self.task.networks)
        if self._stage + 1 == len(self.task.stages):
            # The position is kept, so that a run resumed with more steps continues from here.
            self._done = True
        else:
            self._stage, self._stage_step = self._stage + 1, 0
            self._begin_stage()

    def steps_an_epoch(self, rows: int | None = None) -> int:
        """Return the number of steps of one epoch of `rows` rows (default: the training split)."""
        return max(
            1, (len(self.whole_data.train) if rows is None else rows) // self.config.batch_size
        )

    def total_steps(self) -> int:
        """Return the number of steps of one stage."""
        return self.config.steps or self.config.epochs * self.steps_an_epoch()

    def planned_steps(self) -> int:
        """Return the number of steps of all stages, without early stopping."""
        return self.total_steps() * len(self.task.stages)

    @property
    def done(self) -> bool:
        """Whether all stages have ended."""
        return self._done

    # -- the loop ----------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Step]:
        """Train to the end, one `Step` at a time. Raises RunFault when a loss is no longer
        finite.
        """
        while not self._done:
            # Repeat the last step's evaluation if that evaluation failed.
            if self.evaluation_unfinished:
                yield self._finish_step()
                continue
            # `train()` on every module costs a small network 2% of its step, so it is called only
            # when needed.
            if not all(network.training for network in self.task.networks.values()):
                self.task.networks.train()
            # Train on one batch, and count the step.
            values = self.task.step(self._batches.batch(self._stage_step))
            self.step += 1
            self._stage_step += 1
            self._add_up(values)
            # Report and evaluate when due; end the stage after its last step.
            yield self._finish_step()

    def _add_up(self, values: dict[str, Tensor]) -> None:
        for name, value in values.items():
            self._sums[name] = self._sums[name] + value if name in self._sums else value
        self._count += 1

    def _finish_step(self) -> Step:
        an_epoch = self._batches.steps_an_epoch
        ends = self._stage_step >= self.total_steps()
        result = Step(self.step, self._stage_step / an_epoch, self.task.stages[self._stage])
        due = ends or self._stage_step % (self.config.validate_every or an_epoch) == 0
        # Report the mean training values.
        if due or self.step % self.config.log_every == 0:
            result.values = self._report()
        # Evaluate the validation split.
        if due and len(self.data.validation):
            self.evaluation_unfinished = True
            result.held_out = self.evaluate(self.data.validation)
            self.evaluation_unfinished = False
            # The workers' batch norms have slightly different statistics, so the loss is averaged:
            # all workers must make the same decision about early stopping.
            loss = self.task.world.mean(result.held_out["loss"])
            result.held_out["loss"] = loss
            check_finite({"the validation loss": loss}, self.step)
            ends = self._early_stopping.stops(loss, self.task.networks) or ends
        # Begin the next stage, if there is one.
        if ends:
            result.last_of_stage = True
            self._end_stage()
        return result

    def _report(self) -> dict[str, float]:
        # The sums are empty when a failed evaluation is repeated: the values were reported already.
        if not self._sums:
            return {}
        # Between evaluations, the loop waits for the device only here. One step that is not finite
        # makes its sum not finite, so no such step is missed.
        means = {name: value / self._count for name, value in self._sums.items()}
        self.task.world.average(means.values())
        values = dict(zip(means, torch.stack(list(means.values())).tolist()))
        check_finite(values, self.step)
        self._sums, self._count = {}, 0
        return values

    # -- evaluation --------------------------------------------------------------------------------

    def evaluate(self, split: Split) -> dict[str, float]:
        """Run `Task.evaluate` on `split`. Evaluation does not change training's random state."""
        with evaluating(self.task, self.config.seed):
            return self.task.evaluate(split.to(self._device))

    def test(self) -> dict[str, float]:
        """Run `Task.test` on the whole data. Training's random state does not change."""
        with evaluating(self.task, self.config.seed):
            return self.task.test(self.whole_data)

    def pictures(self) -> dict[str, np.ndarray]:
        """Run `Task.pictures` on the whole data. Training's random state does not change."""
        with evaluating(self.task, self.config.seed):
            return self.task.pictures(self.whole_data)

    def progress_images(self) -> np.ndarray | None:
        """Run `Task.progress_images`. Training's random state does not change."""
        with evaluating(self.task, self.config.seed):
            return self.task.progress_images()

    # -- checkpoints -------------------------------------------------------------------------------

    def save(self, folder: Path) -> None:
        """Write `folder`/fit.pt with the complete training state, for a bit-exact resume.

        The state consists of weights, moving averages, optimizers, position, random state and best
        weights. Raises RunFault when a loss or a weight is not finite.
        """
        means = {name: (value / max(1, self._count)).item() for name, value in self._sums.items()}
        check_finite(means, self.step)
        check_finite_weights(self.task.networks, self.step)
        updaters = self.task.updaters.items()
        state = {
            "step": self.step,
            "stage": self._stage,
            "stage_step": self._stage_step,
            "done": self._done,
            "looking": self.evaluation_unfinished,
            "planned": self.total_steps(),
            "networks": self.task.networks.state_dict(),
            "updaters": {name: updater.state_dict() for name, updater in updaters},
            "rows": self.whole_data.about.get("rows"),
            **self._early_stopping.state_dict(),
            "sums": self._sums,
            "count": self._count,
            "threads": self.threads,
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state_all() if self._device.type == "cuda" else [],
        }
        write_state(folder, state)

    def load(self, folder: Path) -> None:
        """Restore the state that `save` wrote to `folder`.

        Raises CheckpointError when the state does not fit this task or the data have changed.
        """
        with checkpoint_errors(folder):
            state = read_state(folder, self._device)
            if state.get("rows") or self.task.needs_same_rows:
                check_same_rows(state.get("rows"), self.whole_data.about.get("rows"))
            # A finished run, stopped early or not, continues only when the new configuration has
            # more steps than the saved one.
            self._stage = state["stage"]
            self._done = state["done"] and self.total_steps() <= state["planned"]
            # Load the networks before `begin_stage`, which may compute the stage's data (codes)
            # with them. Load them again afterwards, because `begin_stage` may change the networks.
            if not self._done:
                self.task.networks.load_state_dict(state["networks"])
                self._begin_stage()
            self.task.networks.load_state_dict(state["networks"])
            if not self._done:
                for name, updater in self.task.updaters.items():
                    updater.load_state_dict(state["updaters"][name])
        self.step, self._stage_step = state["step"], state["stage_step"]
        self._early_stopping.load_state_dict(state)
        self._sums, self._count = state["sums"], state["count"]
        # Checkpoints of earlier versions lack these two keys.
        self.threads = state.get("threads", 0)
        self.evaluation_unfinished = state.get("looking", False)
        # The random state comes last: everything above may draw random numbers.
        torch.set_rng_state(state["random"].cpu())
        if state["random_cuda"]:
            torch.cuda.set_rng_state_all([each.cpu() for each in state["random_cuda"]])
