"""Draws reconstructions of held-out digits at several code sizes, and with a code that is larger
than the image, with and without noise on the input.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from genray.gen.autoencoder import presets
from genray.gen.autoencoder.task import AETask
from genray.gen.data.load import load_data
from genray.gen.generative import to_uint8
from genray.gen.sheets import Tile, draw_sheet
from genray.gen.training.fit import Fit, evaluating
from genray.gen.training.randomness import fixed_randomness
from genray.media import write_png

SIZES = (2, 4, 8, 16, 32)
"""Numbers of a code; an image has 64 pixels."""
WIDE: dict[str, Any] = {"code": 512, "widths": (), "code_activation": "relu"}
ARMS: dict[str, dict[str, Any]] = {
    **{f"{size} numbers": {"code": size, "widths": (128,)} for size in SIZES},
    "512, no penalty": WIDE,
    "512, noise .5": {**WIDE, "kind": "denoising", "corruption_strength": 0.5},
}
"""Options of each row's autoencoder, by the row's label."""
SHOWN, NOISE = 10, 2
"""Numbers of held-out digits and of random images on the sheet."""


def reconstructions(arm: str, epochs: int = 40, seed: int = 0) -> tuple[float, torch.Tensor]:
    """Train the autoencoder of an arm on digits.

    Returns its mean squared error on the 500 held-out digits, and its outputs for the images of
    `shown_images`, float32 [SHOWN + NOISE, 1, 8, 8].
    """
    preset = presets.ae_digits()
    config = replace(
        preset,
        fit=replace(preset.fit, epochs=epochs, seed=seed, validate_every=10_000, device="cpu"),
        model=replace(preset.model, **ARMS[arm]),
    )
    data = load_data(config.data)
    task = AETask(config)
    for _ in Fit(task, data, config.fit):
        pass
    with evaluating(task, 0):
        return task.evaluate(data.test)["mse"], task.model(shown_images(seed))


def shown_images(seed: int = 0) -> torch.Tensor:
    """Return held-out digits and then random images, [SHOWN + NOISE, 1, 8, 8]."""
    test = load_data(presets.ae_digits().data).test
    with fixed_randomness([seed, 12]):
        noise = torch.rand(NOISE, *test.values.shape[1:])
    return torch.cat([test.first(SHOWN).all(), noise])


def codes_figure(path: Path, seed: int = 0) -> Path:
    """Draw one row for each code size, with the error on held-out digits."""
    rows, labels = [_tiles(shown_images(seed))], ["held out, noise"]
    for arm in ARMS:
        error, images = reconstructions(arm, seed=seed)
        rows.append(_tiles(images))
        labels.append(f"{arm}: {error:.4f}")
    title = (
        "Digits of 64 pixels through codes of several sizes, with the mean squared error on 500 "
        "held-out digits; the last two columns are noise"
    )
    return write_png(path, draw_sheet(rows, labels, title))


def _tiles(images: torch.Tensor) -> list[Tile]:
    return [Tile(image) for image in to_uint8(images.clamp(0, 1), 0.0, 1.0)]
