"""Optimizers by name, what surrounds them (penalties, clipping, schedules), and the one place
where a step is taken.
"""

import difflib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, optim

from genray.errors import ConfigError, require
from genray.gen.training.extra_optimizers import (
    FTRL,
    AdagradDA,
    ProximalAdagrad,
    ProximalGradientDescent,
)
from genray.gen.training.schedules import Schedule, factor, needs_total
from genray.gen.training.world import ALONE, World


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """How gradients become steps."""

    optimizer: str = "adam"
    """sgd, momentum, nesterov, adagrad, adadelta, rmsprop, rmsprop-centered, adam, adamw,
    amsgrad, nadam, radam, adamax, adafactor, asgd, rprop; adagrad-da, ftrl,
    proximal-gradient-descent, proximal-adagrad
    """
    learning_rate: float = 1e-3
    """η. 1e-3 suits adam's family; sgd and adagrad want about 1e-2 to 1e-1, adadelta 1."""
    momentum: float = 0.9
    """For momentum and nesterov."""
    beta1: float = 0.9
    """For adam's family: how much of the mean of gradients stays at each update."""
    beta2: float = 0.999
    """For adam's family: how much of the mean of squared gradients stays."""
    rho: float = 0.9
    """For rmsprop and adadelta: how much of the mean of squared gradients stays."""
    epsilon: float = 0.0
    """What keeps a division from 0 (ftrl's β); 0: as the optimizer has it."""
    l1: float = 0.0
    """Penalty λ·Σ|w| on weights (not biases, not norms); exact zeros with the last four
    optimizers.
    """
    l2: float = 0.0
    """Penalty λ/2·Σw² on weights (not biases, not norms); adamw, with any value, decouples it."""
    decoupled_l2: bool = False
    """Shrink weights by η·λ beside the step instead of adding λ·w to the gradient, as adamw
    does.
    """
    grad_clip: float = 0.0
    """Largest norm of all gradients together; 0: unbounded. Penalties join after it."""
    schedule: Schedule = "constant"
    """How η changes over the updates of a stage."""
    schedule_rate: float = 0.1
    """Factor of the schedule step (after each third) and exponential (from start to end)."""
    warmup_updates: int = 0
    """Updates over which η rises linearly from nearly 0."""

    def validate(self) -> None:
        optimizer_name(self.optimizer)
        require(
            self.learning_rate > 0, f"--learning-rate {self.learning_rate}: must be > 0, e.g. 1e-3"
        )
        for name in ("momentum", "beta1", "beta2", "rho"):
            value = getattr(self, name)
            require(0 <= value < 1, f"--{name} {value}: must lie in [0, 1), e.g. 0.9")
        for name in ("epsilon", "l1", "l2", "grad_clip"):
            value = getattr(self, name)
            require(value >= 0, f"--{name.replace('_', '-')} {value}: must be ≥ 0")
        require(
            0 < self.schedule_rate <= 1,
            f"--schedule-rate {self.schedule_rate}: must lie in (0, 1], e.g. 0.1",
        )
        require(self.warmup_updates >= 0, f"--warmup-updates {self.warmup_updates}: must be ≥ 0")
        require(
            self.momentum > 0 or self.optimizer != "nesterov",
            "--momentum 0: nesterov needs some, e.g. 0.9",
        )
        require(
            not (self.decoupled_l2 and optimizer_name(self.optimizer) in PENALISED),
            f"--decoupled-l2: {self.optimizer} solves its penalty exactly; leave it out",
        )


Maker = Callable[[list[dict[str, Any]], OptimizerConfig], optim.Optimizer]


def _make(
    cls: Callable[..., optim.Optimizer],
    groups: list[dict[str, Any]],
    config: OptimizerConfig,
    **options: Any,
):
    if config.epsilon and cls is FTRL:
        options["beta"] = config.epsilon
    elif config.epsilon and cls is optim.Adafactor:
        # the second is no guard, but the least size of a weight
        options["eps"] = (config.epsilon, 1e-3)
    elif config.epsilon and cls not in (
        optim.SGD,
        optim.ASGD,
        optim.Rprop,
        ProximalGradientDescent,
    ):
        options["eps"] = config.epsilon
    return cls(groups, lr=config.learning_rate, **options)


