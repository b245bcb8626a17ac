"""The one training loop of autoencoders, VAEs, GANs and classifiers: an iterator of step
results. Resume is bit-exact.

A `Task` knows its networks, what one step does, how they are judged and shown. `Fit` knows the
order of the data, when to judge, when to stop, and everything that must be kept to continue as
if nothing had happened.
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

from genray.errors import CheckpointError, RunFault, first_line, require
from genray.gen.data.augment import augment
from genray.gen.data.load import changed
from genray.gen.data.types import Data, Split
from genray.gen.training.optimizers import Updater
from genray.gen.training.world import ALONE, World


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """How long, how judged, how kept. The same for every kind of model."""

    epochs: int = 20
    """Passes over the training split, in each stage."""
    steps: int = 0
    """Steps instead of epochs; 0: by epochs."""
    batch_size: int = 100
    """Rows of one step, all workers together."""
    validate_every: int = 0
    """Steps between looks at the validation split, with pictures; 0: once an epoch."""
    checkpoint_every: int = 0
    """Steps between checkpoints; 0: ten a run, and at the end."""
    keep: int = 1
    """Newest checkpoints kept, beside the best."""
    log_every: int = 50
    """Steps between lines of metrics.jsonl; each is the mean of the steps since the last."""
    patience: int = 0
    """Early stopping: looks without a better validation loss before a stage ends with its best
    weights; 0: never.
    """
    seed: int = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    amp: Literal["off", "bfloat16", "float16"] = "off"
    """Mixed precision in the forward passes; weights stay float32. float16 scales the loss (GPUs
    only).
    """
    accumulate: int = 1
    """Batches whose gradients are added up before an update."""

    def validate(self) -> None:
        require(self.epochs >= 1, f"--epochs {self.epochs}: must be ≥ 1")
        require(self.steps >= 0, f"--steps {self.steps}: must be ≥ 0 (0: by --epochs)")
        require(self.batch_size >= 1, f"--batch-size {self.batch_size}: must be ≥ 1, e.g. 100")
        require(
            self.validate_every >= 0,
            f"--validate-every {self.validate_every}: must be ≥ 0 (0: once an epoch)",
        )
        require(
            self.checkpoint_every >= 0, f"--checkpoint-every {self.checkpoint_every}: must be ≥ 0"
        )
        require(self.keep >= 1, f"--keep {self.keep}: must be ≥ 1")
        require(self.log_every >= 1, f"--log-every {self.log_every}: must be ≥ 1, e.g. 50")
        require(
            self.patience >= 0, f"--patience {self.patience}: must be ≥ 0 (0: no early stopping)"
        )
        require(self.accumulate >= 1, f"--accumulate {self.accumulate}: must be ≥ 1")
        require(0 <= self.seed < 2**31, f"--seed {self.seed}: must lie in 0 .. 2^31 − 1")


class Batch(NamedTuple):
    """A worker's rows of one step, on the training device."""

    x: Tensor
    """float32 [B, …] in the data's value range."""
    label: Tensor | None
    """int64 [B]; None for unlabelled data."""
    rows: Tensor
    """int64 [B]: where they stand in the split."""


class Export(NamedTuple):
    """What a task leaves in the model store."""

    kind: str
    config: dict[str, Any]
    tensors: dict[str, Tensor]
    card: str


