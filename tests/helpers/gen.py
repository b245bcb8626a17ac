"""Helpers of the tests of genray/gen: small data, trained autoencoders, a check of resuming."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from torch import Tensor

from genray.gen.autoencoder.model import AEModelConfig
from genray.gen.autoencoder.task import AEConfig, AETask
from genray.gen.data.types import Data, Split
from genray.gen.training.fit import Fit, FitConfig, evaluating
from genray.gen.training.optimizers import OptimizerConfig


def spots(rows: int = 120, side: int = 8, channels: int = 1, low: float = 0.0) -> Data:
    """Return unlabelled images in `low`..1 with a bright spot at a random place; 40 are held out.

    Two numbers describe each image.
    """
    generator = torch.Generator().manual_seed(0)
    centre = torch.rand(rows, 2, 1, generator=generator) * side
    at = torch.arange(side)
    y, x = (torch.exp(-((at - centre[:, i]) ** 2) / 4) for i in range(2))
    images = (
        ((1.0 - low) * y[:, :, None] * x[:, None, :] + low)[:, None]
        .expand(-1, channels, -1, -1)
        .contiguous()
    )
    cuts = (0, rows - 40), (rows - 40, rows - 20), (rows - 20, rows)
    return Data("spots", *(Split(images[a:b], None, low, 1.0) for a, b in cuts))


def small_ae(
    kind="undercomplete", epochs=1, batch_size=100, seed=0, learning_rate=3e-3, **model
) -> AEConfig:
    """Return the configuration of an autoencoder of a few thousand weights, with 5 numbers as code.

    `model`: fields of AEModelConfig.
    """
    widths = (4, 6) if "conv" in kind else (20, 12)
    return AEConfig(
        fit=FitConfig(epochs=epochs, batch_size=batch_size, seed=seed),
        optimizer=OptimizerConfig(learning_rate=learning_rate),
        model=AEModelConfig(**{"kind": kind, "code": 5, "widths": widths, **model}),
    )


def trained(config: AEConfig, data: Data) -> Fit:
    """Train an autoencoder to its end."""
    config.validate()
    fit = Fit(AETask(config), data, config.fit)
    for _ in fit:
        pass
    return fit


def measured(fit: Fit) -> dict[str, float]:
    """Return the task's test figures, with seed 0 instead of the run's seed."""
    with evaluating(fit.task, 0):
        return fit.task.test(fit.whole_data)


def check_resume(start: Callable[[], Fit], stop: int, folder: Path) -> None:
    """Check that a run that stops after `stop` steps and is loaded again makes the same steps,
    figures and weights as an uninterrupted run.
    """
    whole = start()
    steps = list(whole)
    first = start()
    for step in first:
        if step.step == stop:
            break
    first.save(folder)
    torch.manual_seed(999)  # other code may draw numbers in between
    second = start()
    second.load(folder)
    assert list(second) == steps[stop:]
    expected = whole.task.networks.state_dict()
    assert all(
        torch.equal(expected[name], tensor)
        for name, tensor in second.task.networks.state_dict().items()
    )
    untrained = start().task.networks.state_dict()
    # The run changed its weights.
    assert sum(not torch.equal(expected[name], untrained[name]) for name in expected) >= 4


def pca_gaussian_samples(
    train: Tensor, num: int, low: float, high: float, components: int = 32, seed: int = 0
) -> Tensor:
    """Draw `num` images from a Gaussian fitted in PCA space, clipped to low..high.

    The samples are a baseline for other generators.
    """
    from sklearn.decomposition import PCA

    flat = train.flatten(1).double().numpy()
    model = PCA(min(components, *flat.shape), svd_solver="full").fit(flat)
    noise = np.random.default_rng(seed).standard_normal((num, model.n_components_))
    images = model.inverse_transform(noise * np.sqrt(model.explained_variance_))
    return torch.from_numpy(images).float().clamp(low, high).reshape(num, *train.shape[1:])


def sounding(path: Path, seconds: float = 2.0, fps: int = 10) -> Path:
    """Write an MP4 with pictures, and a tone of 440 Hz in AAC."""
    rate = 8000
    with av.open(str(path), mode="w") as out:
        video: Any = out.add_stream("mpeg4", rate=fps)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        audio: Any = out.add_stream("aac", rate=rate, layout="mono")
        for number in range(round(seconds * fps)):
            picture = np.full((48, 64, 3), 10 * number % 256, np.uint8)
            out.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        tone = np.sin(2 * np.pi * 440 * np.arange(round(seconds * rate)) / rate).astype(np.float32)
        for at in range(0, len(tone) - 1023, 1024):
            frame = av.AudioFrame.from_ndarray(
                tone[None, at : at + 1024], format="fltp", layout="mono"
            )
            frame.sample_rate, frame.pts = rate, at
            out.mux(audio.encode(frame))
        out.mux(video.encode())
        out.mux(audio.encode())
    return path
