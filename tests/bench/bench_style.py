"""Feed-forward style models beside optimisation, on held-out pictures. `python -m
tests.bench.bench_style`

The presets are trained as `genray train style` does, with EfficientNet-Lite0 (no download).
Optimisation minimises the very loss that the network was trained by (Gram matrices as they are,
contents in their own colours) with the same features, crops and otherwise its own defaults.
Times are CPU seconds of one thread.

`--preset style_best`, `--style painting.png`, `--data folder:photographs` and `--crops 12` choose
the network and the held-out pictures; `--any` measures the preset for any style instead (`--micro`:
MicroAST), with `--styles folder:paintings`. `--run RUN` evaluates a finished run of `genray train
style`.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genray.config import load_yaml
from genray.gen.data.load import load_data
from genray.gen.data.sources import load_folder
from genray.gen.data.types import Split
from genray.gen.images.style.any_style_task import AnyStyleTask
from genray.gen.images.style.base import EVALUATED_ROWS, StyleTrainConfig
from genray.gen.images.style.config import StyleConfig
from genray.gen.images.style.losses import content_loss
from genray.gen.images.style.one_style_task import FastStyleTask, style_task
from genray.gen.images.style.optimise import stylize
from genray.gen.images.style.presets import style_any, style_best, style_fast, style_micro
from genray.gen.training.fit import Fit
from genray.runs.rundir import RunDir
from tests.bench.common import describe_machine, last_json_line, print_table

PRESETS = {"style_fast": style_fast, "style_best": style_best}
CROPS = 6
"""Held-out pictures that are optimised: seconds each."""


def trained(config: StyleTrainConfig, steps: int) -> Fit:
    fit = replace(config.fit, steps=steps or config.fit.steps, validate_every=10**6, device="cpu")
    config = replace(config, fit=fit)
    loop = Fit(style_task(config), load_data(config.data), config.fit)
    for _ in loop:
        pass
    loop.task.networks.eval()
    return loop


def cpu_s(*functions: Callable[[], Any], repeats: int = 9) -> list[float]:
    """The median of several runs of each, after one to warm up; in turns, so that a busy machine
    slows all alike.
    """
    spent: list[list[float]] = [[] for _ in functions]
    for turn in range(repeats + 1):
        for function, times in zip(functions, spent):
            start = time.process_time()
            function()
            if turn:
                times.append(time.process_time() - start)
    return [median(times) for times in spent]


def opened(run: Path) -> Fit:
    """A finished run's training, at its newest checkpoint."""
    config: Any = load_yaml(StyleTrainConfig, run / "config.yaml")
    loop = Fit(style_task(config), load_data(config.data), config.fit)
    loop.load(RunDir.open(run).latest_checkpoint())
    loop.task.networks.eval()
    return loop


def fast(
    steps: int,
    opt_steps: int,
    run: Path | None = None,
    *,
    config: StyleTrainConfig | None = None,
    crops: int = CROPS,
) -> dict[str, float]:
    """Return the figures of a network for one style: of `run`, or trained here by `config`
    (default: style_fast with EfficientNet-Lite0).
    """
    start = time.process_time()
    config = config or replace(style_fast(), features="lite0")
    fit = trained(config, steps) if run is None else opened(run)
    seconds = time.process_time() - start
    task = fit.task
    assert isinstance(task, FastStyleTask)
    contents = list(fit.whole_data.test.first(crops).all().split(1))
    side = contents[0].shape[-1]
    same = StyleConfig(
        size=side,
        steps=opt_steps,
        content_weight=task.content_weight,
        tv=task.config.tv,
        centred=False,
        recolour=False,
    )
    start = time.process_time()
    optimised = [stylize(content, [task.style], same, task.features) for content in contents]
    slow = (time.process_time() - start) / len(contents)

    def losses(results: list[Tensor]) -> dict[str, float]:
        with torch.no_grad():
            each = [task.losses(x, y) for x, y in zip(contents, results)]
        return {name: sum(float(found[name]) for found in each) / len(each) for name in each[0]}

    large = torch.rand(1, 3, 256, 256)
    with torch.no_grad():
        quick, bare, whole = cpu_s(
            lambda: task.model.stylize(contents[0]),
            lambda: task.model(large),
            lambda: task.model.stylize(large),
        )
    found = {
        "unstyled": losses(contents),
        "one pass": losses([task.model.stylize(x) for x in contents]),
        "optimised": losses(optimised),
    }
    spent = {"one pass": f"{quick:.4f}", "optimised": f"{slow:.2f}"}
    print_table(
        f"One style ({task.style_name}), {len(contents)} held-out crops of {side} pixels; loss = "
        f"style + {same.content_weight:g} content + {same.tv:g} tv",
        ["", "loss", "style", "content", "tv", "CPU s a picture"],
        [
            (
                name,
                *(f"{parts[part]:.4f}" for part in ("loss", "style", "content", "tv")),
                spent.get(name, ""),
            )
            for name, parts in found.items()
        ],
    )
    one, best, none = (found[name] for name in ("one pass", "optimised", "unstyled"))
    return {
        "fast_of_optimised_loss": one["loss"] / best["loss"],
        "fast_of_optimised_style": one["style"] / best["style"],
        "fast_of_optimised_content": one["content"] / best["content"],
        "fast_of_unstyled_style": one["style"] / none["style"],
        "fast_of_unstyled_loss": one["loss"] / none["loss"],
        "fast_time_of_optimised": quick / slow,
        "fast_over_bare_cpu": whole / bare,
        "fast_256_cpu_s": whole,
        **({"fast_training_cpu_s": seconds} if run is None else {"fast_training_steps": fit.step}),
    }