def _adam(
    groups: list[dict[str, Any]], config: OptimizerConfig, cls=optim.Adam, **options: Any
) -> optim.Optimizer:
    return _make(cls, groups, config, betas=(config.beta1, config.beta2), **options)


def _squares(
    groups: list[dict[str, Any]], config: OptimizerConfig, centered: bool
) -> optim.Optimizer:
    return _make(optim.RMSprop, groups, config, alpha=config.rho, centered=centered, foreach=True)


def _momentum(
    groups: list[dict[str, Any]], config: OptimizerConfig, nesterov: bool
) -> optim.Optimizer:
    return _make(optim.SGD, groups, config, momentum=config.momentum, nesterov=nesterov, fused=True)


# One kernel for all parameters where PyTorch has one ("fused"), one call for each kind of operation
# elsewhere ("foreach"): its default on a CPU is a Python loop over parameters, which costs a small
# network as much as its gradients.
OPTIMIZERS: dict[str, Maker] = {
    "sgd": partial(_make, optim.SGD, fused=True),
    "momentum": partial(_momentum, nesterov=False),
    "nesterov": partial(_momentum, nesterov=True),
    "adagrad": partial(_make, optim.Adagrad, foreach=True),
    "adadelta": lambda groups, config: _make(
        optim.Adadelta, groups, config, rho=config.rho, foreach=True
    ),
    "rmsprop": partial(_squares, centered=False),
    "rmsprop-centered": partial(_squares, centered=True),
    "adam": partial(_adam, fused=True),
    "adamw": partial(_adam, fused=True),
    "amsgrad": partial(_adam, fused=True, amsgrad=True),
    "nadam": partial(_adam, cls=optim.NAdam, foreach=True),
    "radam": partial(_adam, cls=optim.RAdam, foreach=True),
    "adamax": partial(_adam, cls=optim.Adamax, foreach=True),
    "adafactor": partial(_make, optim.Adafactor, foreach=True),
    "asgd": partial(_make, optim.ASGD, foreach=True),
    "rprop": partial(_make, optim.Rprop, foreach=True),
    "adagrad-da": partial(_make, AdagradDA),
    "ftrl": partial(_make, FTRL),
    "proximal-gradient-descent": partial(_make, ProximalGradientDescent),
    "proximal-adagrad": partial(_make, ProximalAdagrad),
}
"""By name. PyTorch's Muon (matrices only), SparseAdam (sparse gradients) and LBFGS (a closure)
do not fit this step.
"""

READING = ("adafactor", "asgd")
"""Rules of PyTorch that read values from the device at every update, so that a GPU waits for the
host.
"""

PENALISED = ("adagrad-da", "ftrl", "proximal-gradient-descent", "proximal-adagrad")
"""Rules that take L1 and L2 as their own."""


def optimizer_name(name: str) -> str:
    """The name as `OPTIMIZERS` has it, whatever its case and hyphens. Raises ConfigError with
    the nearest names.
    """

    def squeezed(text: str) -> str:
        return text.lower().replace("-", "").replace("_", "")

    known = {squeezed(each): each for each in OPTIMIZERS}
    if squeezed(name) in known:
        return known[squeezed(name)]
    near = [
        known[each] for each in difflib.get_close_matches(squeezed(name), known, n=3, cutoff=0.5)
    ]
    hint = f"did you mean {', '.join(near)}?" if near else f"there are {', '.join(OPTIMIZERS)}"
    raise ConfigError(f"--optimizer {name}: no such optimizer; {hint}")


def penalised(parameter: Tensor) -> bool:
    """Whether L1 and L2 apply: to weights (two dimensions or more), not to biases or scales and
    shifts of norms.
    """
    return parameter.ndim >= 2


def make_optimizer(
    parameters: Iterable[torch.nn.Parameter], config: OptimizerConfig
) -> optim.Optimizer:
    """The bare optimizer. L1 and L2 are in it for the rules that solve for them (`PENALISED`),
    and nowhere else.
    """
    name, parameters = optimizer_name(config.optimizer), list(parameters)
    groups: list[dict[str, Any]] = [{"params": parameters}]
    if name in PENALISED and (config.l1 or config.l2):
        weights = [parameter for parameter in parameters if penalised(parameter)]
        others = [parameter for parameter in parameters if not penalised(parameter)]
        groups = [{"params": weights, "l1": config.l1, "l2": config.l2}] if weights else []
        groups += [{"params": others}] if others else []
    return OPTIMIZERS[name](groups, config)


