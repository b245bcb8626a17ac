"""Configurations that train in a fraction of a second, and trials, for the tests of sweeps."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from genray.gen.gan.task import GANConfig, GANModelConfig
from genray.gen.training.fit import FitConfig
from genray.gen.training.optimizers import OptimizerConfig
from genray.gen.vae import VAEConfig, VAEModelConfig
from tuning.trial_run import TrialRun
from tuning.trials import TrialRow, write_trial

OPEN: list[TrialRun] = []
"""Trials that the current test began; conftest.py closes them after the test."""


def tiny_vae(steps: int = 12, looks: int = 3, **optimizer: Any) -> VAEConfig:
    return VAEConfig(
        fit=FitConfig(steps=steps, batch_size=64, validate_every=steps // looks, device="cpu"),
        optimizer=OptimizerConfig(**optimizer),
        model=VAEModelConfig(latent=2, widths=(16,)),
    )


def tiny_gan(steps: int = 12, looks: int = 3) -> GANConfig:
    return GANConfig(
        fit=FitConfig(steps=steps, batch_size=32, validate_every=steps // looks, device="cpu"),
        optimizer=OptimizerConfig(learning_rate=1e-3, beta1=0.5),
        model=GANModelConfig(latent=8, generator_widths=(16,), discriminator_widths=(16,)),
        discriminator_learning_rate=2e-3,
        ema=0.9,
    )


def new_trial(
    sweep: Path, base: Any, family: str = "vae", name: str = "0000-all-search", **more: Any
) -> TrialRun:
    """Create a trial in a new sweep's directory."""
    row = TrialRow(
        trial=name,
        study="test",
        family=family,
        data="digits",
        arm="all",
        phase="search",
        seed=0,
        path=f"trials/{name}",
    )
    row = replace(row, **more)
    (sweep / row.path).mkdir(parents=True)
    write_trial(sweep, row)
    return track(TrialRun(sweep, row, base))


def track(trial: TrialRun) -> TrialRun:
    OPEN.append(trial)
    return trial


def to_the_end(trial: TrialRun) -> TrialRow:
    for _ in range(100):
        if trial.advance()["done"]:
            trial.close()
            return trial.row
    raise AssertionError("the trial did not end after 100 evaluations")


def clones_of(sweep: Path) -> list[dict[str, Any]]:
    """Return the records of all times that members of a population became copies, by step."""
    found = [
        json.loads(line) | {"trial": path.parent.name}
        for path in sorted(sweep.glob("trials/*/clones.jsonl"))
        for line in path.read_text().splitlines()
    ]
    return sorted(found, key=lambda clone: clone["step"])


def check_clones(sweep: Path, rows: Sequence[TrialRow]) -> int:
    """Assert that the worst member copied the best one of its step, bit for bit. Returns the number
    of copies whose digest could be compared.
    """
    # Compare the digests of the states that Tune passed on with those after loading.
    told = [json.loads(path.read_text()) for path in (sweep / "tune").rglob("clone.json")]
    handed = {(about["trial"], about["step"]): about["digest"] for about in told if about["alive"]}
    compared = 0
    for clone in clones_of(sweep):
        values = {
            row.trial: value
            for row in rows
            for step, _, value in row.curve
            if step == clone["step"]
        }
        assert clone["of"] == min(values, key=values.__getitem__)
        assert clone["trial"] == max(values, key=values.__getitem__)
        if (clone["of"], clone["step"]) in handed:  # Tune keeps only the newest states
            assert clone["digest"] == handed[clone["of"], clone["step"]]
            compared += 1
    for row in rows:  # The settings are those of the last copy.
        mine = [clone for clone in clones_of(sweep) if clone["trial"] == row.trial]
        assert not mine or row.params == mine[-1]["settings"]
    return compared
