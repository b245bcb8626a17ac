"""Learned optimizers against tuned known rules, on held-out functions. `python -m
tests.bench.bench_learned_optimizer [--seeds 5] [--network-seeds 2] [--only quadratics,digits]
[--picture FILE] [--quick]`

Trains the presets `optimizer_quadratics` and `optimizer_digits` with several seeds on one core, and
minimises held-out functions for as many steps as in training, for twice as many, and of other
kinds: normal and larger quadratics, networks of 40 units and of ReLUs. Each known rule is tuned for
each of these settings on other functions with 16 trials; the learned optimizers are trained once,
for the first setting, and never tuned. The figures are log10 of the mean value of the functions
after the last step. `--picture` draws the curves.
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

import torch

from genray.gen.data.types import Data
from genray.gen.families import open_fit
from genray.gen.learned_optimizer.config import LearnedOptimizerConfig
from genray.gen.learned_optimizer.evaluation import Comparison, Setting, compare, learned
from genray.gen.learned_optimizer.network import LearnedRule
from genray.gen.learned_optimizer.picture import draw_comparisons
from genray.gen.learned_optimizer.presets import optimizer_digits, optimizer_quadratics
from genray.gen.learned_optimizer.problems import QuadraticProblem
from genray.gen.learned_optimizer.task import classes_of, network_problem
from genray.media import write_png
from tests.bench.common import describe_machine, last_json_line, print_table

TRIALS = 16
STEPS = 100


def trained(
    config: LearnedOptimizerConfig, seed: int, quick: bool
) -> tuple[LearnedRule, Data, float]:
    """Train a learned optimizer; returns it, its data, and the CPU seconds of the training."""
    fit_config = replace(config.fit, seed=seed, device="cpu")
    if quick:
        fit_config = replace(fit_config, steps=4, validate_every=2)
    start = time.process_time()
    fit = open_fit("optimizer", replace(config, fit=fit_config))
    for _ in fit:
        pass
    task: Any = fit.task
    return task.rule, fit.whole_data, time.process_time() - start


def quadratic_settings() -> list[Setting]:
    uniform = QuadraticProblem()
    normal, large = QuadraticProblem(normal=True), QuadraticProblem(20)
    return [
        Setting("10-D, uniform, 100 steps", uniform, uniform, STEPS),
        Setting("200 steps", uniform, uniform, 2 * STEPS),
        Setting("20-D", large, large, STEPS),
        Setting("normal W and y", normal, normal, STEPS),
    ]


def network_settings(config: LearnedOptimizerConfig, data: Data) -> list[Setting]:
    def setting(name: str, steps: int, **change: Any) -> Setting:
        functions, classes = replace(config.data, **change), classes_of(data)
        tune = network_problem(functions, data.validation, classes)
        return Setting(name, tune, network_problem(functions, data.test, classes), steps)

    return [
        setting("20 sigmoid units, 100 steps", STEPS),
        setting("200 steps", 2 * STEPS),
        setting("40 units", STEPS, hidden_units=40),
        setting("20 ReLUs", STEPS, activation="relu"),
    ]


def compared(
    rules: Sequence[LearnedRule], settings: Sequence[Setting], tune: int, test: int, quick: bool
) -> list[Comparison]:
    """Compare the rules of all seeds with the known rules in each setting."""
    makers = {f"learned, seed {seed}": learned(rule) for seed, rule in enumerate(rules)}
    return [
        compare(
            makers, setting, trials=2 if quick else TRIALS, tune_functions=tune, test_functions=test
        )
        for setting in settings
    ]


def report(
    title: str, comparisons: Sequence[Comparison], seconds: Sequence[float]
) -> dict[str, Any]:
    """Print a table; returns its figures."""
    known = list(comparisons[0].tuned)
    seeds = [name for name in comparisons[0].curves if name not in known]
    rows = []
    for name in seeds + known:
        cells = [f"{each.final(name):.2f}" for each in comparisons]
        rows.append([name, *cells, comparisons[0].tuned.get(name, "")])
    means = [mean(each.final(name) for name in seeds) for each in comparisons]
    rows.insert(len(seeds), ["**learned, mean**", *(f"**{value:.2f}**" for value in means), ""])
    header = ["log10 of the mean final value", *(each.setting.name for each in comparisons)]
    print_table(title, [*header, "tuned in the first setting"], rows)
    print(f"training: {min(seconds):.0f} to {max(seconds):.0f} CPU seconds a seed")
    return {
        "settings": [each.setting.name for each in comparisons],
        "learned": [[round(each.final(name), 3) for name in seeds] for each in comparisons],
        **{name: [round(each.final(name), 3) for each in comparisons] for name in known},
        "train_cpu_s": [round(each, 1) for each in seconds],
    }


def shown(comparison: Comparison) -> Comparison:
    """Return the comparison with the first seed alone, for the picture."""
    curves = {
        ("learned" if name == "learned, seed 0" else name): values
        for name, values in comparison.curves.items()
        if name in comparison.tuned or name == "learned, seed 0"
    }
    return replace(comparison, curves=curves)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--network-seeds", type=int, default=2)
    parser.add_argument("--only", default="quadratics,digits")
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    figures: dict[str, Any] = {}
    drawn: list[Comparison] = []
    for name, config, seeds, tune, test in (
        ("quadratics", optimizer_quadratics(), options.seeds, 64, 128),
        ("digits", optimizer_digits(), options.network_seeds, 2, 4),
    ):
        if name not in options.only.split(","):
            continue
        runs = [trained(config, seed, options.quick) for seed in range(seeds)]
        rules, seconds = [each[0] for each in runs], [each[2] for each in runs]
        settings = (
            quadratic_settings() if name == "quadratics" else network_settings(config, runs[0][1])
        )
        comparisons = compared(rules, settings, tune, test, options.quick)
        figures[name] = report(name, comparisons, seconds)
        drawn += [shown(each) for each in comparisons]
    if options.picture:
        write_png(
            options.picture,
            draw_comparisons(
                drawn,
                "A learned optimizer against known rules, on held-out functions",
                "mean of the functions, and 10 to 90% of them for the learned optimizer and the "
                "best rule; rules tuned in each setting with 16 trials",
            ),
        )
    print(describe_machine())
    last_json_line(figures)


if __name__ == "__main__":
    main()
