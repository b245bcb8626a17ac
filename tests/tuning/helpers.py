"""What the tests of sweeps share: trainings of a fraction of a second, and trials of them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from genray.gen.fit import FitConfig
from genray.gen.gan import GANConfig, GANModelConfig
from genray.gen.optimizers import OptimizerConfig
from genray.gen.vae import VAEConfig, VAEModelConfig
from tuning.trial_run import TrialRun
from tuning.trials import TrialRow, write_trial

OPEN: list[TrialRun] = []
"""Trials that a test began; conftest.py closes them after it."""


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


def new_trial(sweep: Path, base: Any, family: str = "vae", name: str = "0000-all-search", **more: Any) -> TrialRun:
    """A trial in a sweep's folder of its own making."""
    row = TrialRow(
        trial=name, study="test", family=family, data="digits", arm="all", phase="search", seed=0, path=f"trials/{name}"
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
    raise AssertionError("a trial of three looks took a hundred")
