"""Makes rows of trials whose statistics the tests of the report know."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tuning.trials import TrialRow, write_trial


def row(
    arm: str = "all",
    phase: str = "search",
    seed: int = 0,
    best: float | None = 1.0,
    number: int = 0,
    **changes: Any,
) -> TrialRow:
    """Return the row of a finished trial with one evaluation. `changes`: other fields."""
    name = f"{number:04d}-{arm}-{phase}"
    curve = [] if best is None else [(100, 1.0, best)]
    values: dict[str, Any] = {
        "trial": name,
        "study": "optimizers",
        "family": "vae",
        "data": "digits",
        "arm": arm,
        "phase": phase,
        "seed": seed,
        "status": "done",
        "best": best,
        "best_step": None if best is None else 100,
        "last": best,
        "steps": 100,
        "seconds": 1.0,
        "state_bytes_per_parameter": 8.0,
        "curve": curve,
        "path": f"trials/{name}",
    }
    return TrialRow(**(values | changes))


def write_sweep(
    folder: Path, rows: Sequence[TrialRow], settings: str = "search: random\nscheduler: none\n"
) -> Path:
    """Write a sweep's directory with these rows, and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sweep.yaml").write_text(settings)
    for each in rows:
        (folder / each.path).mkdir(parents=True, exist_ok=True)
        write_trial(folder, each)
    return folder


ARMS = {  # name: (best rate, its result, curvature of the parabola, the untuned rate)
    "sgd": (0.1, 19.5, 0.9, 1e-3),
    "momentum": (0.02, 18.0, 0.9, 1e-3),
    "nesterov": (0.02, 17.9, 0.9, 1e-3),
    "adagrad": (0.03, 18.4, 0.7, 1e-2),
    "rmsprop": (2e-3, 17.4, 1.2, 1e-2),
    "adam": (3e-3, 17.2, 0.8, 1e-3),
    "adadelta": (3.0, 17.8, 0.6, 1.0),
    "adagrad-da": (0.2, 20.5, 0.8, 1e-2),
    "ftrl": (0.2, 18.8, 0.8, 1e-2),
    "proximal-gradient-descent": (0.1, 19.6, 0.9, 1e-3),
    "proximal-adagrad": (0.03, 18.5, 0.7, 1e-2),
}


def study_rows(
    trials: int = 16, seeds: int = 5, arms: Sequence[str] = tuple(ARMS), random_seed: int = 0
) -> list[TrialRow]:
    """Return the rows of a whole comparison. The result is a parabola in log η around each arm's
    best rate, with noise. Trials above ten times the best rate diverge.
    """
    random = np.random.default_rng(random_seed)
    rows: list[TrialRow] = []

    def add(arm: str, phase: str, seed: int, rate: float, beta: float) -> None:
        best_rate, result, steep, _ = ARMS[arm]
        away = math.log10(rate / best_rate)
        end = (
            result
            + steep * away**2 * (1.5 if away < 0 else 4)
            + abs(beta - 0.9)
            + random.normal(0, 0.12)
        )
        diverged = away > 1
        steps = range(100, 1100, 100)
        pace = 250 * 10 ** abs(away / 2)
        curve = [
            (
                step,
                0.003 * step * (1 + 0.1 * random.random()),
                end + 30 * math.exp(-step / pace) + random.normal(0, 0.05),
            )
            for step in steps
        ]
        if diverged:
            curve = curve[: random.integers(0, 4)]
        values = [value for _, _, value in curve]
        rows.append(
            row(
                arm,
                phase,
                seed,
                min(values, default=None),
                len(rows),
                status="diverged" if diverged else "done",
                curve=curve,
                steps=curve[-1][0] if curve else 30,
                seconds=curve[-1][1] if curve else 0.1,
                error="RunFault: loss is nan at step 30: try a lower --learning-rate"
                if diverged
                else "",
                params={
                    "optimizer.optimizer": arm,
                    "optimizer.learning_rate": rate,
                    "optimizer.beta1": beta,
                },
                state_bytes_per_parameter=0.0
                if arm in ("sgd", "proximal-gradient-descent")
                else 8.0,
            )
        )

    for arm in arms:
        _, _, _, untuned = ARMS[arm]
        for seed in range(seeds):
            add(arm, "default", seed, untuned, 0.9)
        for _ in range(trials):
            add(
                arm,
                "search",
                0,
                10 ** random.uniform(-2.2, 1.4) * ARMS[arm][0],
                random.choice([0.5, 0.8, 0.9, 0.95]),
            )
        chosen = min((each for each in rows if each.arm == arm and each.phase == "search" and each.status == "done"),  # noqa: E501
                     key=lambda each: each.best or math.inf)  # fmt: skip
        for seed in range(seeds):
            add(
                arm,
                "tuned",
                100 + seed,
                chosen.params["optimizer.learning_rate"],
                chosen.params["optimizer.beta1"],
            )
    return rows
