"""The training loop of autoencoders, VAEs, GANs and classifiers. Resuming a run is bit-exact.

A `Task` defines the networks, one training step, their evaluation and their pictures. `Fit` decides
the order of the data, when to evaluate and when to stop, and saves the complete training state.
"""

import io
import math
import pickle
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from genray.bounds import bounded, check_bounds, seed
from genray.errors import CheckpointError, RunFault, first_line, require
from genray.gen.data.augment import augment
from genray.gen.data.load import changed
from genray.gen.data.types import Data, Split
from genray.gen.training.optimizers import Updater
from genray.gen.training.world import ALONE, World


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """Length, evaluation and checkpoints of a training run, for every kind of model."""

    epochs: int = bounded(20, min=1)
    """Passes over the training split, in each stage."""
    steps: int = bounded(0, min=0, note="(0: by --epochs)")
    """Steps in each stage, instead of --epochs; 0: use --epochs."""
    batch_size: int = bounded(100, min=1, example=100)
    """Rows of one step, over all workers together."""
    validate_every: int = bounded(0, min=0, note="(0: once an epoch)")
    """Steps between evaluations of the validation split; 0: once an epoch."""
    checkpoint_every: int = bounded(0, min=0)
    """Steps between checkpoints; 0: ten in a run, and one at the end of each stage."""
    keep: int = bounded(1, min=1)
    """Number of newest checkpoints kept, in addition to the best one."""
    log_every: int = bounded(50, min=1, example=50)
    """Steps between lines of metrics.jsonl; a line has the means since the line before."""
    patience: int = bounded(0, min=0, note="(0: no early stopping)")
    """Early stopping: a stage ends, with its best weights, after this many evaluations without
    a better validation loss; 0: no early stopping.
    """
    seed: int = seed()
    device: Literal["auto", "cpu", "cuda"] = "auto"
    amp: Literal["off", "bfloat16", "float16"] = "off"
    """Mixed precision of the forward passes; weights stay float32. float16 also scales the loss,
    and needs a GPU.
    """
    accumulate: int = bounded(1, min=1)
    """Number of batches whose gradients are averaged for one update."""

    def validate(self) -> None:
        check_bounds(self)


class Batch(NamedTuple):
    """One worker's rows of one step, on the training device."""

    x: Tensor
    """float32 [B, …] in the data's value range."""
    label: Tensor | None
    """int64 [B]; None for unlabelled data."""
    rows: Tensor
    """int64 [B]: indices of the rows in the split."""


class Export(NamedTuple):
    """A model to save: its kind, JSON-serialisable config, weights by name, and model card."""

    kind: str
    config: dict[str, Any]
    tensors: dict[str, Tensor]
    card: str


