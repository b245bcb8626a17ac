"""Trains a learned optimizer by gradient descent on the values along its own paths.

Shapes: P functions, N coordinates of a function, T steps of a window.
"""

from dataclasses import asdict, replace
from typing import cast

import numpy as np
import torch
from torch import Tensor

from genray.gen.data.load import load_data
from genray.gen.data.types import Data, Split, need_images, need_labels
from genray.gen.learned_optimizer.config import FunctionsConfig, LearnedOptimizerConfig
from genray.gen.learned_optimizer.evaluation import (
    Comparison,
    Setting,
    compare,
    learned,
    minimise,
)
from genray.gen.learned_optimizer.network import LearnedRule
from genray.gen.learned_optimizer.problems import (
    Functions,
    NetworkProblem,
    Problem,
    QuadraticProblem,
)
from genray.gen.learned_optimizer.use import KIND
from genray.gen.training.moving_average import MovingAverage
from genray.gen.training.task import Batch, Export, Task
from genray.gen.training.updater import Updater
from genray.gen.training.world import ALONE, World

TRAIN, VALIDATION, TEST = 0, 1, 2
"""Seeds of the functions of the three splits."""


def load_functions(config: LearnedOptimizerConfig, low: float = 0.0, high: float = 1.0) -> Data:
    """Return quadratics in three splits, or the images on which small networks are trained.

    No split depends on a run's seed. Raises ConfigError as `genray.gen.data.load.load_data` does.
    """
    functions = config.data
    if not functions.is_quadratic:
        return load_data(functions, low=low, high=high)
    functions.validate()
    problem = quadratic_problem(functions)
    held_out = functions.held_out if functions.validation else 0
    return Data(
        functions.data,
        _split(problem, functions.functions, TRAIN),
        _split(problem, held_out, VALIDATION),
        _split(problem, functions.held_out, TEST),
        licence="none: random numbers",
        about={"data": functions.data, "dimensions": functions.dimensions},
    )


def quadratic_problem(config: FunctionsConfig) -> QuadraticProblem:
    """Return the quadratics that `config` names."""
    return QuadraticProblem(config.dimensions, config.data == "quadratics-normal")


def network_problem(config: FunctionsConfig, split: Split, classes: int) -> NetworkProblem:
    """Return the networks that `config` describes, on the images of `split`."""
    assert split.label is not None
    return NetworkProblem(
        split.all().flatten(1), split.label, classes, config.hidden_units, config.activation,
        config.minibatch,
    )  # fmt: skip


def _split(problem: Problem, count: int, seed: int) -> Split:
    random = torch.Generator().manual_seed(seed)
    return Split(problem.draw(count, random))


