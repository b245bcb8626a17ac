"""Runs the published study: eleven optimizers on a VAE and a GAN, and regularisers with few labels.
Start it with `python -m tuning.study`.

There are three sweeps on scikit-learn's digits. Each is a complete comparison: every arm with its
default settings and five seeds, sixteen search trials, and the best of these trials again with five
seeds. The results are written to tuning/results/. A run that was interrupted continues; for a
finished run, only the pages are written again.
"""

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from genray.config import load_yaml
from genray.console import escape_unprintable, shell_command
from genray.errors import GenrayError, require
from genray.gen.families import open_fit
from genray.gen.training.run import save_export
from tuning.plan import Sweep, SweepConfig
from tuning.presets import named_study
from tuning.report.comparison import Comparison
from tuning.report.report import best_samples, write_report
from tuning.report.stats import cost
from tuning.report.text import number, plural
from tuning.settings import changed, parse_settings
from tuning.study.results import Part, commit, cost_line, machine, publish
from tuning.training import preset
from tuning.trials import read_trials

RESULTS = Path(__file__).parents[1] / "results"
JUDGE = "judge"
"""Run directory, beside the sweeps, of the classifier that measures the GAN's samples by its
features.
"""
COMMIT = "commit.txt"
"""File in a sweep's directory that holds the commit that ran the sweep."""
# A quarter of the training rows (324 of 1,297) is used for validation, instead of a tenth: 130 rows
# would give a coarse metric.
VALIDATION = "data.validation=0.25"


@dataclass(frozen=True)
class Task:
    """One sweep of the study."""

    name: str
    heading: str
    about: str
    config: SweepConfig
    seconds: float
    """CPU seconds of one trial, including evaluations, measured on one core of an AMD EPYC
    (virtual).
    """

    def arm_names(self) -> list[str]:
        """Return the names of all arms of the study."""
        base = preset(self.config.model, self.config.preset, self.config.data)
        return [arm.name for arm in named_study(self.config.study, self.config.model, base).arms]

    def trials(self) -> int:
        return len(self.config.arms or self.arm_names()) * (
            self.config.trials + 2 * self.config.seeds
        )


TASKS = (
    Task(
        "vae",
        "Eleven optimizers on a digits VAE",
        "A dense VAE (64 → 256 → 128 → 10 latents), {steps:,} steps of 100 rows. The figure is the "
        "negative evidence lower "
        "bound, nats an image.",
        SweepConfig(
            study="optimizers",
            model="vae",
            preset="vae_digits",
            set=(VALIDATION,),
            steps=800,
            looks=10,
            trials=16,
            seeds=5,
        ),
        2.6,
    ),
    Task(
        "gan",
        "Eleven optimizers on a small GAN",
        "A dense GAN (32 latents → 128 → 64 pixels, and 64 → 128 → 1; the non-saturating loss; one "
        "optimizer for both "
        "players), {steps:,} steps of 64 rows. The figure is the Fréchet distance of a digits "
        "classifier's features (FCD) "
        "between 1,000 samples and the held-out rows: 324 of validation, 500 of test, and fewer "
        "rows mean a larger distance, "
        "so that the two splits' figures are not to be compared with each other.",
        SweepConfig(
            study="optimizers",
            model="gan",
            preset="gan_digits",
            steps=1500,
            looks=10,
            trials=16,
            seeds=5,
            metric="validation_fcd",
            set=(
                VALIDATION,
                "model.network=dense",
                "model.generator_widths=128",
                "model.discriminator_widths=128",
                "model.generator_norm=none",
                "model.discriminator_norm=none",
                "loss=non-saturating",
                "ema=0",
            ),
        ),
        3.9,
    ),
    Task(
        "regularisers",
        "Regularisers on a stacked autoencoder with few labels",
        "64 → 128 → 64 → 32 layer by layer from warped digits, then a classifier on 100 labels; "
        "{steps:,} steps in each of six "
        "stages. The figure is the classifier's accuracy.",
        SweepConfig(
            study="regularisers",
            model="ae",
            preset="stacked_digits",
            set=(VALIDATION,),
            steps=250,
            looks=10,
            trials=16,
            seeds=5,
            metric="validation_accuracy",
            mode="max",
        ),
        3.1,
    ),
)