class Task:
    """What is trained. A subclass fills `networks` and `updaters` (in `begin_stage`, at the
    latest) and overrides the rest.

    All random numbers of a step come from PyTorch's global generator (dropout does, too) or from
    `world.normal`.
    """

    stages: Sequence[str] = ("train",)
    """Names of the stages, trained one after the other: greedy pretraining has one for each
    layer.
    """
    config: Any
    """The family's configuration, with `data`, `fit` and `optimizer` among its parts."""
    shown: Sequence[str] = ("loss",)
    """Which of a step's values a person wants to watch."""

    def __init__(self, world: World = ALONE, device: torch.device | str = "cpu", amp: str = "off"):
        self.world, self.device, self.amp = world, torch.device(device), amp
        self.networks: nn.ModuleDict = nn.ModuleDict()
        """Everything with weights or statistics, averages included: what a checkpoint keeps."""
        self.updaters: dict[str, Updater] = {}

    def begin_stage(self, stage: int, data: Data, total_updates: int) -> Data:
        """Prepare `stage`: make its updaters; returns the data that it trains on (codes, a
        labelled few, …).
        """
        raise NotImplementedError

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """Change the networks once; returns detached scalars to report, left on the device."""
        raise NotImplementedError

    def judge(self, split: Split) -> dict[str, float]:
        """Figures on held-out rows, with `loss` among them (lower is better); called in
        evaluation mode, no gradients.
        """
        raise NotImplementedError

    def measure(self, data: Data) -> dict[str, float]:
        """The last word, on the test split: `judge`, and what takes longer. Called once, as
        `judge` is.
        """
        return self.judge(data.test)

    def pictures(self, data: Data) -> dict[str, np.ndarray]:
        """Name → a picture, uint8 RGB [H, W, 3], from fixed noise or fixed rows; called as
        `judge` is.
        """
        return {}

    def export(self) -> Export:
        """The model to keep, at its present weights."""
        raise NotImplementedError

    def autocast(self) -> torch.autocast:
        """The context of a forward pass."""
        dtype = torch.float16 if self.amp == "float16" else torch.bfloat16
        return torch.autocast(self.device.type, dtype=dtype, enabled=self.amp != "off")


@dataclass
class Step:
    """What happened up to one step."""

    step: int
    """Steps made, over all stages."""
    epoch: float
    """Passes over the stage's data."""
    stage: str
    values: dict[str, float] = field(default_factory=dict)
    """Means over the steps since the last report; empty between reports."""
    held_out: dict[str, float] = field(default_factory=dict)
    """`Task.judge` of the validation split, when it was asked."""
    last_of_stage: bool = False


