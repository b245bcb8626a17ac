"""No training step makes a GPU wait, and all its tensors are created on the network's device.

The tests need no GPU.
"""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from genray.gen.autoencoder.task import AETask
from genray.gen.data.config import DataConfig
from genray.gen.data.types import Data, Split
from genray.gen.gan.task import GANConfig, GANModelConfig, GANTask
from genray.gen.images.classifier import ClassifierConfig, ClassifierModelConfig, ClassifierTask
from genray.gen.images.style.base import StyleTrainConfig
from genray.gen.images.style.network_config import StyleNetConfig
from genray.gen.images.style.one_style_task import style_task
from genray.gen.training.fit import Fit, FitConfig, Task
from genray.gen.training.optimizers import OPTIMIZERS, READING, OptimizerConfig
from genray.gen.training.updater import Updater
from genray.gen.translation.task_cyclegan import CycleGANTask
from genray.gen.translation.task_pix2pix import Pix2PixTask
from genray.gen.vae import VAEConfig, VAEModelConfig, VAETask
from tests.helpers import translation
from tests.helpers.device_audit import META, Fault, audited
from tests.helpers.gen import small_ae

AUGMENT = ("flip", "shift", "crop", "colour")
FIT = FitConfig(steps=9, batch_size=4, validate_every=9, log_every=3)


def images(
    low: float, channels: int = 1, side: int = 8, augment: tuple[str, ...] = AUGMENT
) -> Data:
    """Return 20 noisy images of two classes."""
    values = torch.randint(0, 256, (20, channels, side, side), dtype=torch.uint8)
    label = torch.arange(20) % 2
    train, validation, test = (
        Split(values[a:b], label[a:b], low, 1.0) for a, b in ((0, 12), (12, 16), (16, 20))
    )
    return Data("noise", replace(train, augment=augment), validation, test, ("even", "odd"))


def waits(task: Task, data: Data, steps: int = 3) -> tuple[list[Fault], int]:
    """Return the faults outside the log lines and the reads of the log lines, of steps 2, 3, ….

    The first step is left out, because it creates the optimizer.
    """
    config: FitConfig = task.config.fit
    with audited() as audit:
        fit = Fit(task, data, config)
        for step in fit:
            if step.step == 1:
                audit.faults.clear()
            if step.step == steps:
                break
    logged = [fault for fault in audit.faults if fault.line.endswith(" _report")]
    return [fault for fault in audit.faults if fault not in logged], len(logged)


def ae(**changes: Any) -> Task:
    config = small_ae(**{"kind": "denoising", **changes})
    return AETask(replace(config, fit=FIT), device=META)


def gan(model: dict[str, Any] | None = None, **changes: Any) -> Task:
    return GANTask(
        GANConfig(fit=FIT, model=GANModelConfig(latent=4, **(model or {})), **changes), device=META
    )


def dcgan(model: dict[str, Any] | None = None, **changes: Any) -> Task:
    widths = {
        "network": "conv",
        "generator_widths": (4, 4),
        "discriminator_widths": (4, 4),
        "kernel": 3,
    }
    return gan(widths | (model or {}), **changes)


def vae(**model: Any) -> Task:
    return VAETask(
        VAEConfig(fit=FIT, free_bits=0.1, model=VAEModelConfig(latent=3, **model)), device=META
    )


def classifier(**changes: Any) -> Task:
    model = ClassifierModelConfig(channels=(4,), features=6, batch_norm=True)
    return ClassifierTask(ClassifierConfig(fit=FIT, model=model, **changes), device=META)


def style(method: str, **changes: Any) -> Task:
    config = StyleTrainConfig(
        method=method,  # type: ignore[arg-type]
        data=DataConfig(data="photos", size=16),
        fit=FIT,
        model=StyleNetConfig(widths=(4, 6, 8), residual=1, kernel=3),
        features="untrained",
        num_styles=4,
        style="pattern:3",
        **changes,
    )
    return style_task(config, device=META)


def pix2pix(**changes: Any) -> Task:
    config = translation.pix2pix(**changes)
    return Pix2PixTask(replace(config, fit=FIT), device=META)


def cyclegan(**changes: Any) -> Task:
    config = translation.cyclegan(**changes)
    return CycleGANTask(replace(config, fit=FIT), device=META)


TASKS = {
    "ae-gaussian": lambda: ae(sparsity=0.1, code_activation="sigmoid", contractive=0.1),
    "ae-masking": lambda: ae(
        corruption="masking", binary=True, activation="maxout", batch_norm=True
    ),
    "ae-salt-pepper": lambda: ae(kind="conv", corruption="salt-pepper", upsampling="unpool"),
    "ae-warp": lambda: ae(corruption="warp", reconstruction="bce", tied=True),
    "ae-stacked": lambda: ae(kind="stacked", finetune_labels=4, dropout=0.1),
    "vae-dense": lambda: vae(widths=(8,), binarise="dynamic"),
    "vae-conv": lambda: vae(network="conv", widths=(4, 4), likelihood="gaussian"),
    "gan-dense": lambda: gan(
        {"pack": 2}, ema=0.9, diffaugment=("color", "translation", "cutout"), r1=1.0
    ),
    "gan-wgan-gp": lambda: gan(loss="wgan-gp", discriminator_steps=2),
    "gan-dcgan": lambda: dcgan(
        {"generator_norm": "batch", "discriminator_norm": "spectral"}, loss="lsgan"
    ),
    "classifier": lambda: classifier(label_smoothing=0.1),
    "classifier-squared": lambda: classifier(loss="squared_error"),
    "pix2pix": pix2pix,
    "cyclegan": cyclegan,
    "style-fast": lambda: style("style_fast"),
    "style-any": lambda: style("style_any"),
    "style-micro": lambda: style("style_micro"),
}


@pytest.mark.parametrize("name", TASKS)
def test_training_steps_wait_for_the_device_at_log_lines_only(name: str):
    task = TASKS[name]()
    family = name.split("-")[0]
    channels, side = (1, 8) if family in ("ae", "vae", "gan", "classifier") else (3, 16)
    low = -1.0 if family in ("gan", "pix2pix", "cyclegan") else 0.0
    data = images(low, channels, side)
    if family == "pix2pix":
        data = replace(data, about={"pairs": {"kind": "files", "channels": [1, 2]}})
    faults, logged = waits(task, data)
    assert not faults
    assert logged == 1  # the log lines read, so the audit detects reads


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizer_updates_wait_only_for_what_pytorch_reads(name: str):
    config = OptimizerConfig(optimizer=name, l1=1e-3, l2=1e-3, grad_clip=1.0, schedule="cosine")
    with audited() as audit:
        network = nn.Linear(3, 2, device=META)
        updater = Updater(network.parameters(), config, total_updates=9)
        for _ in range(2):
            audit.faults.clear()  # the first update creates the state
            updater.step(network(torch.empty(4, 3, device=META)).square().mean())
    assert bool(audit.faults) == (name in READING)