def quick(task: Task) -> Task:
    """Return the task with three arms and few, short trials. It shows that the sweep runs, not
    which arm is better.
    """
    arms = {"optimizers": ("sgd", "adam", "ftrl"), "regularisers": ("none", "l2")}[
        task.config.study
    ]
    config = replace(
        task.config, arms=arms, steps=max(20, task.config.steps // 10), looks=4, trials=3, seeds=2
    )
    return replace(task, config=config, seconds=task.seconds / 8)


def main(argv: Sequence[str] | None = None) -> int:
    escape_unprintable()
    arguments = _parse(argv)
    try:
        run(arguments)
    except GenrayError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        again = shell_command(
            "python", "-m", "tuning.study", *(sys.argv[1:] if argv is None else argv)
        )
        print(f"stopped; go on with: {again}", file=sys.stderr)
        return 130
    return 0


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tuning.study", description=__doc__)
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("runs/study"),
        help="where the sweeps are kept, and go on from",
    )
    parser.add_argument(
        "--results",
        type=Path,
        help="where tables and pictures go; default: tuning/results, with --quick OUT/results",
    )
    parser.add_argument(
        "--only", nargs="+", choices=[task.name for task in TASKS], help="only these sweeps"
    )
    parser.add_argument(
        "--parallel", type=int, default=0, help="trials at once; 0: as many as there are CPUs"
    )
    parser.add_argument(
        "--quick", action="store_true", help="three arms, short trials: a few minutes"
    )
    parser.add_argument("--cost", action="store_true", help="say what it would cost, and end")
    return parser.parse_args(argv)


def run(arguments: argparse.Namespace) -> Path:
    """Run the remaining parts of the study, and return the page of its results."""
    require(
        arguments.parallel >= 0,
        f"--parallel {arguments.parallel}: must be ≥ 0 (0: as many as there are CPUs)",
    )
    every = [quick(task) if arguments.quick else task for task in TASKS]
    tasks = [task for task in every if not arguments.only or task.name in arguments.only]
    out: Path = arguments.out
    results = arguments.results or (out / "results" if arguments.quick else RESULTS)
    say_cost(tasks, out)
    if arguments.cost:
        return results
    begun = time.process_time()
    for task in tasks:
        run_task(task, out, arguments.parallel)
    # Include sweeps of earlier runs, so that --only does not remove them from the page.
    parts = [
        _part(task, out / task.name)
        for task in every
        if (out / task.name / "report" / "index.html").exists()
    ]
    print(f"this process itself took {time.process_time() - begun:.0f} CPU seconds", flush=True)
    page = publish(
        results,
        parts,
        "Which optimizer, which regulariser: a small study",
        _about(parts, arguments.quick),
    )
    print(page)
    return page


def _part(task: Task, sweep: Path) -> Part:
    comparison = Comparison(read_trials(sweep), _known_tests(sweep))
    samples = _samples(sweep, comparison) if task.config.model == "gan" else []
    settings = {"search": task.config.search, "scheduler": task.config.scheduler}
    about = task.about.format(steps=task.config.steps)
    made_by = (
        (sweep / COMMIT).read_text(encoding="utf-8").strip()
        if (sweep / COMMIT).exists()
        else "unknown"
    )
    return Part(task.name, task.heading, about, comparison, settings, samples, made_by)


def say_cost(tasks: Sequence[Task], out: Path) -> None:
    """Print what remains to be run, and its approximate cost."""
    total = 0.0
    for task in tasks:
        done = 0
        if (out / task.name / "sweep.yaml").exists():
            done = sum(row.status != "running" for row in read_trials(out / task.name))
        left = task.trials() - done
        total += left * task.seconds
        print(
            f"{task.name}: {plural(left, 'trial')} of {task.trials()} left, about {task.seconds:g} "
            "CPU seconds each"
        )
    cores = os.cpu_count() or 1
    print(
        f"about {total / 60:.1f} CPU minutes in all on one core of an AMD EPYC; "
        f"{total / 60 / cores:.1f} minutes on the "
        f"{cores} cores here, if nothing else runs, and some for Ray and the test split",
        flush=True,
    )


