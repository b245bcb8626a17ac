"""Minimises held-out functions with a learned optimizer and with known rules, and compares them.

Shapes: P functions, N coordinates, S steps.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn, optim

from genray.gen.learned_optimizer.network import LearnedRule
from genray.gen.learned_optimizer.problems import Functions, Problem
from genray.gen.learned_optimizer.use import LearnedOptimizer
from genray.gen.training.optimizers import OptimizerConfig, make_optimizer
from genray.gen.training.randomness import fixed_randomness

MOST = 1e6
"""Larger values, and those that are not finite, count as this one, so that means are finite."""
Maker = Callable[[list[nn.Parameter]], optim.Optimizer]


@dataclass(frozen=True)
class Setting:
    """Functions on which optimizers are compared, and the number of steps."""

    name: str
    tune: Problem
    """Functions on which the known rules are tuned."""
    test: Problem
    """Functions on which all are compared."""
    steps: int


@dataclass(frozen=True)
class Comparison:
    """The values of held-out functions along the paths of several optimizers."""

    setting: Setting
    curves: Mapping[str, np.ndarray]
    """float64 [S + 1, P] by the optimizer's name; the first row is before the first step."""
    tuned: Mapping[str, str] = field(default_factory=dict)
    """The chosen settings of the tuned rules, by their name."""

    def final(self, name: str) -> float:
        """Return log10 of the mean value after the last step."""
        return float(np.log10(self.curves[name][-1].mean()))

    def best_rule(self) -> str:
        """Return the name of the tuned rule with the lowest mean value after the last step."""
        return min(self.tuned, key=self.final)


def minimise(
    functions: Functions, maker: Maker, steps: int, seed: int, *, all_values: bool = True
) -> np.ndarray:
    """Return the values of the functions before the first and after each step, float64 [S + 1, P].

    Args:
        functions: the functions, all of which are minimised at once by one optimizer; all the
            optimizers here change each coordinate alone.
        maker: makes the optimizer of the coordinates.
        steps: S.
        seed: of the images that networks draw; equal seeds draw equal images.
        all_values: False: compute only the last values, [1, P].
    """
    theta_PN = nn.Parameter(functions.start_PN.clone())
    optimizer = maker([theta_PN])
    values = [functions.value(theta_PN.detach())] if all_values else []
    with torch.no_grad(), fixed_randomness([seed, 5]):
        for step in range(steps):
            theta_PN.grad = functions.gradient(theta_PN)[1]
            optimizer.step()
            if all_values or step == steps - 1:
                values.append(functions.value(theta_PN))
    found = torch.stack(values).double().nan_to_num(MOST, MOST, MOST).clamp(max=MOST)
    return found.cpu().numpy()


def learned(rule: LearnedRule) -> Maker:
    """Return the maker of the optimizer that applies `rule`."""
    return lambda parameters: LearnedOptimizer(parameters, rule)


def rule_settings(trials: int) -> dict[str, list[OptimizerConfig]]:
    """Return `trials` settings of each of the known rules that are tuned.

    Learning rates are spaced evenly in the logarithm. Half of the trials of a rule with a second
    setting have another value of it.
    """

    def grid(low: float, high: float, count: int) -> list[float]:
        return np.geomspace(low, high, max(1, count)).tolist()

    def two(name: str, low: float, high: float, option: str, values: Sequence[float]):
        halves = (trials - trials // 2, trials // 2)
        return [
            OptimizerConfig(optimizer=name, learning_rate=rate, **{option: value})  # type: ignore[arg-type]
            for value, count in zip(values, halves)
            for rate in (grid(low, high, count) if count else ())
        ]

    return {
        "sgd": [
            OptimizerConfig(optimizer="sgd", learning_rate=rate)
            for rate in grid(1e-3, 10.0, trials)
        ],
        "momentum": two("momentum", 1e-3, 3.0, "momentum", (0.9, 0.97)),
        "adagrad": [
            OptimizerConfig(optimizer="adagrad", learning_rate=rate)
            for rate in grid(1e-2, 3.0, trials)
        ],
        "rmsprop": two("rmsprop", 1e-3, 0.3, "rho", (0.9, 0.99)),
        "adam": two("adam", 3e-3, 1.0, "beta1", (0.9, 0.7)),
    }


def compare(
    rules: Mapping[str, Maker],
    setting: Setting,
    *,
    trials: int,
    tune_functions: int,
    test_functions: int,
    device: torch.device | str = "cpu",
) -> Comparison:
    """Compare optimizers with the known rules, which are tuned on other functions.

    Each known rule has the same number of trials. The best trial is the one with the lowest mean
    value after the last step. Random numbers do not depend on a run.

    Args:
        rules: makers of the optimizers that are not tuned, by name.
        setting: the functions and the number of steps.
        trials: settings tried for each known rule; 0: no known rules.
        tune_functions, test_functions: numbers of functions.
        device: where the functions are computed.
    """

    def drawn(problem: Problem, count: int, seed: int) -> Functions:
        random = torch.Generator().manual_seed(seed)
        return problem.functions(problem.draw(count, random).to(device))

    test = drawn(setting.test, test_functions, 101)
    curves = {name: minimise(test, maker, setting.steps, 1) for name, maker in rules.items()}
    tuned: dict[str, str] = {}
    if trials:
        tune = drawn(setting.tune, tune_functions, 102)
        for name, configs in rule_settings(trials).items():
            best = min(
                configs,
                key=lambda config: float(
                    minimise(tune, _maker(config), setting.steps, 2, all_values=False).mean()
                ),
            )
            curves[name] = minimise(test, _maker(best), setting.steps, 1)
            tuned[name] = _words(best)
    return Comparison(setting, curves, tuned)


def _maker(config: OptimizerConfig) -> Maker:
    return lambda parameters: make_optimizer(parameters, config)


def _words(config: OptimizerConfig) -> str:
    """Return the settings of a tuned rule, such as "η 0.01, β₁ 0.9"."""
    more = {
        "momentum": f", μ {config.momentum:g}",
        "rmsprop": f", ρ {config.rho:g}",
        "adam": f", β₁ {config.beta1:g}",
    }
    return f"η {config.learning_rate:.2g}{more.get(config.optimizer, '')}"
