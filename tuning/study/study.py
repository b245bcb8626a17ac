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
CLASSIFIER = "judge"
"""Name of the directory, beside the sweeps, of the classifier whose features measure samples."""
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
        """Return the number of trials of the sweep."""
        return len(self.config.arms or self.arm_names()) * (
            self.config.trials + 2 * self.config.seeds
        )


TASKS = (
    Task(
        "vae",
        "Eleven optimizers on a digits VAE",
        "A dense VAE (64 → 256 → 128 → 10 latents), {steps:,} steps of 100 rows. The metric is the "
        "negative evidence lower bound in nats per image.",
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
        "optimizer for both networks), {steps:,} steps of 64 rows. The metric is the Fréchet "
        "distance of a digits classifier's features (FCD) between 1,000 samples and the held-out "
        "rows. Validation has 324 rows and test has 500. Fewer rows give a larger distance, so the "
        "figures of the two splits cannot be compared with each other.",
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
        "64 → 128 → 64 → 32, trained layer by layer on distorted digits, then a classifier on 100 "
        "labels; {steps:,} steps in each of six stages. The metric is the classifier's accuracy.",
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
    """Return the task with two or three arms and few, short trials.

    Such a sweep shows that the study runs, but not which arm is better.
    """
    arms = {"optimizers": ("sgd", "adam", "ftrl"), "regularisers": ("none", "l2")}[
        task.config.study
    ]
    config = replace(
        task.config, arms=arms, steps=max(20, task.config.steps // 10), looks=4, trials=3, seeds=2
    )
    return replace(task, config=config, seconds=task.seconds / 8)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the study, and return the exit status."""
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
        print(f"stopped; continue with: {again}", file=sys.stderr)
        return 130
    return 0


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tuning.study", description=__doc__)
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("runs/study"),
        help="directory of the sweeps; an interrupted study continues there",
    )
    parser.add_argument(
        "--results",
        type=Path,
        help="directory of tables and pictures; default: tuning/results, with --quick OUT/results",
    )
    parser.add_argument(
        "--only", nargs="+", choices=[task.name for task in TASKS], help="run only these sweeps"
    )
    parser.add_argument(
        "--parallel", type=int, default=0, help="trials that run at once; 0: one for each CPU"
    )
    parser.add_argument(
        "--quick", action="store_true", help="run three arms and short trials, for a few minutes"
    )
    parser.add_argument("--cost", action="store_true", help="print the cost of the study, and end")
    return parser.parse_args(argv)


def run(arguments: argparse.Namespace) -> Path:
    """Run the remaining parts of the study, and return the page of its results."""
    require(
        arguments.parallel >= 0,
        f"--parallel {arguments.parallel}: must be ≥ 0 (0: one trial for each CPU)",
    )
    every = [quick(task) if arguments.quick else task for task in TASKS]
    tasks = [task for task in every if not arguments.only or task.name in arguments.only]
    out: Path = arguments.out
    results = arguments.results or (out / "results" if arguments.quick else RESULTS)
    print_cost(tasks, out)
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
    print(f"this process took {time.process_time() - begun:.0f} CPU seconds itself", flush=True)
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


def print_cost(tasks: Sequence[Task], out: Path) -> None:
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
        f"{total / 60 / cores:.1f} minutes on the {cores} cores of this machine if no other "
        "program runs, and a few more for Ray and the test split",
        flush=True,
    )


def run_task(task: Task, out: Path, parallel: int = 0) -> Path:
    """Start or continue the task's sweep in OUT/NAME unless it is finished, and write its report.

    Raises ConfigError if the directory holds a sweep with other settings or other arms.
    """
    from tuning.sweep import resume_sweep, run_sweep  # imports Ray

    folder, config = out / task.name, task.config
    if config.model == "gan":
        config = replace(config, set=(*config.set, f"extractor={sample_classifier(out)}"))
    config = replace(config, parallel=parallel)
    if (folder / "sweep.yaml").exists():
        known = replace(load_yaml(SweepConfig, folder / "sweep.yaml"), parallel=parallel)
        require(
            _without_paths(known) == _without_paths(config),
            f"--out {out}: {folder.name} is a sweep with other settings; choose a new folder",
        )
        arms = [arm.name for arm in Sweep.open(folder).study.arms]
        require(
            set(arms) == set(config.arms or task.arm_names()),
            f"--out {out}: {folder.name} compares {', '.join(arms)}, the arms of an earlier "
            "version; choose a new folder",
        )
        resume_sweep(folder)
    else:
        run_sweep(config, folder)
    if not (folder / COMMIT).exists():  # A later commit may write the page again.
        (folder / COMMIT).write_text(commit() + "\n", encoding="utf-8")
    print(write_report(folder, say=lambda text: print(text, flush=True)), flush=True)
    return folder


def _without_paths(config: SweepConfig) -> SweepConfig:
    """Return the configuration without the classifier's path, which may be relative to another
    directory.
    """
    return replace(
        config, set=tuple(word for word in config.set if not word.startswith("extractor="))
    )


def sample_classifier(out: Path) -> Path:
    """Train the classifier that measures samples, unless it exists, and return its directory."""
    folder = (out / CLASSIFIER).resolve()
    if not (folder / "config.json").exists():
        import torch

        torch.set_num_threads(1)  # The weights are then the same on all machines of one kind.
        config = changed(
            preset("classifier", "classifier_digits", ""), parse_settings([VALIDATION])
        )
        fit = open_fit("classifier", config)
        for _ in fit:
            pass
        figures = fit.test()
        save_export(folder, fit, figures)
        print(
            f"the classifier of samples has a test accuracy of {figures['accuracy']:.1%}",
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
        f"Made by `{command}`, commit {by}, on {machine()}. Cost: {costs}. Trials used one thread "
        "each and ran in parallel.",
        "Each sweep also writes a report with all charts and all trials "
        "(`runs/study/NAME/report/index.html`). Brackets and bars show intervals of medians over "
        "seeds. The head of a table states the probability that such an interval contains the "
        "true median. With five seeds, the interval is their range, and the probability is 94%.",
    ]
    if is_quick:
        texts.insert(
            0, "**A quick run. It shows that the study runs, and says nothing about optimizers.**"
        )
    return texts
