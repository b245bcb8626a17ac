"""Updates parameters from losses: accumulation, gradient clipping, penalties and the schedule."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, optim

from genray.errors import require
from genray.gen.training.optimizers import (
    PENALISED,
    OptimizerConfig,
    is_learned,
    make_optimizer,
    optimizer_name,
    penalised,
)
from genray.gen.training.schedules import factor, needs_total
from genray.gen.training.world import ALONE, World


class Updater:
    """Updates parameters from losses: accumulates gradients, averages them over the workers,
    clips them, and applies penalties and the schedule.

    Args:
        parameters: the parameters to update; parameters without `requires_grad` are ignored.
        config: the optimizer, its penalties and its schedule.
        total_updates: the stage's number of updates, for the schedule; see `schedules.factor`.
        accumulate: number of calls of `step` for one update, which uses the mean of their losses.
        amp: "float16" (GPUs only) scales the loss so that small gradients do not become 0, and
            leaves out the optimizer step when a gradient overflows; other values change nothing.
        world: this data-parallel worker.

    Raises:
        ConfigError: the optimizer is unknown, or the schedule needs `total_updates`.
    """

    def __init__(
        self,
        parameters: Iterable[torch.nn.Parameter],
        config: OptimizerConfig,
        *,
        total_updates: int = 0,
        accumulate: int = 1,
        amp: str = "off",
        world: World = ALONE,
    ):
        self.parameters = [parameter for parameter in parameters if parameter.requires_grad]
        self.config, self._world = config, world
        self._total, self._accumulate, self._amp = total_updates, accumulate, amp
        require(
            total_updates > 0 or not needs_total(config.schedule),
            f"--schedule {config.schedule}: needs the number of updates, and this stage makes "
            "none; use e.g. constant",
        )
        self._name = optimizer_name(config.optimizer)
        self._weights = [parameter for parameter in self.parameters if penalised(parameter)]
        self._penalises = bool(config.l1 or config.l2) and self._name not in PENALISED
        self._constant = config.schedule == "constant" and not config.warmup_updates
        self._optimizer: optim.Optimizer | None = None
        self._scaler: torch.amp.GradScaler | None = None
        self._batches = 0
        self.updates = 0
        """Number of updates so far."""

    @property
    def optimizer(self) -> optim.Optimizer:
        """The optimizer.

        It is created at its first use, because networks move to their device after their updaters
        are created, and an optimizer's state does not move with them. Raises ConfigError for
        "float16" without a GPU.
        """
        if self._optimizer is None:
            self._optimizer = make_optimizer(self.parameters, self.config)
            if self._amp == "float16":
                device = self.parameters[0].device.type
                require(device == "cuda", "--amp float16: needs a GPU; use --amp bfloat16 or off")
                self._scaler = torch.amp.GradScaler(device)
        return self._optimizer

    @property
    def learning_rate(self) -> float:
        """The learning rate of the next update."""
        config = self.config
        return config.learning_rate * factor(
            config.schedule,
            self.updates,
            self._total,
            rate=config.schedule_rate,
            warmup=config.warmup_updates,
        )

    def step(self, loss: Tensor) -> None:
        """Run the backward pass of `loss` (a scalar), and make an update when one is due.

        Gradients stay in `.grad` until the first step after the update.
        """
        optimizer = self._optimizer or self.optimizer
        # Clear the gradients of the last update.
        if self._batches == 0:
            for parameter in self.parameters:
                parameter.grad = None
        # Scale the loss, so that the gradients of several batches add up to the gradient of their
        # mean loss.
        if self._accumulate > 1:
            loss = loss / self._accumulate
        if self._scaler is not None:
            loss = self._scaler.scale(loss)
        # Run the backward pass. `inputs` limits it to this updater's parameters, because a
        # generator's step must not compute or store gradients of the discriminator.
        loss.backward(inputs=self.parameters)
        # Make an update after the last batch.
        self._batches += 1
        if self._batches == self._accumulate:
            self._batches = 0
            self._update(optimizer)

    def _update(self, optimizer: optim.Optimizer) -> None:
        # The order matters: average over workers, undo the loss scale, clip, set the learning
        # rate, add penalties, update.
        if self._world.size > 1:
            self._world.average(
                parameter.grad for parameter in self.parameters if parameter.grad is not None
            )
        if self._scaler is not None:
            self._scaler.unscale_(optimizer)
        if self.config.grad_clip:
            torch.nn.utils.clip_grad_norm_(self.parameters, self.config.grad_clip, foreach=True)
        rate = self.config.learning_rate
        if not self._constant:
            rate = self.learning_rate
            for group in optimizer.param_groups:
                group["lr"] = rate
        if self._penalises:
            self._penalise(rate)
        if self._scaler is None:
            optimizer.step()
        else:
            self._scaler.step(optimizer)
            self._scaler.update()
        self.updates += 1

    @torch.no_grad()
    def _penalise(self, rate: float) -> None:
        # Add the gradients of the penalties, or shrink the weights. Each is one call for all
        # weights.
        config = self.config
        weights = [weight for weight in self._weights if weight.grad is not None]
        if not weights:
            return
        gradients = [weight.grad for weight in weights]
        if config.l1:
            torch._foreach_add_(gradients, torch._foreach_sign(weights), alpha=config.l1)  # type: ignore[arg-type]
        if config.l2 and (config.decoupled_l2 or self._name == "adamw"):
            # The weights shrink before the step, as in PyTorch's AdamW.
            # [Loshchilov 2019, https://arxiv.org/abs/1711.05101]
            torch._foreach_mul_(weights, 1 - rate * config.l2)  # type: ignore[arg-type]
        elif config.l2:
            torch._foreach_add_(gradients, weights, alpha=config.l2)  # type: ignore[arg-type]

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the next step depends on, apart from the weights.

        If gradients were accumulated since the last update, the state includes them.
        """
        gradients = [p.grad for p in self.parameters] if self._batches else []
        return {
            "name": self._name,
            "optimizer": self.optimizer.state_dict(),
            "updates": self.updates,
            "batches": self._batches,
            "gradients": [None if gradient is None else gradient.clone() for gradient in gradients],
            "scaler": {} if self._scaler is None else self._scaler.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state that `state_dict` returned.

        Hyperparameters such as the learning rate keep this configuration's values, so that a run
        can be resumed with changed hyperparameters. Raises ValueError when the state belongs to
        other parameters or another optimizer.
        """
        # The oldest checkpoints do not name their optimizer. Of a learned optimizer, the weights
        # are compared instead of the path, because its run may have moved.
        name = state.get("name", self._name)
        if name != self._name and not (is_learned(name) and is_learned(self._name)):
            raise ValueError(
                f"--optimizer {self._name}: the checkpoint has the state of {name}, which "
                f"{self._name} cannot continue; resume with --optimizer {name}"
            )
        # Restore the optimizer's state, but keep this configuration's hyperparameters.
        options = [{**group} for group in self.optimizer.param_groups]
        self.optimizer.load_state_dict(state["optimizer"])
        for group, own in zip(self.optimizer.param_groups, options):
            group.update({name: value for name, value in own.items() if name != "params"})
        self.updates, self._batches = state["updates"], state["batches"]
        for parameter, gradient in zip(self.parameters, state["gradients"]):
            parameter.grad = None if gradient is None else gradient.to(parameter.device, copy=True)
        if self._scaler is not None and state["scaler"]:
            self._scaler.load_state_dict(state["scaler"])