def run_task(task: Task, out: Path, parallel: int = 0) -> Path:
    """Start or continue the task's sweep in OUT/NAME, or leave it if it is finished; then write its
    report.
    """
    from tuning.sweep import resume_sweep, run_sweep  # imports Ray

    folder, config = out / task.name, task.config
    if config.model == "gan":
        config = replace(config, set=(*config.set, f"extractor={judge(out)}"))
    config = replace(config, parallel=parallel)
    if (folder / "sweep.yaml").exists():
        known = replace(load_yaml(SweepConfig, folder / "sweep.yaml"), parallel=parallel)
        require(
            _but_for_paths(known) == _but_for_paths(config),
            f"--out {out}: {folder.name} is a sweep with other settings; choose a new folder",
        )
        arms = [arm.name for arm in Sweep.open(folder).study.arms]
        require(
            set(arms) == set(config.arms or task.arm_names()),
            f"--out {out}: {folder.name} compares {', '.join(arms)}, of an earlier version; choose "
            "a new folder",
        )
        resume_sweep(folder)
    else:
        run_sweep(config, folder)
    if not (folder / COMMIT).exists():  # a later version may write the page again
        (folder / COMMIT).write_text(commit() + "\n", encoding="utf-8")
    print(write_report(folder, say=lambda text: print(text, flush=True)), flush=True)
    return folder


def _but_for_paths(config: SweepConfig) -> SweepConfig:
    """Return the configuration without the classifier's path, which may be relative to another
    directory.
    """
    return replace(
        config, set=tuple(word for word in config.set if not word.startswith("extractor="))
    )


def judge(out: Path) -> Path:
    """Train the classifier that measures samples, unless it exists. Returns the directory of its
    model.
    """
    folder = (out / JUDGE).resolve()
    if not (folder / "config.json").exists():
        import torch

        torch.set_num_threads(1)  # gives the same weights on every machine of a kind
        config = changed(
            preset("classifier", "classifier_digits", ""), parse_settings([VALIDATION])
        )
        fit = open_fit("classifier", config)
        for _ in fit:
            pass
        figures = fit.test()
        save_export(folder, fit, figures)
        print(
            f"the judge of samples is right on {figures['accuracy']:.1%} of the test digits",
            flush=True,
        )
    return folder


def _known_tests(sweep: Path) -> dict[str, dict[str, float]]:
    """Return the test metrics that the report has measured."""
    entries = (
        json.loads((sweep / "report" / "test.json").read_text(encoding="utf-8"))
        if (sweep / "report" / "test.json").exists()
        else {}
    )
    return {trial: entry["figures"] for trial, entry in entries.items()}


def _samples(sweep: Path, comparison: Comparison, arms: int = 3) -> list[tuple[str, bytes]]:
    """Return samples of the best runs of the best arms, and of the worst arm."""
    found = []
    for arm in dict.fromkeys((*comparison.ranked[: arms - 1], comparison.ranked[-1])):
        rows = [
            row
            for row in comparison.select(arm, comparison.ranking_phase)
            if math.isfinite(cost(row))
        ]
        best = min(rows, key=cost, default=None)
        png = best_samples(sweep, best) if best is not None else None
        if best is not None and png is not None:
            found.append((f"{arm}, tuned, {number(best.best)}", png))
    return found


def _about(parts: Sequence[Part], is_quick: bool) -> list[str]:
    command = f"python -m tuning.study{' --quick' if is_quick else ''}"
    commits = list(dict.fromkeys(part.commit for part in parts))
    by = (
        commits[0]
        if len(commits) == 1
        else ", ".join(f"{part.commit} ({part.name})" for part in parts)
    )
    costs = "; ".join(f"{part.name}: {cost_line(part.comparison)}" for part in parts)
    texts = [
        f"Made by `{command}`, commit {by}, on {machine()}. Cost: {costs}. Trials ran one thread "
        "each, "
        "beside each other.",
        "Each sweep writes a report of its own with every chart and every trial "
        "(`runs/study/NAME/report/index.html`). "
        "Brackets and bars are intervals of medians over seeds, and a table's head says in how "
        "many cases such an interval "
        "holds the true median: with five seeds, whose range it is, in 94%.",
    ]
    if is_quick:
        texts.insert(
            0, "**A quick run: it shows that the study works, and nothing about optimizers.**"
        )
    return texts