def pictures_of(folder: Path, side: int) -> Tensor:
    """Return all pictures of a folder, uint8 [N, 3, side, side]."""
    source = load_folder(folder, side, False)
    return torch.from_numpy(np.concatenate([source.train, source.test]))


def anything(
    steps: int,
    run: Path | None = None,
    *,
    config: StyleTrainConfig | None = None,
    others: tuple[Path, Path] | None = None,
) -> dict[str, float]:
    """Return the figures of a network for any style: of `run`, or trained here by `config`
    (default: style_any).

    `others`: folders of contents and styles, on all of which the network is tested as well.
    """
    start = time.process_time()
    config = config or style_any()
    fit = trained(config, steps) if run is None else opened(run)
    seconds = time.process_time() - start
    task = fit.task
    assert isinstance(task, AnyStyleTask)
    figures = fit.test()
    more = {}
    if others is not None:
        contents, styles = (
            pictures_of(folder, side)
            for folder, side in zip(others, (fit.whole_data.shape[-1], task.model.style_side))
        )
        with torch.no_grad():
            there = task.evaluate_in(Split(contents), styles)
            content = content_error(task, contents, styles)
        more = {
            "any_style_loss_of_unstyled_others": there["style_of_unstyled"],
            "any_content_loss_others": content,
            "any_identity_others": there["identity"],
        }
        print(f"content loss at {' '.join(task.content_layers)}: {content:.3f}")
        print(f"{len(contents)} contents in {len(styles)} styles of other folders: {there}")
    content, style = (
        torch.rand(1, 3, 256, 256),
        torch.rand(1, 3, task.model.style_side, task.model.style_side),
    )
    (whole,) = cpu_s(lambda: task.model.stylize(content, [style]))
    print_table(
        f"Any style: held-out crops in held-out styles ({task.styles.name})",
        ["style loss of unstyled", "identity (1: a flat grey)", "CPU s at 256"],
        [(f"{figures['style_of_unstyled']:.3f}", f"{figures['identity']:.3f}", f"{whole:.3f}")],
    )
    return {
        "any_style_loss_of_unstyled": figures["style_of_unstyled"],
        "any_identity": figures["identity"],
        "any_256_cpu_s": whole,
        **({"any_training_cpu_s": seconds} if run is None else {"any_training_steps": fit.step}),
        **more,
    }


def content_error(task: AnyStyleTask, contents: Tensor, styles: Tensor) -> float:
    """Return the mean content loss of contents in styles, in turn; uint8 [N, 3, side, side].

    The loss compares a result with its content, also for networks that are trained by another one.
    """
    rows, found = contents[:EVALUATED_ROWS].float() / 255, 0.0
    for number, x_3HW in enumerate(rows):
        style_1CHW = styles[number % len(styles)][None].float() / 255
        wanted = task.activations(x_3HW[None], task.content_layers)
        y_1CHW = task.model(x_3HW[None], style_1CHW)
        found += float(content_loss(task.activations(y_1CHW, task.content_layers), wanted))
    return found / len(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=0, help="of the training; 0: the presets'")
    parser.add_argument("--preset", choices=PRESETS, default="style_fast")
    parser.add_argument("--style", help="a picture, or pattern:SEED")
    parser.add_argument("--data", help="the contents, such as folder:photographs")
    parser.add_argument("--crops", type=int, default=CROPS, help="held-out pictures to optimise")
    parser.add_argument("--any", action="store_true", help="the preset for any style")
    parser.add_argument("--micro", action="store_true", help="any: the preset style_micro")
    parser.add_argument("--styles", help="training styles for any style, such as folder:paintings")
    parser.add_argument("--others", nargs=2, type=Path, help="any: folders of contents and styles")
    parser.add_argument("--run", type=Path, help="a run to evaluate; nothing is trained")
    parser.add_argument("--quick", action="store_true", help="8 steps: shows that it runs")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(describe_machine())
    steps = 8 if arguments.quick else arguments.steps
    anys = style_micro() if arguments.micro else style_any()
    config = anys if arguments.any else PRESETS[arguments.preset]()
    config = replace(config, features="lite0")
    if arguments.data:
        config = replace(config, data=replace(config.data, data=arguments.data))
    if arguments.style:
        config = replace(config, style=arguments.style)
    if arguments.styles:
        config = replace(config, styles=arguments.styles)
    if arguments.any:
        result = anything(steps, arguments.run, config=config, others=arguments.others)
    else:
        opt_steps = 4 if arguments.quick else StyleConfig().steps
        result = fast(steps, opt_steps, arguments.run, config=config, crops=arguments.crops)
    last_json_line({"bench": "style", **result})


if __name__ == "__main__":
    main()