def window_loss(
    rule: LearnedRule, functions: Functions, theta_PN: Tensor, state: Tensor, steps: int,
    factor_PN: Tensor | float = 1.0, world: World = ALONE,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Make `steps` steps of a rule on functions, for one update of the rule's weights.

    Returns (loss, coordinates [P, N], state, mean values after each step [T]). The gradient of
    `loss` with respect to the rule's weights is that of Σ_t ln(mean_P f(θ_t)) / T: the logarithm
    makes the small values at the end of a path count as much as the large ones at its beginning.
    As in the paper, the gradients that the rule reads are constants: ∂∇f/∂θ is not computed.

    `factor_PN`: the rule minimises f(factor · θ′) in θ′ = θ / factor. [Lv 2017]
    """
    updates, gradients, values = [], [], []
    _, gradient_PN = functions.gradient(theta_PN)
    for _ in range(steps):
        update, state = rule((gradient_PN * factor_PN).flatten(), state)
        theta_PN = theta_PN + factor_PN * update.detach().view_as(theta_PN)
        value_P, gradient_PN = functions.gradient(theta_PN)
        updates.append(update)
        gradients.append((gradient_PN * factor_PN).flatten())
        values.append(value_P.mean())
    means_T = torch.stack(values)
    world.average([means_T])
    # θ_t is the start plus the updates before t, so an update's derivative is the sum of the
    # gradients at all later points of the window, which are known already.
    weights_T = 1 / (steps * len(theta_PN) * means_T)
    later_TM = (torch.stack(gradients) * weights_T[:, None]).flip(0).cumsum(0).flip(0)
    return (torch.stack(updates) * later_TM).sum(), theta_PN, state.detach(), means_T


class LearnedOptimizerTask(Task):
    """Trains a learned optimizer. One step is a whole path of `horizon` steps on a batch of
    functions, with one update of the LSTM for each window of the path.

    Args:
        config: the learned optimizer's configuration.
        world: this data-parallel worker.
        device: the device on which the LSTM is trained.
    """

    shown = ("loss",)
    value_range = (0.0, 1.0)
    load = staticmethod(load_functions)
    needs_same_rows = False

    def __init__(
        self,
        config: LearnedOptimizerConfig,
        world: World = ALONE,
        device: torch.device | str = "cpu",
    ):
        config.validate()
        super().__init__(world, device, config.fit.amp)
        self.config = config
        self._comparison: Comparison | None = None

    @property
    def rule(self) -> LearnedRule:
        """The rule with the averaged weights, or with the trained ones without an average."""
        return cast(LearnedRule, self.networks["average" if self.config.ema else "rule"])

    def begin_stage(self, stage: int, data: Data, total_updates: int) -> Data:
        """Create the rule; returns the training and validation functions, one a row.

        Raises ConfigError for data without images and classes.
        """
        config = self.config
        windows = config.horizon // config.window
        rule = LearnedRule(config.model).to(self.device)
        self.networks["rule"] = rule
        if config.ema:
            self._average = MovingAverage(rule, config.ema)
            self.networks["average"] = self._average.network
        self.updaters["rule"] = Updater(
            rule.parameters(), config.optimizer, total_updates=total_updates * windows,
            accumulate=config.fit.accumulate, world=self.world,
        )  # fmt: skip
        if config.data.is_quadratic:
            self._problem: Problem = quadratic_problem(config.data)
            self._held_out: Problem = self._problem
            return data
        # Of networks, a row has the initial weights. Each split has images of its own.
        need_images(data, "a learned optimizer")
        need_labels(data, "a learned optimizer")
        self._problem = self.problem_of(data, data.train)
        held_out = 0
        if len(data.validation):
            self._held_out = self.problem_of(data, data.validation)
            held_out = config.data.held_out
        return replace(
            data,
            train=_split(self._problem, config.data.functions, TRAIN),
            validation=_split(self._problem, held_out, VALIDATION),
        )

    def problem_of(self, data: Data, split: Split) -> Problem:
        """Return the problem on the images of `split`, or the quadratics."""
        if self.config.data.is_quadratic:
            return quadratic_problem(self.config.data)
        return network_problem(self.config.data, split, classes_of(data))

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """Minimise a batch of functions; returns `loss`, log10 of their mean value at the end."""
        config = self.config
        functions = self._problem.functions(batch.x, self.world)
        theta_PN = functions.start_PN
        rule = cast(LearnedRule, self.networks["rule"])
        state = rule.begin(theta_PN.numel())
        factor_PN: Tensor | float = 1.0
        if config.random_scaling:
            u_PN = self.world.uniform(*theta_PN.shape, device=theta_PN.device)
            factor_PN = ((2 * u_PN - 1) * config.random_scaling).exp()
        # The coordinates and the state go on from window to window; gradients do not.
        updater = self.updaters["rule"]
        for _ in range(config.horizon // config.window):
            loss, theta_PN, state, means_T = window_loss(
                rule, functions, theta_PN, state, config.window, factor_PN, self.world
            )
            updater.step(loss)
            if config.ema:
                self._average.update(updater.updates)
        return {"loss": means_T[-1].log10()}

    def evaluate(self, split: Split) -> dict[str, float]:
        """Minimise the functions of `split`; returns log10 of their mean value: `loss` after the
        last step, and `halfway`.
        """
        rows_PD, _ = split.take(torch.arange(len(split), device=self.device))
        values = minimise(
            self._held_out.functions(rows_PD), learned(self.rule), self.config.horizon, 0
        )
        return {
            "loss": float(np.log10(values[-1].mean())),
            "halfway": float(np.log10(values[self.config.horizon // 2].mean())),
        }

    def test(self, data: Data) -> dict[str, float]:
        """Compare the learned optimizer with known rules that are tuned on validation functions.

        Returns `loss`, log10 of the mean value of test functions after the last step, and the same
        figure of each known rule by its name.
        """
        config = self.config
        tune = data.validation if len(data.validation) else data.train
        setting = Setting(
            f"{data.name}, {config.horizon} steps",
            self.problem_of(data, tune), self.problem_of(data, data.test), config.horizon,
        )  # fmt: skip
        self._comparison = compare(
            {"learned": learned(self.rule)}, setting, trials=config.rule_trials,
            tune_functions=max(1, config.data.held_out // 2),
            test_functions=config.data.held_out, device=self.device,
        )  # fmt: skip
        figures = {name: self._comparison.final(name) for name in self._comparison.curves}
        if self._comparison.tuned:
            best = self._comparison.best_rule()
            self.remark = (
                "`loss` and the figures of the known rules are log10 of the mean value of "
                f"{config.data.held_out} test functions after {config.horizon} steps. Each known "
                f"rule has the best of {config.rule_trials} settings; the best rule is {best} "
                f"({self._comparison.tuned[best]})."
            )
        return {"loss": figures.pop("learned"), **figures}

    def pictures(self, data: Data) -> dict[str, np.ndarray]:
        """Return the curves of `test`, if it was called: mean and 10 to 90% of the functions."""
        # Matplotlib takes half a second to import.
        if self._comparison is None:
            return {}
        from genray.gen.learned_optimizer.picture import draw_comparisons

        return {"comparison": draw_comparisons([self._comparison])}

    def export(self) -> Export:
        config = self.config
        rule = self.rule
        what = (
            f"{config.data.dimensions}-dimensional quadratics ({config.data.data})"
            if config.data.is_quadratic
            else f"networks of {config.data.hidden_units} {config.data.activation} units on "
            f"{config.data.data}"
        )
        card = (
            f"# Learned optimizer\n\nAn LSTM ({config.model.lstm_layers} layers of "
            f"{config.model.lstm_units} units) that reads a coordinate's gradients and returns its "
            f"updates. It was trained on {what}, for {config.horizon} steps. Use it in any "
            "training of genray: `--optimizer learned:RUN`. On other networks and for more steps "
            "it may diverge.\n"
        )
        values = {"model": asdict(config.model), "horizon": config.horizon}
        return Export(KIND, values, dict(rule.state_dict()), card)


def classes_of(data: Data) -> int:
    """Return the number of classes of labelled data."""
    assert data.train.label is not None
    return max(len(data.classes), int(data.train.label.max()) + 1)