class Updater:
    """Takes gradient steps on some parameters: accumulation, averaging over workers, clipping,
    penalties, schedule.

    `step(loss)` runs backward; every `accumulate`-th call also updates, with the mean of the
    losses' gradients. `total_updates`: of the whole stage, which the schedule needs to know
    (after them it stays where it ends). `amp="float16"` scales the loss so that small gradients
    survive, and skips updates that overflow (GPUs only). Raises ConfigError for an unknown
    optimizer or a schedule without `total_updates`.
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
            f"--schedule {config.schedule}: needs to know the number of updates; there are none in "
            "this stage",
        )
        self._name = optimizer_name(config.optimizer)
        self._weights = [parameter for parameter in self.parameters if penalised(parameter)]
        self._penalises = bool(config.l1 or config.l2) and self._name not in PENALISED
        self._constant = config.schedule == "constant" and not config.warmup_updates
        self._optimizer: optim.Optimizer | None = None
        self._scaler: torch.amp.GradScaler | None = None
        self._batches = 0
        self.updates = 0
        """Updates so far."""

    @property
    def optimizer(self) -> optim.Optimizer:
        """Made when it is first used: networks move to their device after their updaters are
        made, its state cannot.
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
        """η of the next update."""
        config = self.config
        return config.learning_rate * factor(
            config.schedule,
            self.updates,
            self._total,
            rate=config.schedule_rate,
            warmup=config.warmup_updates,
        )

    def step(self, loss: Tensor) -> None:
        """Backward of `loss` (a scalar), and an update when it is due. Gradients stay in `.grad`
        until the next step.
        """
        optimizer = self._optimizer or self.optimizer
        if self._batches == 0:
            for parameter in self.parameters:
                parameter.grad = None
        if self._accumulate > 1:
            loss = loss / self._accumulate
        if self._scaler is not None:
            loss = self._scaler.scale(loss)
        # `inputs`: a generator's step must not leave gradients in the discriminator, nor pay for
        # them.
        loss.backward(inputs=self.parameters)
        self._batches += 1
        if self._batches == self._accumulate:
            self._batches = 0
            self._update(optimizer)

    def _update(self, optimizer: optim.Optimizer) -> None:
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
        config = self.config
        weights = [weight for weight in self._weights if weight.grad is not None]
        if not weights:
            return
        gradients = [weight.grad for weight in weights]
        if config.l1:
            torch._foreach_add_(gradients, torch._foreach_sign(weights), alpha=config.l1)  # type: ignore[arg-type]
        if config.l2 and (config.decoupled_l2 or self._name == "adamw"):
            # Before the step, as in AdamW.  [Loshchilov 2019, https://arxiv.org/abs/1711.05101]
            torch._foreach_mul_(weights, 1 - rate * config.l2)  # type: ignore[arg-type]
        elif config.l2:
            torch._foreach_add_(gradients, weights, alpha=config.l2)  # type: ignore[arg-type]

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next step depends on, beside the weights: inside an accumulation
        its gradients, too.
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
        """Raises ValueError when the state is of other parameters or another optimizer.

        The state goes on; η, β and the like are this configuration's, so that a run can be
        continued with others.
        """
        name = state.get("name", self._name)  # states of before had none
        if name != self._name:
            raise ValueError(
                f"--optimizer {self._name}: it was trained with {name}, whose state {self._name} "
                "cannot go on with; "
                f"resume with {name}"
            )
        options = [{**group} for group in self.optimizer.param_groups]
        self.optimizer.load_state_dict(state["optimizer"])
        for group, own in zip(self.optimizer.param_groups, options):
            group.update({name: value for name, value in own.items() if name != "params"})
        self.updates, self._batches = state["updates"], state["batches"]
        for parameter, gradient in zip(self.parameters, state["gradients"]):
            parameter.grad = None if gradient is None else gradient.to(parameter.device, copy=True)
        if self._scaler is not None and state["scaler"]:
            self._scaler.load_state_dict(state["scaler"])