class Fit:
    """Trains `task` on `data`; iterate over it.

    The order of the data is a function of (seed, stage, epoch), so that a position is enough to
    continue. With workers, every worker runs its own Fit with its own `World`, and all take the
    same decisions.
    """

    def __init__(self, task: Task, data: Data, config: FitConfig):
        config.validate()
        self.task, self.config, self._device = task, config, task.device
        self.whole_data = data.to(task.device)
        """Copied there once, for training and for every look."""
        self.step = 0
        """Steps made over all stages."""
        self.threads = 0
        """PyTorch's threads on a CPU that the run was made with, kept in checkpoints; 0: not
        chosen yet.
        """
        self._stage, self._stage_step, self._done = 0, 0, False
        self._best: dict[str, Any] | None = None
        self._best_loss, self._worse = math.inf, 0
        self.looking = False  # True while a step's evaluation has begun and not ended
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
        # How many updates a stage makes decides its schedule; the stage's data may be smaller than
        # the whole.
        name = self.task.stages[self._stage]
        with fixed_randomness([self.config.seed, 1, self._stage]):
            data = self.task.begin_stage(
                self._stage, self.whole_data, self.total_steps() // self.config.accumulate
            )
        # a stage's own rows; the whole data's stay where they are
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
        return max(
            1, (len(self.whole_data.train) if rows is None else rows) // self.config.batch_size
        )

    def total_steps(self) -> int:
        """Steps of one stage over the whole training split."""
        return self.config.steps or self.config.epochs * self.steps_an_epoch()

    def planned_steps(self) -> int:
        """Steps of all stages, unless one stops early."""
        return self.total_steps() * len(self.task.stages)

    @property
    def done(self) -> bool:
        """Whether there is nothing left to train."""
        return self._done

    # -- the loop ----------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Step]:
        """Train to the end, one `Step` at a time. Raises RunFault when a loss is no longer
        finite.
        """
        while not self._done:
            if self.looking:  # the evaluation of this step failed, or its process was killed
                yield self._finish_step()
                continue
            # Asked first: to tell every module anew costs a small network a fiftieth of its step.
            if not all(network.training for network in self.task.networks.values()):
                self.task.networks.train()
            values = self.task.step(self._next_batch())
            self.step += 1
            self._stage_step += 1
            self._add_up(values)
            yield self._finish_step()

    def _next_batch(self) -> Batch:
        batch_size = self.config.batch_size
        epoch, position = divmod(self._stage_step, self.steps_an_epoch(len(self.train)))
        if position == 0 or self._order is None:
            generator = np.random.default_rng([self.config.seed, 0, self._stage, epoch])
            order = torch.from_numpy(generator.permutation(len(self.train)))
            # a copy from pinned memory does not wait for the steps before it
            if self._device.type == "cuda":
                order = order.pin_memory()
            self._order = order.to(self._device, non_blocking=True)
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
        if due or self.step % self.config.log_every == 0:
            result.values = self._report()
        if due and len(self.data.validation):
            self.looking = True
            result.held_out = self.judge(self.data.validation)
            self.looking = False
            # Workers must take the same decision, though their batch norms' statistics differ a
            # little.
            result.held_out["loss"] = self.task.world.mean(result.held_out["loss"])
            ends = self._stop_early(result.held_out["loss"]) or ends
        if ends:
            result.last_of_stage = True
            self._end_stage()
        return result

    def _report(self) -> dict[str, float]:
        # The only place where the loop waits for the device; the sums would show a single bad step.
        if not self._sums:  # a failed evaluation is made again, after its losses were reported
            return {}
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
            # and the position stays: a resumed run that is given more steps goes on from here
            self._done = True
        else:
            self._stage, self._stage_step = self._stage + 1, 0
            self._begin_stage()

    # -- looking -----------------------------------------------------------------------------------

    def judge(self, split: Split) -> dict[str, float]:
        """`Task.judge`, leaving the random state of training untouched: looking must not change
        what is looked at.
        """
        with looking(self.task, self.config.seed):
            return self.task.judge(split.to(self._device))

    def measure(self) -> dict[str, float]:
        """`Task.measure` of the whole data."""
        with looking(self.task, self.config.seed):
            return self.task.measure(self.whole_data)

    def pictures(self) -> dict[str, np.ndarray]:
        with looking(self.task, self.config.seed):
            return self.task.pictures(self.whole_data)

    # -- keeping -----------------------------------------------------------------------------------

    def save(self, folder: Path) -> None:
        """Everything needed to continue bit for bit: weights, averages, optimizers, position,
        random state, best weights.

        Raises RunFault rather than keep a network that has diverged.
        """
        self._check(
            {name: (value / max(1, self._count)).item() for name, value in self._sums.items()}
        )
        # The last update may have ruined the weights after a loss that was still finite.
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
            "looking": self.looking,
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
        # in memory first, so that a full disk is an OSError and nothing stranger
        buffer = io.BytesIO()
        torch.save(state, buffer)
        (folder / "fit.pt").write_bytes(buffer.getbuffer())

    def load(self, folder: Path) -> None:
        """Continue from `save`. Raises CheckpointError when the weights do not fit this task, or
        the data have changed.
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
            # A run that ended, early or not, goes on only when it is given more steps than it was
            # planned for.
            self._done = state["done"] and self.total_steps() <= state["planned"]
            if not self._done:
                # Data of a stage may come from the networks of the stages before (codes), so these
                # come first.
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
        self.looking = state.get("looking", False)  # absent in checkpoints of earlier versions
        torch.set_rng_state(state["random"].cpu())
        if state["random_cuda"]:
            torch.cuda.set_rng_state_all([each.cpu() for each in state["random_cuda"]])


@contextmanager
def fixed_randomness(seed: Sequence[int]) -> Iterator[None]:
    """PyTorch's global generators seeded inside, and as they were afterwards."""
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(int(np.random.SeedSequence(seed).generate_state(1)[0]))
        yield


@contextmanager
def looking(task: Task, seed: int) -> Iterator[None]:
    """Evaluation mode, no gradients, random numbers of its own."""
    task.networks.eval()
    with torch.no_grad(), fixed_randomness([seed, 2]):
        yield
    task.networks.train()
