"""Creates optimizers by name; `updater.py` applies their updates."""

import difflib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, optim

from genray.bounds import bounded, check_bounds
from genray.errors import ConfigError, require
from genray.gen.training.extra_optimizers import (
    FTRL,
    AdagradDA,
    ProximalAdagrad,
    ProximalGradientDescent,
)
from genray.gen.training.schedules import Schedule
from genray.paths import OptimizerName


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """The optimizer, its learning rate, penalties, gradient clipping and schedule."""

    optimizer: OptimizerName = "adam"
    """sgd, momentum, nesterov, adagrad, adadelta, rmsprop, rmsprop-centered, adam, adamw,
    amsgrad, nadam, radam, adamax, adafactor, asgd, rprop; adagrad-da, ftrl,
    proximal-gradient-descent, proximal-adagrad; or learned:RUN, a run of `genray train optimizer`
    """
    learning_rate: float = bounded(1e-3, above=0, example="1e-3")
    """The learning rate η. Typical: 1e-3 for adam's family, 1e-2 to 1e-1 for sgd and adagrad, 1
    for adadelta.
    """
    momentum: float = bounded(0.9, min=0, below=1, example=0.9)
    """Momentum of the optimizers momentum and nesterov."""
    learned_scale: float = bounded(1.0, above=0, example=1)
    """Factor of the updates of learned:RUN, which has no learning rate. A schedule changes it."""
    beta1: float = bounded(0.9, min=0, below=1, example=0.9)
    """For adam's family: decay of the moving average of gradients."""
    beta2: float = bounded(0.999, min=0, below=1, example=0.9)
    """For adam's family: decay of the moving average of squared gradients."""
    rho: float = bounded(0.9, min=0, below=1, example=0.9)
    """For rmsprop and adadelta: decay of the moving average of squared gradients."""
    epsilon: float = bounded(0.0, min=0)
    """Small number added to denominators (for ftrl: β); 0: the optimizer's default. sgd, momentum,
    nesterov, asgd, rprop and proximal-gradient-descent ignore this option.
    """
    l1: float = bounded(0.0, min=0)
    """λ of the penalty λ·Σ|w| on weights (not on biases or norms). adagrad-da, ftrl and the two
    proximal optimizers can make weights exactly 0.
    """
    l2: float = bounded(0.0, min=0)
    """λ of the penalty λ/2·Σw² on weights (not on biases or norms); adamw always decouples it."""
    decoupled_l2: bool = False
    """Multiply weights by 1 − η·λ (λ: --l2) at each update, as adamw does, instead of adding λ·w to
    the gradient.
    """
    grad_clip: float = bounded(0.0, min=0)
    """Largest norm of all gradients together, without penalties; 0: no clipping."""
    schedule: Schedule = "constant"
    """How the learning rate changes over the updates of a stage."""
    schedule_rate: float = bounded(0.1, above=0, max=1, example=0.1)
    """Factor of the schedules step (after one third and after two thirds of the updates) and
    exponential (from start to end).
    """
    warmup_updates: int = bounded(0, min=0)
    """Number of first updates over which the learning rate rises linearly from nearly 0."""

    def validate(self) -> None:
        name = optimizer_name(self.optimizer)
        if is_learned(name):
            from genray.gen.learned_optimizer.use import check_learned

            check_learned(self.optimizer)
        check_bounds(self)
        require(
            self.momentum > 0 or self.optimizer != "nesterov",
            "--momentum 0: nesterov needs a momentum above 0, e.g. 0.9",
        )
        require(
            not (self.decoupled_l2 and name in PENALISED),
            f"--decoupled-l2: {self.optimizer} solves for its penalty exactly; leave out "
            "--decoupled-l2",
        )
        require(
            not (self.decoupled_l2 and is_learned(name)),
            "--decoupled-l2: a learned optimizer has no learning rate η to shrink weights by; "
            "leave it out",
        )


# A function that creates an optimizer from groups of parameters and the options.
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
        # Adafactor's second eps is the smallest scale of a weight, not a term of a denominator.
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


# "fused": one kernel updates all parameters, where PyTorch has such a kernel. "foreach": one call
# for each kind of operation. PyTorch's default on a CPU is a Python loop over parameters. For a
# small network, this loop takes as much time as the gradients.
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
"""Functions that create an optimizer, by the optimizer's name.

Three optimizers of PyTorch do not work with `Updater.step`: Muon (matrices only), SparseAdam
(sparse gradients) and LBFGS (needs a closure).
"""

READING = ("adafactor", "asgd")
"""Optimizers of PyTorch that read values from the device at every update, so that the host waits
for the GPU.
"""

PENALISED = ("adagrad-da", "ftrl", "proximal-gradient-descent", "proximal-adagrad")
"""Optimizers that solve for the L1 and L2 penalties themselves."""


def optimizer_name(name: str) -> str:
    """Return the key of `OPTIMIZERS` for `name`, ignoring case, hyphens and underscores.

    A learned optimizer, learned:RUN, keeps its name. Raises ConfigError for an unknown name; the
    message suggests similar names, or lists all.
    """
    if is_learned(name):
        return name

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


def is_learned(name: str) -> bool:
    """Return whether `name` is "learned:RUN", an optimizer that `genray train optimizer` made."""
    return name.startswith("learned:")


def penalised(parameter: Tensor) -> bool:
    """Return whether L1 and L2 apply to `parameter`.

    They apply only to weights, which have two or more dimensions. Biases, and the scales and shifts
    of norms, have one dimension.
    """
    return parameter.ndim >= 2


def make_optimizer(
    parameters: Iterable[torch.nn.Parameter], config: OptimizerConfig
) -> optim.Optimizer:
    """Create the optimizer that `config` names, without clipping and schedule.

    Only the optimizers in `PENALISED` receive L1 and L2; for all others, `Updater` applies these
    penalties. Raises ConfigError for an unknown name.
    """
    name, parameters = optimizer_name(config.optimizer), list(parameters)
    groups: list[dict[str, Any]] = [{"params": parameters}]
    if name in PENALISED and (config.l1 or config.l2):
        weights = [parameter for parameter in parameters if penalised(parameter)]
        others = [parameter for parameter in parameters if not penalised(parameter)]
        groups = [{"params": weights, "l1": config.l1, "l2": config.l2}] if weights else []
        groups += [{"params": others}] if others else []
    if is_learned(name):
        # This module imports the networks of learned optimizers only when one is used.
        from genray.gen.learned_optimizer.use import LearnedOptimizer, load_learned

        return LearnedOptimizer(
            groups, load_learned(name), scale=config.learned_scale, lr=config.learning_rate
        )
    return OPTIMIZERS[name](groups, config)
