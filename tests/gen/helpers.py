"""What several test files of this room need: small data, a trained autoencoder, and the proof that a run continues."""

from collections.abc import Callable
from pathlib import Path

import torch

from genray.gen.ae_task import AEConfig, AETask
from genray.gen.autoencoders import AEModelConfig
from genray.gen.data import Data, Split
from genray.gen.fit import Fit, FitConfig, looking
from genray.gen.optimizers import OptimizerConfig


def spots(rows: int = 120, side: int = 8, channels: int = 1, low: float = 0.0) -> Data:
    """Bright spots at random places: images in `low`..1 that two numbers describe, without labels; 40 rows held out."""
    generator = torch.Generator().manual_seed(0)
    centre = torch.rand(rows, 2, 1, generator=generator) * side
    at = torch.arange(side)
    y, x = (torch.exp(-((at - centre[:, i]) ** 2) / 4) for i in range(2))
    images = ((1.0 - low) * y[:, :, None] * x[:, None, :] + low)[:, None].expand(-1, channels, -1, -1).contiguous()
    cuts = (0, rows - 40), (rows - 40, rows - 20), (rows - 20, rows)
    return Data("spots", *(Split(images[a:b], None, low, 1.0) for a, b in cuts))


def small_ae(kind="undercomplete", epochs=1, batch_size=100, seed=0, learning_rate=3e-3, **model) -> AEConfig:
    """An autoencoder of a few thousand weights with a code of five numbers; `model`: fields of AEModelConfig."""
    widths = (4, 6) if "conv" in kind else (20, 12)
    return AEConfig(
        fit=FitConfig(epochs=epochs, batch_size=batch_size, seed=seed),
        optimizer=OptimizerConfig(learning_rate=learning_rate),
        model=AEModelConfig(**{"kind": kind, "code": 5, "widths": widths, **model}),
    )


def trained(config: AEConfig, data: Data) -> Fit:
    """An autoencoder at the end of its training."""
    config.validate()
    fit = Fit(AETask(config), data, config.fit)
    for _ in fit:
        pass
    return fit


def measured(fit: Fit) -> dict[str, float]:
    """The task's last word; unlike `Fit.measure` with random numbers of seed 0, whatever the run's."""
    with looking(fit.task, 0):
        return fit.task.measure(fit.whole_data)


def check_resume(start: Callable[[], Fit], stop: int, folder: Path) -> None:
    """A run that was cut off after `stop` steps and loaded again makes the same steps, figures and weights."""
    whole = start()
    steps = list(whole)
    first = start()
    for step in first:
        if step.step == stop:
            break
    first.save(folder)
    torch.manual_seed(999)  # whatever happened in between
    second = start()
    second.load(folder)
    assert list(second) == steps[stop:]
    expected = whole.task.networks.state_dict()
    assert all(torch.equal(expected[name], tensor) for name, tensor in second.task.networks.state_dict().items())
    untrained = start().task.networks.state_dict()
    assert sum(not torch.equal(expected[name], untrained[name]) for name in expected) >= 4  # it did train