class Task:
    """Base class of everything that `Fit` trains.

    A subclass fills `networks` and `updaters`, in `begin_stage` at the latest, and overrides
    `begin_stage`, `step`, `evaluate` and `export`; `test` and `pictures` are optional. All random
    numbers of a step come from PyTorch's global generator, which dropout uses too, or from `world`.

    `world`: this data-parallel worker. `device`: where to train. `amp`: as in `FitConfig`.
    """

    stages: Sequence[str] = ("train",)
    """Names of the stages, which are trained one after another. For example, greedy pretraining
    has one stage for each layer.
    """
    config: Any
    """The family's configuration; it has the parts `data`, `fit` and `optimizer`."""
    shown: Sequence[str] = ("loss",)
    """Names of the step's values that the live display shows."""

    def __init__(self, world: World = ALONE, device: torch.device | str = "cpu", amp: str = "off"):
        self.world, self.device, self.amp = world, torch.device(device), amp
        self.networks: nn.ModuleDict = nn.ModuleDict()
        """Every module that a checkpoint saves: weights, statistics and moving averages."""
        self.updaters: dict[str, Updater] = {}

    def begin_stage(self, stage: int, data: Data, total_updates: int) -> Data:
        """Prepare `stage` and create its updaters; returns the data that the stage trains on.

        A stage may train on other data than `data`, for example on codes or a few labelled rows.
        `total_updates`: number of updates of the stage.
        """
        raise NotImplementedError

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """Run one training step; returns detached scalars to report, still on the device."""
        raise NotImplementedError

    def evaluate(self, split: Split) -> dict[str, float]:
        """Evaluate held-out rows; returns metrics by name, including `loss` (lower is better).

        Called in evaluation mode, without gradients.
        """
        raise NotImplementedError

    def test(self, data: Data) -> dict[str, float]:
        """Test the trained networks on the test split; returns metrics by name.

        Called once, at the end of the run, in evaluation mode without gradients. The default is
        `evaluate` of the test split; a subclass may add slower metrics.
        """
        return self.evaluate(data.test)

    def pictures(self, data: Data) -> dict[str, np.ndarray]:
        """Return pictures by name, each uint8 RGB [H, W, 3], of fixed noise or fixed rows.

        Called in evaluation mode, without gradients.
        """
        return {}

    def export(self) -> Export:
        """Return the model to save, with its current weights."""
        raise NotImplementedError

    def autocast(self) -> torch.autocast:
        """Return the mixed-precision context for a forward pass."""
        dtype = torch.float16 if self.amp == "float16" else torch.bfloat16
        return torch.autocast(self.device.type, dtype=dtype, enabled=self.amp != "off")


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
    """Trains `task` on `data`. Iterate over a Fit to train; every step yields a `Step`.

    `task`: the networks and their training step. `data`: all splits. `config`: length, evaluation
    and checkpoints. The order of the data is a function of (seed, stage, epoch), so that a resumed
    run needs only its position. With several workers, every worker runs its own Fit with its own
    `World`, and all workers make the same decisions.

    Raises ConfigError when the workers do not divide the batch size, or when a stage would make no
    update or has fewer rows than a batch.
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
        self._stage, self._stage_step, self._done = 0, 0, False
        self._best: dict[str, Any] | None = None
        self._best_loss, self._worse = math.inf, 0
        self.evaluation_unfinished = False
        """True from the start to the end of a step's evaluation, and after one that failed."""
        world = task.world
        require(
            config.batch_size % world.size == 0,
            f"--batch-size {config.batch_size}: {world.size} workers do not divide it; use e.g. "
            f"{math.ceil(config.batch_size / world.size) * world.size}",
        )
        require(
            self.total_steps() >= config.accumulate,
            f"--accumulate {config.accumulate}: a stage has {self.total_steps()} steps, so that no "
            "update would be made; "
            f"use at most --accumulate {self.total_steps()}, or more --steps",
        )
        torch.manual_seed(config.seed)
        task.networks.to(self._device)
        self._begin_stage()

    # -- stages ------------------------------------------------------------------------------------

    def _begin_stage(self) -> None:
        # The learning-rate schedule depends on the stage's number of updates. This number is
        # computed from the whole data, although the stage's data may be smaller.
        name = self.task.stages[self._stage]
        with fixed_randomness([self.config.seed, 1, self._stage]):
            data = self.task.begin_stage(
                self._stage, self.whole_data, self.total_steps() // self.config.accumulate
            )
        # The stage may have created new rows on the CPU; the whole data is on the device already.
        self.data = data.to(self._device)
        self.train = self.data.train
        self.task.networks.to(self._device)
        require(
            len(self.train) >= self.config.batch_size,
            f"--batch-size {self.config.batch_size}: {name} has {len(self.train)} rows; use at "
            "most that many",
        )
        self._order: Tensor | None = None
        self._sums: dict[str, Tensor] = {}
        self._count = 0

    def steps_an_epoch(self, rows: int | None = None) -> int:
        """Return the steps of one epoch over `rows` rows (default: the training split)."""
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
            # The evaluation of this step failed, or its process was killed.
            if self.evaluation_unfinished:
                yield self._finish_step()
                continue
            # `train()` on every module costs a small network 2% of its step, so it is called only
            # when needed.
            if not all(network.training for network in self.task.networks.values()):
                self.task.networks.train()
            values = self.task.step(self._next_batch())
            self.step += 1
            self._stage_step += 1
            self._add_up(values)
            yield self._finish_step()

    def _next_batch(self) -> Batch:
        # At the start of an epoch, and after resuming, draw the epoch's order of rows.
        batch_size = self.config.batch_size
        epoch, position = divmod(self._stage_step, self.steps_an_epoch(len(self.train)))
        if position == 0 or self._order is None:
            generator = np.random.default_rng([self.config.seed, 0, self._stage, epoch])
            order = torch.from_numpy(generator.permutation(len(self.train)))
            # From pinned memory, the copy does not wait for earlier steps on the GPU.
            if self._device.type == "cuda":
                order = order.pin_memory()
            self._order = order.to(self._device, non_blocking=True)
        # Take this worker's rows of the global batch.
        rows = self._order[position * batch_size : (position + 1) * batch_size][
            self.task.world.rows(batch_size)
        ]
        x, label = self.train.take(rows)
        return Batch(augment(x, self.train.augment, self.task.world), label, rows)

    def _add_up(self, values: dict[str, Tensor]) -> None:
        for name, value in values.items():
            self._sums[name] = self._sums[name] + value if name in self._sums else value
        self._count += 1

    def _finish_step(self) -> Step:
        an_epoch = self.steps_an_epoch(len(self.train))
        ends = self._stage_step >= self.total_steps()
        result = Step(self.step, self._stage_step / an_epoch, self.task.stages[self._stage])
        due = ends or self._stage_step % (self.config.validate_every or an_epoch) == 0
        # Report the mean training values, then evaluate the validation split.
        if due or self.step % self.config.log_every == 0:
            result.values = self._report()
        if due and len(self.data.validation):
            self.evaluation_unfinished = True
            result.held_out = self.evaluate(self.data.validation)
            self.evaluation_unfinished = False
            # The workers' batch norms have slightly different statistics, so the loss is averaged:
            # all workers must make the same decision about early stopping.
            result.held_out["loss"] = self.task.world.mean(result.held_out["loss"])
            ends = self._stop_early(result.held_out["loss"]) or ends
        if ends:
            result.last_of_stage = True
            self._end_stage()
        return result

    def _report(self) -> dict[str, float]:
        if not self._sums:  # a failed evaluation is made again, after its losses were reported
            return {}
        # Only here does the loop wait for the device. One step that is not finite makes its sum
        # not finite, so no such step is missed.
        means = {name: value / self._count for name, value in self._sums.items()}
        self.task.world.average(means.values())
        values = dict(zip(means, torch.stack(list(means.values())).tolist()))
        self._check(values)
        self._sums, self._count = {}, 0
        return values

    def _check(self, values: dict[str, float]) -> None:
        for name, value in values.items():
            if not math.isfinite(value):
                raise RunFault(
                    f"{name} is {value} at step {self.step}: try a lower --learning-rate"
                )

    def _stop_early(self, loss: float) -> bool:
        if not math.isfinite(loss):
            raise RunFault(
                f"the validation loss is {loss} at step {self.step}: try a lower --learning-rate"
            )
        if not self.config.patience:
            return False
        if loss < self._best_loss:
            self._best_loss, self._worse = loss, 0
            self._best = {
                name: tensor.clone() for name, tensor in self.task.networks.state_dict().items()
            }
            return False
        self._worse += 1
        return self._worse >= self.config.patience

    def _end_stage(self) -> None:
        if self._best is not None:
            self.task.networks.load_state_dict(self._best)
        self._best, self._best_loss, self._worse = None, math.inf, 0
        if self._stage + 1 == len(self.task.stages):
            # The position is kept, so that a run resumed with more steps continues from here.
            self._done = True
        else:
            self._stage, self._stage_step = self._stage + 1, 0
            self._begin_stage()

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

    # -- checkpoints -------------------------------------------------------------------------------

    def save(self, folder: Path) -> None:
        """Write `folder`/fit.pt with the complete training state, for a bit-exact resume.

        Contains weights, moving averages, optimizers, position, random state and best weights.
        Raises RunFault when a loss or a weight is not finite.
        """
        self._check(
            {name: (value / max(1, self._count)).item() for name, value in self._sums.items()}
        )
        # The last update can make weights infinite or NaN although its loss was finite.
        for name, tensor in self.task.networks.state_dict().items():
            if not bool(torch.isfinite(tensor).all()):
                raise RunFault(
                    f"{name} is no longer finite at step {self.step}: try a lower --learning-rate"
                )
        state = {
            "step": self.step,
            "stage": self._stage,
            "stage_step": self._stage_step,
            "done": self._done,
            "looking": self.evaluation_unfinished,
            "planned": self.total_steps(),
            "networks": self.task.networks.state_dict(),
            "updaters": {
                name: updater.state_dict() for name, updater in self.task.updaters.items()
            },
            "rows": self.whole_data.about.get("rows"),
            "best": self._best,
            "best_loss": self._best_loss,
            "worse": self._worse,
            "sums": self._sums,
            "count": self._count,
            "threads": self.threads,
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state_all() if self._device.type == "cuda" else [],
        }
        # Serialised in memory first, so that a full disk raises OSError. `torch.save` to a file
        # would raise other errors.
        buffer = io.BytesIO()
        torch.save(state, buffer)
        (folder / "fit.pt").write_bytes(buffer.getbuffer())

    def load(self, folder: Path) -> None:
        """Restore the state that `save` wrote to `folder`.

        Raises CheckpointError when the state does not fit this task or the data have changed.
        """
        try:
            state = torch.load(folder / "fit.pt", map_location=self._device, weights_only=True)
            rows = self.whole_data.about.get("rows")
            if rows and changed(state.get("rows"), rows):
                raise ValueError(
                    f"--data {rows['data']}: its files or words are not those that the run began "
                    "with, and other rows "
                    "would be held out; restore them or start a new run"
                )
            self._stage = state["stage"]
            # A finished run, stopped early or not, continues only when the new configuration has
            # more steps than the saved one.
            self._done = state["done"] and self.total_steps() <= state["planned"]
            if not self._done:
                # The networks are loaded before `_begin_stage`, which may compute the stage's data
                # (codes) with them.
                self.task.networks.load_state_dict(state["networks"])
                self._begin_stage()
            self.task.networks.load_state_dict(state["networks"])
            if not self._done:
                for name, updater in self.task.updaters.items():
                    updater.load_state_dict(state["updaters"][name])
        except (
            OSError,
            RuntimeError,
            KeyError,
            ValueError,
            TypeError,
            EOFError,
            AttributeError,
            pickle.UnpicklingError,
        ) as error:
            raise CheckpointError(
                f"{folder}: does not fit this model ({first_line(error)})"
            ) from error
        self.step, self._stage_step = state["step"], state["stage_step"]
        self.threads = state.get("threads", 0)  # older checkpoints have none
        self._best, self._best_loss, self._worse = state["best"], state["best_loss"], state["worse"]
        self._sums, self._count = state["sums"], state["count"]
        # The key is absent in checkpoints of earlier versions.
        self.evaluation_unfinished = state.get("looking", False)
        torch.set_rng_state(state["random"].cpu())
        if state["random_cuda"]:
            torch.cuda.set_rng_state_all([each.cpu() for each in state["random_cuda"]])


@contextmanager
def fixed_randomness(seed: Sequence[int]) -> Iterator[None]:
    """Seed PyTorch's global generators inside the context, and restore them afterwards."""
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(int(np.random.SeedSequence(seed).generate_state(1)[0]))
        yield


@contextmanager
def evaluating(task: Task, seed: int) -> Iterator[None]:
    """Context for evaluation: evaluation mode, no gradients, a separate random state."""
    task.networks.eval()
    with torch.no_grad(), fixed_randomness([seed, 2]):
        yield
    task.networks.train()
